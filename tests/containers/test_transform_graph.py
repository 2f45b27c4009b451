"""A graph that TensorFlow Transform wrote goes into a model in an image without it, and is served in a third."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.components.conftest import make_dataset  # noqa: F401  a fixture
from tests.containers.test_beam import in_image

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1800)]


def rows(count: int, seed: int) -> pa.Table:
    some = np.random.default_rng(seed)
    distance = some.normal(5, 2, count)
    gap = [None if i % 4 == 0 else float("nan") if i % 7 == 0 else float(i % 50) for i in range(count)]
    return pa.table(
        {
            "distance": distance,
            "fare": some.exponential(10, count),
            "zone": some.choice(["a", "b", f"only in {seed}"], count, p=[0.6, 0.3, 0.1]),
            "driver": [f"d{i}-{seed}" for i in range(count)],
            "gap": pa.array(gap, from_pandas=False),
            "night": some.random(count) < 0.3,
            "note": pa.array([None if i % 3 == 0 else "" if i % 5 == 0 else "né" for i in range(count)]),
            "tipped": distance > 5,
        }
    )


@pytest.fixture(scope="module")
def predicted(built, make_dataset, tmp_path_factory) -> dict[str, dict[str, np.ndarray]]:  # noqa: F811
    """Probabilities by image and door."""
    folder = tmp_path_factory.mktemp("graph")
    given = folder / "given"
    given.mkdir()
    shutil.copytree(make_dataset(rows(600, 1)), given / "train")
    shutil.copytree(make_dataset(rows(200, 2)), given / "eval")
    for step in ("beam", "tensorflow"):
        in_image(built(step).name, given, folder / step, "transform_graph.py")
        for made in (folder / step).iterdir():
            shutil.copytree(made, given / made.name)
    found = {}
    for image in ("tensorflow", "serving-tensorflow"):
        output = folder / f"predicted in {image}".replace(" ", "-")
        in_image(built(image).name, given, output, "transform_graph.py")
        read: dict[str, list[float]] = json.loads(Path(output, "predictions.json").read_text())
        found[image] = {door: np.array(values) for door, values in read.items()}
    return found


@pytest.mark.parametrize("image", ["tensorflow", "serving-tensorflow"])
@pytest.mark.parametrize("door", ["served", "frame", "saved_model"])
def test_raw_rows_are_predicted_as_the_network_predicts_what_transform_made_of_them(predicted, image, door):
    wanted = predicted["tensorflow"]["network"]
    assert wanted.max() - wanted.min() > 0.3  # it tells rows apart
    np.testing.assert_allclose(predicted[image][door], wanted, rtol=1e-5, atol=1e-7)
