"""Run in the image penstock/beam: what `transform` makes of rows, and what it says of functions that fail.

python beam_transform.py INPUT OUTPUT; INPUT/*.py are preprocessing functions, INPUT/train and INPUT/eval the rows.
"""

import json
import sys
from pathlib import Path

import tensorflow as tf
import tensorflow_transform as tft

from penstock.components._shared.errors import UserError
from penstock.components.transformation.transform import transform

FEATURES = {
    "distance": "scale",
    "fare": {"bucketize": 4},
    "zone": {"vocabulary": 2},
    "driver": {"hash": 8},
    "gap": "scale",
}


def main(given: Path, output: Path) -> None:
    sets = [(str(given / name), "") for name in ("train", "eval")]
    made = [output / name for name in ("train", "eval", "graph")]
    transform(*sets, *made, features=FEATURES, keep=["tip"])
    layer = tft.TFTransformOutput(str(made[2])).transform_features_layer()
    served = layer({"distance": tf.constant([[3.0]]), "zone": tf.constant([["unheard of"]])})
    found = {"served": {name: value.numpy().tolist() for name, value in served.items()}}
    for file in sorted(given.glob("*.py")):
        try:
            transform(*sets, *(output / f"{file.stem}-{i}" for i in range(3)), preprocessing=str(file))
            found[file.stem] = "passes"
        except UserError as error:
            found[file.stem] = str(error)
    (output / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
