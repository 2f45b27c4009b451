"""Files that are read one by one, anywhere, beside the same files in one pass."""

import gzip
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.components._shared import beam, parts
from penstock.components._shared.errors import UserError
from penstock.components.ingestion import csv_files, jsonl_files, pieces
from penstock.components.ingestion.ingest import Ingested, ingest
from tests.components.ingestion.conftest import PORTS
from tests.components.spreading import content, plain, without_beam


def both(source: Path, folder: Path, **arguments: Any) -> list[Any]:
    """Return what comes of a source on one machine and by units: counts and contents, or the refusal."""
    found = []
    with without_beam():
        for engine in beam.ENGINES:
            outputs = [folder / engine / port for port in PORTS]
            try:
                result = ingest(str(source), *outputs, engine=engine, **arguments)
            except UserError as error:
                assert not any(output.exists() for output in outputs)
                found.append(str(error))
            else:
                found.append((result, *map(content, outputs)))
    return found


def same(source: Path, folder: Path, **arguments: Any) -> tuple[Ingested, Any, Any, Any]:
    """Return what comes of a source, the same on one machine and by units."""
    here, spread = both(source, folder, **arguments)
    assert here == spread
    return here


def write(folder: Path, *texts: str, suffix: str = "csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number}.{suffix}").write_text(text)
    return folder


@pytest.fixture
def little_seen():
    """Samples so small that most rows are in none."""
    with ExitStack() as stack:
        for module, name, value in (
            (csv_files, "HEAD", 24),
            (csv_files, "WINDOW", 24),
            (csv_files, "WINDOWS", 0),
            (jsonl_files, "SAMPLED", 8),
            (jsonl_files, "SAMPLED_LINES", 1),
        ):
            stack.enter_context(patch.object(module, name, value))
        yield


@pytest.fixture
def in_pieces():
    """Files of some sixty bytes are large."""
    with patch.object(pieces, "LEAST", 30), patch.object(pieces, "_BLOCK", 64):
        yield


def written(folder: Path, port: str = "train_set") -> int:
    """Return how many parts Beam made of a set."""
    return len(list((folder / "beam" / port).glob("part-*.parquet")))


VALUES = st.sampled_from(
    ["1", "22", "-3", "", "4.0", "5.5", "1e3", "9007199254740993", "1e300", "nan", "inf", "word", '"a\nb"', '"open',
     "2019-01-02", "2019-01-02 10:00:00", "true", "x,y"]
)  # fmt: skip
HEADERS = st.sampled_from(["a,b", "b,a", "A,b,c", "b"])


