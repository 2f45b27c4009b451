"""The query: one SELECT over source, shut in, with results that any reader of Parquet takes."""

import datetime

import pyarrow as pa
import pytest

CSV = "a,b,t\n1,x,2019-01-01 10:00:00\n2,y,2019-01-01 11:30:00\n3,z,\n"


@pytest.fixture
def source(file):
    return file("t.csv", CSV)


def test_it_derives_columns_and_filters(source, ingested):
    query = "SELECT a * 2 AS twice, upper(b) AS b FROM source WHERE a < 3 -- the last is not wanted"
    assert ingested(source, query=query).train == [{"twice": 2, "b": "X"}, {"twice": 4, "b": "Y"}]


def test_its_order_is_kept(source, ingested):
    query = "SELECT a::DECIMAL(9,1) AS a FROM source ORDER BY a DESC;"
    assert [row["a"] for row in ingested(source, query=query).train] == [3.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT nope FROM source", ['Referenced column "nope" not found', "The columns of source are a, b, t"]),
        ("SELECT * FROM sauce", ["Table with name sauce does not exist", "a, b, t"]),
        ("SELEC a", ["syntax error", "one SELECT over the table source"]),
        ("SELECT 1; SELECT 2", ["it is not one SELECT but SELECT, SELECT"]),
        ("DROP TABLE source", ["it is not one SELECT but DROP"]),
        ("-- nothing", ["it is not one SELECT but nothing"]),
        ("SELECT a, b AS A FROM source", ["two columns 'A'", "AS"]),
        ("SELECT a FROM source WHERE a > 100", ["the result has no rows", "WHERE"]),
        ("SELECT b::INTEGER AS n FROM source", ["Could not convert string 'x' to INT32"]),
        ("SELECT * FROM read_csv('/etc/passwd')", ["Cannot access file"]),
        ("SELECT * FROM '/etc/hostname'", ["/etc/hostname"]),
        ("SELECT 2::HUGEINT ** 100 AS n, (2::HUGEINT * 9223372036854775807) AS h FROM source", ["INT64"]),
    ],
)
def test_a_query_that_fails_says_why_in_one_line(source, refused, query, words):
    error = refused(source, query=query)
    assert error.argument == "query"
    assert all(word in str(error) for word in words), str(error)


def test_types_that_readers_lack_are_stored_plainly(source, ingested):
    query = """
        SELECT 1.5::DECIMAL(9,2) AS decimal, sum(a) OVER () AS huge, t - TIMESTAMP '2019-01-01' AS elapsed,
               [a, 2] AS list, {'x': a} AS struct, uuid '00000000-0000-0000-0000-000000000001' AS id,
               TIMESTAMP_NS '2019-01-01 00:00:00.123456789' AS nanos, 'u'::ENUM('u', 'v') AS choice,
               TIME '10:00:00' AS clock, TIMESTAMPTZ '2019-01-01 02:00:00+02' AS instant, 'x'::BLOB AS bytes
        FROM source WHERE a = 1"""
    outcome = ingested(source, query=query)
    assert outcome.types == {
        "decimal": "double",
        "huge": "int64",
        "elapsed": "double",
        "list": "string",
        "struct": "string",
        "id": "string",
        "nanos": "timestamp[us]",
        "choice": "string",
        "clock": "time64[us]",
        "instant": "timestamp[us, tz=UTC]",
        "bytes": "binary",
    }
    [row] = outcome.train
    assert (row["decimal"], row["elapsed"], row["list"], row["struct"]) == (1.5, 36000.0, "[1,2]", '{"x":1}')
    assert row["nanos"] == datetime.datetime(2019, 1, 1, 0, 0, 0, 123456)
    assert row["instant"] == datetime.datetime(2019, 1, 1, tzinfo=datetime.UTC)


def test_it_sees_no_variable_of_python(source, refused, monkeypatch):
    monkeypatch.setitem(globals(), "arrow_table", pa.table({"x": [1]}))
    assert "Table with name arrow_table does not exist" in str(refused(source, query="SELECT * FROM arrow_table"))
