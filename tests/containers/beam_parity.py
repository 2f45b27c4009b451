"""Run in the image penstock/beam: what our engines and TFDV say of datasets, as files for the test outside to compare.

python beam_parity.py CASES OUTPUT; beside CASES/NAME/dataset, schema.pbtxt says what is categorical, schemas/*.pbtxt
are what its statistics are held to, and previous is a dataset to compare with.
"""

import sys
import time
from pathlib import Path

import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0.schema_pb2 import Schema

from penstock.components._shared import beam
from penstock.components._shared.dataset import open_dataset
from penstock.components.validation.beam_statistics import PACKAGE, describe_on_beam
from penstock.components.validation.statistics import describe


def main(cases: Path, output: Path) -> None:
    engine = beam.chosen("validate", "beam", {"runner": "DirectRunner"}, PACKAGE)
    for case in sorted(cases.iterdir()):
        folder = output / case.name
        folder.mkdir(mode=0o777)
        data = open_dataset(case / "dataset", "test", "dataset")
        schema = read(case / "schema.pbtxt") if (case / "schema.pbtxt").exists() else None
        began = time.monotonic()
        local = describe(data, schema)
        between = time.monotonic()
        theirs = describe_on_beam(data, engine, schema, "/tmp")
        (folder / "seconds").write_text(f"{between - began:.2f} {time.monotonic() - between:.2f}")
        (folder / "local.pb").write_bytes(local.SerializeToString())
        (folder / "beam.pb").write_bytes(theirs.SerializeToString())
        write(tfdv.infer_schema(local), folder / "inferred.pbtxt")
        previous = None
        if (case / "previous").exists():
            previous = describe(open_dataset(case / "previous", "test", "previous"), schema)
            (folder / "previous.pb").write_bytes(previous.SerializeToString())
        for wanted in sorted((case / "schemas").glob("*.pbtxt")):
            found = tfdv.validate_statistics(local, read(wanted), previous_statistics=previous)
            write(found, folder / f"{wanted.stem}.anomalies.pbtxt")


def read(path: Path) -> Schema:
    return text_format.Parse(path.read_text(), Schema())


def write(message, path: Path) -> None:
    path.write_text(text_format.MessageToString(message))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
