"""What ingest says of input that cannot be used: one line, and nothing left to read."""

import math

import pyarrow.parquet as pq
import pytest

from penstock.components._shared.dataset import open_dataset
from penstock.components._shared.errors import UserError
from penstock.components.ingestion.ingest import ingest

GOOD = "id,fare,zone\n" + "".join(f"{i},{i / 2},z{i % 3}\n" for i in range(40))


@pytest.fixture
def into(tmp_path):
    """Return a function that ingests a source into three folders under tmp_path."""

    def call(source, **arguments):
        return ingest(str(source), *(tmp_path / name for name in ("train", "eval", "rejects")), **arguments)

    return call


@pytest.fixture
def csv(tmp_path):
    """Return a function that writes a CSV file."""

    def write(content, name="trips.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def refusal(into, tmp_path, source, **arguments) -> str:
    with pytest.raises(UserError) as refused:
        into(source, **arguments)
    assert not any((tmp_path / name).exists() for name in ("train", "eval", "rejects"))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def rejected(tmp_path) -> list[dict]:
    dataset = open_dataset(tmp_path / "rejects", "test", "rejects")
    return [row for file in dataset.files for row in pq.read_table(file).to_pylist()]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "trips.csv is empty"),
        (b"id,fare,zone\n", "no data rows"),
        (b"id,fare,zone\n\n\n", "no data rows"),
    ],
    ids=["no-bytes", "header-only", "blank-lines"],
)
def test_a_source_without_rows_is_refused(into, csv, tmp_path, content, words):
    assert words in refusal(into, tmp_path, csv(content))


def test_a_missing_source_is_named(into, tmp_path):
    assert "nowhere.csv" in refusal(into, tmp_path, tmp_path / "nowhere.csv")
    assert "no file matches" in refusal(into, tmp_path, tmp_path / "*.csv")


def test_a_ragged_row_is_named_with_file_line_and_reason(into, csv, tmp_path):
    path = csv(GOOD + "41,3.5\n42,4.5,z1,more\n")
    line = refusal(into, tmp_path, path)
    assert f"{path}:42" in line
    assert "2 bad rows, 0 allowed" in line


def test_ragged_rows_within_the_limit_are_kept_aside_not_padded(into, csv, tmp_path):
    done = into(csv(GOOD + "41,3.5\n42,4.5,z1,more\n"), max_bad_rows=2)
    assert done.bad_rows == 2
    assert done.train_rows + done.eval_rows == 40
    assert [(row["line"], row["text"]) for row in rejected(tmp_path)] == [(42, "41,3.5"), (43, "42,4.5,z1,more")]


def test_an_open_quote_does_not_swallow_the_rows_after_it(into, csv, tmp_path):
    done = into(csv('id,fare,zone\n1,2.5,"open\n' + GOOD.partition("\n")[2]), max_bad_rows=5)
    assert done.bad_rows >= 1
    assert done.train_rows + done.eval_rows == 40
    assert rejected(tmp_path)[0]["line"] == 2


def test_a_value_that_does_not_fit_the_given_type_names_line_and_column(into, csv, tmp_path):
    path = csv(GOOD + "40,free,z1\n")
    line = refusal(into, tmp_path, path, columns={"fare": "DOUBLE"})
    assert f"{path}:42, column fare" in line
    assert "free" in line


def test_a_column_of_whole_numbers_that_turns_out_to_hold_fractions_is_not_rounded(into, csv, tmp_path):
    rows = "".join(f"{i},{i},z\n" for i in range(60_000))
    done = into(csv("id,fare,zone\n" + rows + "60000,1.5,z\n"), eval_fraction=0)
    assert done.train_rows == 60_001
    fares = pq.read_table(tmp_path / "train" / "part-00000.parquet").column("fare")
    assert fares[60_000].as_py() == 1.5


def test_the_wrong_encoding_is_named_with_the_way_out(into, csv, tmp_path):
    path = csv((GOOD + "40,1.5,caf\xe9\n").encode("latin-1"))
    assert "latin-1" in refusal(into, tmp_path, path)
    assert into(path, encoding="latin-1", eval_fraction=0).train_rows == 41
    assert pq.read_table(tmp_path / "train" / "part-00000.parquet").column("zone")[40].as_py() == "café"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT nothing FROM source", "nothing"),
        ("SELEC id FROM source", "SELEC"),
        ("SELECT id / FROM source", "query"),
        ("SELECT 1; SELECT 2", "query"),
        ("CREATE TABLE x AS SELECT 1", "SELECT"),
        ("COPY source TO '/tmp/elsewhere.csv'", "SELECT"),
        ("SELECT * FROM source WHERE id > 1000", "no rows"),
        ("SELECT id, id FROM source", "id"),
        ("SELECT * FROM read_csv('/etc/passwd')", "query"),
        ("SELECT CAST(zone AS INTEGER) AS n FROM source", "query"),
    ],
)
def test_a_query_that_cannot_be_used_is_refused(into, csv, tmp_path, query, words):
    line = refusal(into, tmp_path, csv(GOOD), query=query)
    assert line.startswith("ingest: query:")
    assert words in line


