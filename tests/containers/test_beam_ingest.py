"""Files ingested and rows predicted on Beam, held to what one machine makes of them, in the image that has it."""

import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.pipelines.tabular_training import TIPS
from tests.components.spreading import hashed
from tests.containers.beam_ingest import PORTS
from tests.containers.conftest import ROOT
from tests.containers.test_beam import in_image

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1200)]

ROWS = "".join(f"{n},{n / 4},2019-01-0{n % 9 + 1},note {n}\n" for n in range(10_000))
MODEL = {"target": "late", "framework": "lightgbm", "features": ["id", "fare"]}


def text(folder: Path) -> dict[str, Any]:
    """Files that differ in columns, compression and types, with bad rows; what is far on is in no sample."""
    header = "id,fare,day,note\n"
    (folder / "1.csv").write_text(
        header + ROWS + 'x,1,2019-01-01,bad\n5,5,2019-01-01,"open\n7,7,2019-01-01,two\n' + ROWS
    )
    (folder / "2.csv.gz").write_bytes(gzip.compress(("DAY;fare;id\n" + "2019-01-01;2.5;7\n" * 30_000).encode()))
    (folder / "3.csv").write_text(header + ROWS * 3 + "9007199254740993,1,2019-01-01 10:00:00,wide\n" + ROWS)
    (folder / "4.csv").write_text(header)
    return {"max_bad_rows": 5, "split_keys": ["id"], "eval_fraction": 0.3}


def parquet(folder: Path) -> dict[str, Any]:
    tables = [
        pa.table({"a": pa.array(range(200_000), pa.int32()), "s": [f"s{n % 9}" for n in range(200_000)]}),
        pa.table({"A": [1.5, None, 2.5], "l": [[1], None, []]}),
        pa.table({"a": pa.array([], pa.int64())}),
    ]
    for number, table in enumerate(tables):
        pq.write_table(table, folder / f"{number}.parquet")
    return {
        "query": "SELECT *, coalesce(a > 100, false) AS late, a AS id, a / 2 AS fare FROM source",
        "model": MODEL,
        "two": True,
    }


def row_groups(folder: Path) -> dict[str, Any]:
    """One file of ten row groups, and one of a single one."""
    table = pa.table(
        {"id": range(100_000), "s": [f"s{n % 99}" for n in range(100_000)], "l": [[n] for n in range(100_000)]}
    )
    pq.write_table(table, folder / "1.parquet", row_group_size=10_000)
    pq.write_table(table.slice(0, 1000), folder / "2.parquet")
    return {"least": 200_000, "query": "SELECT id, s, l[1] AS n FROM source WHERE s <> 's7'", "split_keys": ["id"]}


def long_text(folder: Path) -> dict[str, Any]:
    """Lines of which some are bad, and one makes a type wider."""
    rows = ROWS * 3 + "5.5,1,2019-01-01,wide\n" + ROWS + "x,1,2019-01-01,bad\n" + ROWS + "3,4\n" + ROWS
    (folder / "1.csv").write_text("id,fare,day,note\n" + rows)
    return {"least": 200_000, "max_bad_rows": 2}


def lines(folder: Path) -> dict[str, Any]:
    (folder / "1.jsonl").write_text('{"a": 1, "b": {"c": [1]}}\nnothing\n{"a": 2.5}\n')
    (folder / "2.jsonl").write_text('{"b": "x", "t": "2019-01-02 10:00:00"}\n' * 9)
    return {"max_bad_rows": 1, "eval_fraction": 0}


def refused(folder: Path) -> dict[str, Any]:
    (folder / "1.csv").write_text("a,b\n1,2\n")
    (folder / "2.csv").write_text("a,b\n1,2\n3\n")
    return {}


def together(folder: Path) -> dict[str, Any]:
    (folder / "1.csv").write_text("a,b\n1,2\n")
    return {"query": "SELECT sum(a) AS a FROM source"}


def trips(folder: Path) -> dict[str, Any] | None:
    months = Path(os.environ.get("PENSTOCK_SHARED", ROOT.parent / "shared"), "data", "taxi")
    for file in sorted(months.glob("*.csv"))[-3:]:
        shutil.copy(file, folder)
    model = {"target": "big_tip", "framework": "xgboost"}
    return {"query": TIPS, "model": model, "two": True} if any(folder.iterdir()) else None


CASES = (text, parquet, row_groups, long_text, lines, refused, together, trips)


@pytest.fixture(scope="module")
def tried(built, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """What came of all cases, run in one container."""
    folder = tmp_path_factory.mktemp("ingest")
    for make in CASES:
        source = folder / "cases" / make.__name__ / "source"
        source.mkdir(parents=True)
        if (arguments := make(source)) is not None:
            (source.parent / "arguments.json").write_text(json.dumps(arguments))
        else:
            shutil.rmtree(source.parent)
    in_image(built("beam").name, folder / "cases", folder / "output", "beam_ingest.py")
    return folder / "output", json.loads((folder / "output" / "found.json").read_text())


@pytest.mark.parametrize("case", ["text", "parquet", "row_groups", "long_text", "lines", "trips"])
def test_beam_gives_the_rows_of_one_machine_in_their_sets_and_order(tried, case):
    output, found = tried
    if not (output / case).exists():
        pytest.skip("the real trips are not here")
    here = [hashed(output / case / "local" / port) for port in PORTS]
    assert sum(rows for _, rows, *_ in here) > 0
    assert found[f"{case}.local"]["bad_rows"] == here[2][1] == {"text": 2, "long_text": 2, "lines": 1}.get(case, 0)
    for engine in ("one", "two"):
        if (output / case / engine).exists():
            assert found[f"{case}.{engine}"] == found[f"{case}.local"]
            assert [hashed(output / case / engine / port) for port in PORTS] == here
    assert (output / case / "two").exists() == (case in ("parquet", "trips"))


@pytest.mark.parametrize("case", ["row_groups", "long_text"])
def test_large_files_are_divided(tried, case):
    parts = list((tried[0] / case / "one" / "train_set").glob("part-*.parquet"))
    assert len(parts) >= 4
    assert len(list((tried[0] / case / "local" / "train_set").glob("part-*.parquet"))) == 1


@pytest.mark.parametrize("case", ["parquet", "trips"])
def test_beam_gives_the_predictions_of_one_machine(tried, case):
    output, found = tried
    if not (output / case).exists():
        pytest.skip("the real trips are not here")
    here = [hashed(output / case / "local" / name) for name in ("predictions", "bad")]
    assert here[0][1] > 10_000
    for engine in ("one", "two"):
        assert found[f"{case}.{engine}.predicted"] == found[f"{case}.local.predicted"]
        assert [hashed(output / case / engine / name) for name in ("predictions", "bad")] == here


def test_what_is_refused_is_refused_in_the_same_words(tried):
    _, found = tried
    assert "1 bad row, 0 allowed by max_bad_rows; the first is /cases/refused/source/2.csv:3" in found["refused.local"]
    assert found["refused.one"] == found["refused.local"]


def test_a_query_that_needs_rows_together_is_refused_before_beam_starts(tried):
    assert "with engine='beam', it needs rows together (UNGROUPED AGGREGATE)" in tried[1]["together.one"]