@given(
    files=st.lists(st.tuples(HEADERS, st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=8)), min_size=1, max_size=4),
    fraction=st.sampled_from([0.0, 0.5]),
    most_bad=st.sampled_from([0, 1, 99]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_in_the_files_they_give_one_by_one_what_they_give_together(
    little_seen, tmp_path_factory, files, fraction, most_bad
):
    folder = tmp_path_factory.mktemp("files")
    texts = []
    for header, rows in files:
        first = {"a": "7", "A": "7", "b": "2019-01-01", "c": "true"}
        names = header.split(",")
        lines = [",".join(first[name] for name in names), *(",".join(row[: len(names)]) for row in rows)]
        texts.append("\n".join([header, *lines]) + "\n")
    here, spread = both(write(folder / "source", *texts), folder, eval_fraction=fraction, max_bad_rows=most_bad)
    assert here == spread


@given(
    files=st.lists(
        st.tuples(HEADERS, st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=12)), min_size=1, max_size=3
    ),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    last=st.booleans(),
    mark=st.sampled_from(["", "\ufeff"]),
    most_bad=st.sampled_from([0, 1, 99]),
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_in_the_pieces_of_files_they_give_what_the_files_give(
    little_seen, in_pieces, tmp_path_factory, files, ending, last, mark, most_bad
):
    folder = tmp_path_factory.mktemp("files")
    (folder / "source").mkdir()
    for number, (header, rows) in enumerate(files):
        first = {"a": "7", "A": "7", "b": "2019-01-01", "c": "true"}
        names = header.split(",")
        lines = [header, ",".join(first[name] for name in names), *(",".join(row[: len(names)]) for row in rows)]
        text = mark + ending.join(line.replace("\n", ending) for line in lines) + ending * last
        (folder / "source" / f"{number}.csv").write_bytes(text.encode())
    here, spread = both(folder / "source", folder, eval_fraction=0.5, max_bad_rows=most_bad)
    assert here == spread


KEYS = st.sampled_from(["a", "b"])
ITEMS = st.sampled_from(
    ["1", "2.5", "9007199254740993", '"x"', '"a, b"', "null", "[1, {}]", "NaN", "nan", "1,", "-", '"']
)
LINES = st.one_of(
    st.builds('{{"{}": {}}}'.format, KEYS, ITEMS),
    st.builds('{{"{}": {}, "{}": {}}}'.format, KEYS, ITEMS, KEYS, ITEMS),
    st.sampled_from(["", "  ", "[]", "word", '{"z": 1}', '{"a": 1}\r', '{"a":', "1}"]),
)


@given(lines=st.lists(LINES, max_size=16), last=st.booleans(), most_bad=st.sampled_from([0, 99]))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_in_the_pieces_of_json_lines_they_give_what_the_file_gives(
    little_seen, in_pieces, tmp_path_factory, lines, last, most_bad
):
    folder = tmp_path_factory.mktemp("files")
    text = "\n".join(['{"a": 1, "b": 2}', *lines]) + "\n" * last
    here, spread = both(write(folder / "source", text, suffix="jsonl"), folder, max_bad_rows=most_bad)
    assert here == spread


def test_text_is_divided_at_lines_and_its_bad_rows_keep_their_numbers(in_pieces, tmp_path):
    lines = [f"{number},x{number}" for number in range(50)]
    lines[20] = lines[40] = "bad"
    source = write(tmp_path / "s", "\n".join(["a,b", *lines]) + "\n")
    _, _, _, (_, _, _, rejects) = same(source, tmp_path, eval_fraction=0, max_bad_rows=2)
    assert [row["line"] for row in rejects] == ["22", "42"]
    assert written(tmp_path) > 4
    objects = [f'{{"a": {line.partition(",")[0]}}}' if "," in line else line for line in lines]
    source = write(tmp_path / "j", "\n".join(objects), suffix="jsonl")
    _, _, _, (_, _, _, rejects) = same(source, tmp_path, eval_fraction=0, max_bad_rows=2)
    assert [row["line"] for row in rejects] == ["21", "41"]
    assert written(tmp_path) > 4


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n" + '1,5" x\n2,6" y\n' * 20,
        "a,b\n" + "1,x\n" * 20 + '2,"y\n' + "3,z\n" * 200,
        "a,b\n" + '1, "x"\n' * 20,
        "a,b\n" + '1,"x" y\n' * 20,
        "a\n" + "1\n\n" * 20,
        "a,b\r" + "1,x\r" * 20,
        "a,b\n" + "1,x\n1,y\r\n" * 20,
    ],
    ids=["stray", "open", "blank", "behind", "one column", "returns", "mixed"],
)
def test_text_of_which_it_is_not_certain_where_records_end_is_not_divided(in_pieces, tmp_path, text):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "0.csv").write_bytes(text.encode())
    both(tmp_path / "s", tmp_path, eval_fraction=0, max_bad_rows=99)
    assert written(tmp_path) <= 1


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_text_is_not_divided_within_quotes(in_pieces, tmp_path, ending):
    text = '"a\n""A""",b\n' + ('1,"x ""y"",\n\nz"\n' * 3 + '2,""\n"3",""""\n') * 12
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "0.csv").write_bytes(text.replace("\n", ending).encode())
    result, *_ = same(tmp_path / "s", tmp_path, eval_fraction=0)
    assert result.train_rows == 60
    assert written(tmp_path) > 1