@pytest.mark.parametrize(
    ("arguments", "argument", "words"),
    [
        ({"eval_fraction": math.nan}, "eval_fraction", "NaN"),
        ({"eval_fraction": math.inf}, "eval_fraction", "inf"),
        ({"eval_fraction": 1.0}, "eval_fraction", "1.0"),
        ({"eval_fraction": -0.1}, "eval_fraction", "-0.1"),
        ({"max_bad_rows": -1}, "max_bad_rows", "-1"),
        ({"split_keys": ["trip"]}, "split_keys", "id, fare, zone"),
        ({"time_column": "id", "eval_from": "2019-01-01"}, "time_column", "not a time"),
        ({"time_column": "when", "eval_from": "2019-01-01"}, "time_column", "id, fare, zone"),
        ({"time_column": "id"}, "eval_from", "missing"),
        ({"eval_from": "2019-01-01"}, "time_column", "missing"),
        ({"time_column": "id", "eval_from": "soon"}, "eval_from", "soon"),
        ({"format": "xml"}, "format", "parquet"),
        ({"encoding": "ebcdic"}, "encoding", "latin-1"),
        ({"columns": {"fares": "DOUBLE"}}, "columns", "fare"),
        ({"columns": {"fare": "MONEY"}}, "columns", "MONEY"),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused_by_name(into, csv, tmp_path, arguments, argument, words):
    line = refusal(into, tmp_path, csv(GOOD), **arguments)
    assert line.startswith(f"ingest: {argument}:")
    assert words in line


@pytest.mark.parametrize("name", ["trips.zip", "trips.txt", "trips"])
def test_a_file_whose_format_is_not_read_is_refused(into, csv, tmp_path, name):
    assert name in refusal(into, tmp_path, csv(GOOD, name))


def test_a_damaged_parquet_file_is_named(into, csv, tmp_path):
    assert "trips.parquet" in refusal(into, tmp_path, csv(b"PAR1 not really", "trips.parquet"))


@pytest.mark.parametrize("name", ["trips.csv.gz", "trips.csv.zst", "trips.csv.bz2", "trips.csv.xz"])
def test_a_damaged_archive_is_named(into, csv, tmp_path, name):
    assert name in refusal(into, tmp_path, csv(b"not compressed", name))


def test_lines_that_are_no_json_are_kept_aside_with_their_numbers(into, csv, tmp_path):
    lines = [f'{{"id": {i}, "zone": "z{i % 3}"}}' for i in range(20)]
    lines[7] = '{"id": 7, "zone":'
    done = into(csv("\n".join(lines) + "\n", "trips.jsonl"), max_bad_rows=1)
    assert done.train_rows + done.eval_rows == 19
    assert [row["line"] for row in rejected(tmp_path)] == [8]


def test_an_unknown_sample_lists_the_known_ones(into, tmp_path):
    assert "taxi" in refusal(into, tmp_path, "sample://bikes")


def test_an_unknown_scheme_lists_the_known_ones(into, tmp_path):
    assert "s3" in refusal(into, tmp_path, "ftp://example.com/trips.csv")


@pytest.mark.parametrize("damage", ["truncate", "alter", "remove", "add", "unseal"])
def test_a_dataset_that_is_not_what_its_manifest_says_is_refused(into, csv, tmp_path, damage):
    into(csv(GOOD))
    [part] = (tmp_path / "train").glob("*.parquet")
    content = part.read_bytes()
    if damage == "truncate":
        part.write_bytes(content[:-1])
    elif damage == "alter":
        part.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    elif damage == "remove":
        part.unlink()
    elif damage == "add":
        (tmp_path / "train" / "part-00001.parquet").write_bytes(content)
    else:
        (tmp_path / "train" / "manifest.json").unlink()
    with pytest.raises(UserError, match="train: dataset:"):
        open_dataset(tmp_path / "train", "train", "dataset")
