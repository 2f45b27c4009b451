"""Rows transformed by TensorFlow Transform, in the image that has it, held to numbers that NumPy works out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.components._shared.dataset import fingerprint, open_dataset
from tests.components.conftest import make_dataset  # noqa: F401  a fixture
from tests.containers.test_beam import in_image

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1800)]

FUNCTIONS = {
    "good": "import tensorflow_transform as tft\n"
    "def preprocessing_fn(i):\n    return {'x': tft.scale_to_0_1(i['distance'])}\n",
    "unknown": "def preprocessing_fn(i):\n    return {'x': i['nothing']}\n",
    # Of the rows one has a text that is no number.
    "failing": "import tensorflow as tf\n"
    "def preprocessing_fn(i):\n    return {'x': tf.strings.to_number(i['number'])}\n",
}


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    some = np.random.default_rng(3)
    count = 400
    return pa.table(
        {
            "distance": some.normal(5, 2, count),
            "fare": np.arange(count, dtype=float),
            "zone": some.choice(["a", "b", "c"], count, p=[0.6, 0.3, 0.1]),
            "driver": [f"d{i}" for i in range(count)],
            "gap": pa.array([None if i % 4 == 0 else float(i) for i in range(count)]),
            "tip": np.arange(count) % 7,
            "number": ["seven" if i == 123 else str(i) for i in range(count)],
        }
    )


@pytest.fixture(scope="module")
def transformed(built, rows, make_dataset, tmp_path_factory) -> tuple[Path, dict]:  # noqa: F811
    folder = tmp_path_factory.mktemp("transform")
    given = folder / "given"
    given.mkdir()
    shutil.copytree(make_dataset(rows), given / "train")
    shutil.copytree(make_dataset(rows.slice(0, 50)), given / "eval")
    for name, text in FUNCTIONS.items():
        (given / f"{name}.py").write_text(text)
    in_image(built("beam").name, given, folder / "output", "beam_transform.py")
    return folder / "output", json.loads((folder / "output" / "found.json").read_text())


def table(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in open_dataset(folder, "test", "rows").files])


def test_a_declaration_does_what_it_says_in_the_order_of_the_rows(transformed, rows):
    found = table(transformed[0] / "train")
    raw = {name: rows[name].to_numpy() for name in rows.schema.names}
    assert found["tip"].to_pylist() == raw["tip"].tolist()
    distance = (raw["distance"] - raw["distance"].mean()) / raw["distance"].std()
    assert np.allclose(found["distance"].to_numpy(), distance, atol=1e-4)
    gap = rows["gap"].drop_null().to_numpy()
    scaled = np.where(np.isnan(raw["gap"]), 0, (raw["gap"] - gap.mean()) / gap.std())
    assert np.allclose(found["gap"].to_numpy(), scaled, atol=1e-4)
    assert found["fare"].to_pylist() == [i // 100 for i in range(400)]
    words = {"a": 0, "b": 1, "c": 2}  # the two most frequent, and all others
    assert found["zone"].to_pylist() == [words[zone] for zone in raw["zone"]]
    assert set(found["driver"].to_pylist()) == set(range(8))
    assert set(found.schema.names) == {"distance", "fare", "zone", "driver", "gap", "tip"}


def test_rows_that_were_not_analyzed_are_transformed_by_what_the_others_taught(transformed):
    folder = transformed[0]
    assert table(folder / "eval").equals(table(folder / "train").slice(0, 50))
    data = open_dataset(folder / "eval", "test", "rows")
    assert data.fingerprint == fingerprint(data.files)


def test_the_graph_does_the_same_to_a_request(transformed, rows):
    served = transformed[1]["served"]
    distance = rows["distance"].to_numpy()
    assert served["distance"][0][0] == pytest.approx((3 - distance.mean()) / distance.std(), abs=1e-4)
    assert served["zone"] == [[2]]
    assert (transformed[0] / "graph" / "transform_fn" / "saved_model.pb").exists()
    assert (transformed[0] / "graph" / "metadata" / "schema.pbtxt").exists()


def test_a_function_that_fails_on_one_row_is_told_which_feature_of_it(transformed):
    folder, found = transformed
    assert found["good"] == "passes"
    assert (
        "fails before it sees a row: there is no column 'nothing'. Its inputs are distance (number, dense)"
        in (found["unknown"])
    )
    assert "fails on row 123 of train_set, feature 'number' (a value of type bytes): " in found["failing"]
    assert "could not correctly convert string: seven" in found["failing"]
    assert not list(folder.glob("failing-*"))