def test_what_is_compressed_or_of_another_encoding_is_not_divided(in_pieces, tmp_path):
    text = "a,b\n" + "1,ä\n" * 50
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "0.csv.gz").write_bytes(gzip.compress(text.encode()))
    same(tmp_path / "s", tmp_path, eval_fraction=0)
    assert written(tmp_path) == 1
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "0.csv").write_bytes(text.encode("latin-1"))
    same(tmp_path / "t", tmp_path, eval_fraction=0, encoding="latin-1")
    assert written(tmp_path) == 1


def grouped(folder: Path, groups: int = 7, **more: Any) -> Path:
    """Write two Parquet files, one of so many row groups and some columns that the other lacks."""
    folder.mkdir()
    rows = groups * 10
    table = pa.table(
        {
            "a": pa.array(range(rows), pa.int32()),
            "s": [None if number % 7 == 0 else f"s{number % 5}" for number in range(rows)],
            "l": [[number] for number in range(rows)],
            "t": pa.array(range(rows), pa.timestamp("ns")),
        }
        | more
    )
    pq.write_table(table, folder / "0.parquet", row_group_size=10)
    pq.write_table(pa.table({"A": [0.5, None]}), folder / "1.parquet")
    return folder


def test_parquet_is_divided_between_row_groups(in_pieces, tmp_path):
    source = grouped(tmp_path / "s")
    _, (schema, number, _, rows), _, _ = same(source, tmp_path, eval_fraction=0)
    assert (schema["a"], number) == ("double", 72)
    assert [row["a"] for row in rows] == [*(repr(float(number)) for number in range(70)), "0.5", "None"]
    assert written(tmp_path) == 8
    same(source, tmp_path, eval_fraction=0.3, query="SELECT a, s, unnest(l) AS n FROM source WHERE s = 's3' AND a > 20")
    assert "no rows" in same(source, tmp_path, query="SELECT a FROM source WHERE a > 1000")


