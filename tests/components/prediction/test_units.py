"""Row groups that are predicted one by one, anywhere, beside the same dataset as a stream."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.components._shared import beam
from penstock.components._shared.dataset import KIND, facts
from penstock.components._shared.errors import UserError
from penstock.components._shared.rowhash import RowDigest
from penstock.components._shared.sealed import seal
from penstock.components.prediction.predict import predict
from tests.components.prediction.conftest import trips
from tests.components.spreading import content, without_beam

OUTPUTS = ("predictions", "rejects")


@pytest.fixture
def both(tmp_path):
    """Return a function that predicts on one machine and by units, and returns what came of each, or the refusals."""

    def run(model: Path, *parts: pa.Table, **arguments: Any) -> list[Any]:
        found = []
        rows = dataset(tmp_path / f"rows-{len(list(tmp_path.iterdir()))}", *parts)
        with without_beam():
            for engine in beam.ENGINES:
                outputs = [tmp_path / engine / name for name in OUTPUTS]
                try:
                    result = predict(model, rows, *outputs, engine=engine, **arguments)
                except UserError as error:
                    assert not any(output.exists() for output in outputs)
                    found.append(str(error))
                else:
                    found.append((result, *map(content, outputs)))
        return found

    return run


def dataset(folder: Path, *parts: pa.Table) -> Path:
    """Write a dataset with a part file for each table, of row groups of 40 rows."""
    folder.mkdir()
    for number, part in enumerate(parts):
        pq.write_table(part, folder / f"part-{number:05d}.parquet", row_group_size=40)
    seal(folder, KIND, facts(RowDigest(sum(part.num_rows for part in parts)), parts[0].schema))
    return folder


@pytest.mark.parametrize("target", ["tipped", "kind", "fare"])
@pytest.mark.parametrize("keep", [[], ["*"], ["id", "zone"]])
def test_predictions_are_the_same_in_the_same_order(both, models, target, keep):
    here, spread = both(models[target], trips(130, seed=2), trips(50, seed=3), keep=keep)
    assert here == spread
    assert here[0].rows == 180


def test_bad_rows_are_the_same_with_their_places(both, models):
    rows = trips(130, seed=2)
    miles = rows["miles"].to_numpy().copy()
    miles[[5, 41, 129]] = np.inf
    rows = rows.set_column(1, "miles", pa.array(miles))
    here, spread = both(models["fare"], rows, trips(10), max_bad_rows=3)
    assert here == spread
    assert [row["row"] for row in spread[2][3]] == ["5", "41", "129"]
    here, spread = both(models["fare"], rows, max_bad_rows=1)
    assert "cannot read more than 1 of its rows: row 5, column 'miles' is infinite; row 41, column 'miles'" in spread
    assert spread.partition(". Mend")[0] in here  # which looks further before it counts


def test_a_dataset_without_rows_gives_none(both, models):
    here, spread = both(models["kind"], trips(0), keep=["id"])
    assert here == spread


def test_a_column_of_another_kind_is_refused_in_the_same_words(both, models):
    rows = trips(50)
    here, spread = both(models["fare"], rows.set_column(1, "miles", pa.array(["far"] * 50)))
    assert here == spread
    assert "text where the model learned numbers" in here


def test_a_job_of_another_platform_and_beam_exclude_each_other(models, make_dataset, tmp_path):
    outputs = [tmp_path / name for name in OUTPUTS]
    with without_beam(), pytest.raises(UserError, match="engine: with 'beam', no job of vertex predicts"):
        predict(models["fare"], make_dataset(trips(5)), *outputs, engine="beam", platform="vertex")