def test_pieces_have_as_many_bytes_as_is_wanted(monkeypatch, tmp_path):
    source = grouped(tmp_path / "s", groups=60) / "0.parquet"
    monkeypatch.setattr(pieces, "LEAST", source.stat().st_size // 4)
    found = pieces.of_row_groups(source)
    assert [piece.rows[0] for piece in found] == [0, *(piece.rows[1] for piece in found[:-1])]
    assert (len(found), found[-1].rows[1]) == (pytest.approx(4, abs=1), 600)
    monkeypatch.setattr(pieces, "LEAST", source.stat().st_size)
    assert pieces.of_row_groups(source) == []


def test_a_column_that_is_called_as_the_number_of_a_row_keeps_a_file_whole(in_pieces, tmp_path):
    source = grouped(tmp_path / "s", File_Row_Number=[5] * 70)
    same(source, tmp_path, eval_fraction=0)
    assert written(tmp_path) == 2


def test_a_type_that_one_file_makes_wider_is_as_wide_in_all_of_them(little_seen, tmp_path):
    source = write(
        tmp_path / "s", "a,d\n1,2019-01-01\n1,\n5.0,\n", "a,d\n2,2019-01-01\n9007199254740993,2019-01-02 10:00:00\n"
    )
    _, (schema, _, _, rows), _, _ = same(source, tmp_path, eval_fraction=0)
    # A text of whole numbers, one of which has a point: neither a BIGINT nor a DOUBLE holds them all.
    assert schema == {"a": "string", "d": "timestamp[us]"}
    assert [row["a"] for row in rows] == ["'1'", "'1'", "'5.0'", "'2'", "'9007199254740993'"]


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_what_makes_a_type_wider_does_not_matter(little_seen, tmp_path, order):
    """Nor does it to which rows are bad: what is no number is bad wherever the sample showed numbers."""
    lines = ["5.5", "word", "9007199254740993", "nan"][::order]
    source = write(tmp_path / "s", "a,b\n" + "1,x\n" * 4 + "".join(f"{line},y\n" for line in lines))
    result, (schema, *_), _, (_, _, _, rejects) = same(source, tmp_path, eval_fraction=0, max_bad_rows=1)
    assert (result.bad_rows, schema["a"]) == (1, "string")
    assert rejects[0]["reason"] == repr("'word' is no BIGINT")


def test_bad_rows_are_counted_over_all_files_and_the_first_of_all_is_told(tmp_path):
    rows = "".join(f"{number},x\n" for number in range(50))
    source = write(tmp_path / "s", "a,b\n" + rows, *(f"a,b\n{rows}{number}\n" for number in range(3)))
    result, _, _, (_, _, _, rejects) = same(source, tmp_path, max_bad_rows=3)
    assert result.bad_rows == 3
    assert [row["line"] for row in rejects] == ["52"] * 3
    refusal = same(source, tmp_path, max_bad_rows=2)
    assert f"3 bad rows, 2 allowed by max_bad_rows; the first is {source}/1.csv:52: 2 columns" in refusal


def test_each_file_is_counted_only_as_far_as_in_one_pass(tmp_path):
    source = write(tmp_path / "s", "a,b\n1,2\n" + "1\n" * 6000, "a,b\n1,2\n" + "1\n" * 6000)
    assert "more than 10000 bad rows, 0 allowed" in same(source, tmp_path)


def test_a_query_over_columns_and_rows_gives_the_same_rows_in_the_same_order(tmp_path):
    texts = ["a,d\n" + "".join(f"{number},2019-0{number % 9 + 1}-01\n" for number in range(start, start + 300))
             for start in (0, 300, 600)]  # fmt: skip
    query = "WITH late AS (SELECT a, d, unnest([a, -a]) AS both FROM source WHERE d > '2019-03-01') SELECT * FROM late"
    arguments = {"query": query, "time_column": "d", "eval_from": "2019-06-01"}
    result, _, _, _ = same(write(tmp_path / "s", *texts), tmp_path, **arguments)
    assert result.train_rows > 300
    assert result.eval_rows > 300


def test_a_file_without_a_row_for_one_set_adds_no_part_to_it(tmp_path):
    source = write(tmp_path / "s", "d,a\n2019-01-01,1\n", "d,a\n2019-02-01,2\n", "d,a\n")
    same(source, tmp_path, time_column="d", eval_from="2019-01-15")
    parts = {port: [path.name for path in sorted((tmp_path / "beam" / port).iterdir())] for port in PORTS}
    assert parts["train_set"] == ["manifest.json", "part-00000.parquet"]
    assert parts["eval_set"] == ["manifest.json", "part-00001.parquet"]
    assert parts["rejects"] == ["manifest.json", "part-00000.parquet"]


def test_parquet_files_whose_columns_differ_have_the_types_they_have_together(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    tables = [
        pa.table({"a": pa.array([1, 2], pa.int32()), "s": ["x", None], "l": [[1], [2, 3]]}),
        pa.table({"A": pa.array([1.5, None]), "n": pa.array([1, 2], pa.uint64()), "l": [[1.5], None]}),
        pa.table({"a": pa.array([2**40]), "n": pa.array([-1]), "s": [7]}),
        pa.table({"a": pa.array([1, 2], pa.int32()), "s": ["y", "z"], "l": [[1], []]}),
    ]
    for number, table in enumerate(tables):
        pq.write_table(table, folder / f"{number}.parquet")
    _, (schema, *_), _, _ = same(folder, tmp_path, eval_fraction=0)
    assert schema["a"] == "double"
    assert schema["s"] == "string"
    same(folder, tmp_path, eval_fraction=0.5, query="SELECT a, n + 1 AS n FROM source WHERE a IS NOT NULL")


def test_json_lines_have_the_keys_of_all_files(little_seen, tmp_path):
    rows = [
        [{"a": 1, "b": "x"}, {"a": 2.5}, "word"],
        [{"b": "y", "c": [1]}, {"a": 9007199254740993, "c": None}],
        [{"a": 3}],
    ]
    texts = ["\n".join(map(json.dumps, each)) + "\n" for each in rows]
    result, *_ = same(write(tmp_path / "s", *texts, suffix="jsonl"), tmp_path, eval_fraction=0, max_bad_rows=9)
    assert result.bad_rows == 1
    texts[1] += '{"B": 1}\n'
    same(write(tmp_path / "t", '{"B": 1}\n', *texts, suffix="jsonl"), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"columns": {"z": "DATE"}}, "columns: there is no column 'z'"),
        ({"split_keys": ["z"]}, "split_keys: there is no column 'z'"),
        ({"query": "SELECT nothing FROM source"}, "query: Referenced column"),
        ({"query": "SELECT a, A FROM source"}, "query: the result has two columns"),
        ({"query": "SELECT a FROM source WHERE a > 5"}, "query: the result has no rows"),
        ({"query": "SELECT CAST(b AS INTEGER) AS n FROM source"}, "query: Could not convert string 'x' to INT32"),
        ({"eval_fraction": 1e-12}, "of 2 rows none falls to eval_set"),
        ({"time_column": "t", "eval_from": "2019-01-01"}, "time_column: t is null in 2 rows"),
    ],
)
def test_what_is_refused_is_refused_in_the_same_words(tmp_path, arguments, words):
    source = write(tmp_path / "s", "a,b,t\n1,x,\n", "a,b,t\n2,y,\n")
    if "time_column" in arguments:
        arguments["columns"] = {"t": "TIMESTAMP"}
    assert words in same(source, tmp_path, **arguments)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("SELECT count(*) AS n FROM source", "it needs rows together (UNGROUPED AGGREGATE)"),
        ("SELECT DISTINCT a FROM source", "it needs rows together (HASH GROUP BY)"),
        ("SELECT a FROM source ORDER BY a", "it needs rows together (ORDER BY)"),
        ("SELECT a FROM source LIMIT 3", "it needs rows together (LIMIT)"),
        ("SELECT row_number() OVER () AS n FROM source", "it needs rows together (WINDOW)"),
        ("SELECT a FROM source TABLESAMPLE 10%", "it needs rows together (SAMPLE)"),
        ("SELECT a FROM source UNION ALL SELECT a FROM source", "it needs rows together (UNION)"),
        ("SELECT a FROM source WHERE a IN (SELECT max(a) FROM source)", "it needs rows together (HASH JOIN"),
        ("SELECT 1 AS one", "it needs rows together (DUMMY SCAN)"),
        ("SELECT * FROM range(3) AS t(a)", "it needs rows together (RANGE)"),
    ],
)
def test_a_query_that_needs_rows_together_is_refused_by_what_it_needs_them_for(tmp_path, query, why):
    source = write(tmp_path / "s", "a\n1\n2\n", "a\n3\n")
    _, refusal = both(source, tmp_path, query=query)
    assert refusal.startswith(f"ingest: query: with engine='beam', {why}")
    assert "\n" not in refusal


def test_what_a_killed_attempt_left_is_in_no_dataset(tmp_path):
    source = write(tmp_path / "s", "a\n1\n", "a\n2\n")

    def killed(engine, items, work, folder):
        for place in getattr(items[0], "places", ()):
            Path(place, "part-00001.parquet.0123abcd").write_bytes(b"half a part")
        return plain(engine, items, work, folder)

    with without_beam(), patch.object(beam, "spread", killed):
        outputs = [tmp_path / "out" / port for port in PORTS]
        ingest(str(source), *outputs, engine="beam", eval_fraction=0)
    assert content(outputs[0])[1] == 2


def test_workers_of_other_machines_need_a_source_and_outputs_that_they_can_reach(tmp_path):
    source = write(tmp_path / "s", "a\n1\n")
    dataflow = {
        "runner": "DataflowRunner",
        "project": "p",
        "region": "r",
        "temp_location": "gs://b/t",
        "sdk_container_image": "i",
    }
    outputs = [tmp_path / "out" / port for port in PORTS]
    with without_beam(), pytest.raises(UserError, match=r"train_set: .* is on this machine, where DataflowRunner"):
        ingest(str(source), *outputs, engine="beam", beam_options=dataflow)
    uris = [f"gs://bucket/{port}" for port in PORTS]
    with (
        without_beam(),
        patch.object(parts, "_keep", lambda gathered, names: None),
        pytest.raises(UserError, match=r"source: .*0\.csv is on this machine, where DataflowRunner cannot read it"),
    ):
        ingest(str(source), *outputs, engine="beam", beam_options=dataflow, uris=uris)
