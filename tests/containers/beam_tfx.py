"""Run in the image penstock/beam: TFX's own programs on what Penstock wrote, and jobs as TFX writes them.

python beam_tfx.py CASES OUTPUT; CASES/NAME/ holds the statistics, schema and anomalies that validate wrote. For each
case OUTPUT/NAME gets what TFX makes of them: the messages as TFDV's readers have them, the schema that ImportSchemaGen
takes over and the one that SchemaGen infers, and ExampleValidator's anomalies. CASES/*.py are run in OUTPUT, and write
TFX's jobs there.
"""

import json
import os
import runpy
import shutil
import sys
from pathlib import Path

import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0.schema_pb2 import Schema
from tensorflow_transform.tf_metadata import schema_utils
from tfx.components.example_validator.executor import Executor as ExampleValidator
from tfx.components.schema_gen.executor import Executor as SchemaGen
from tfx.components.schema_gen.import_schema_gen.executor import Executor as ImportSchemaGen
from tfx.types import artifact_utils, standard_artifacts

SPLITS = artifact_utils.encode_split_names(["train"])


def main(cases: Path, output: Path) -> None:
    for case in sorted(each for each in cases.iterdir() if each.is_dir()):
        held(case, output / case.name)
    refused(json.loads((cases / "bad.json").read_text()), output)
    os.chdir(output)
    for pipeline in sorted(cases.glob("*.py")):
        runpy.run_path(str(pipeline))


def held(case: Path, output: Path) -> None:
    """Hand what validate wrote to TFX's readers and executors."""
    output.mkdir(mode=0o777)
    statistics = tfdv.load_stats_binary(str(case / "statistics"))
    (output / "statistics").write_bytes(statistics.SerializeToString(deterministic=True))
    write(tfdv.load_anomalies_text(str(case / "anomalies")), output / "anomalies")
    write(tfdv.load_schema_text(str(case / "schema")), output / "schema")

    split = output / "statistics_artifact" / "Split-train"
    split.mkdir(parents=True)
    shutil.copy(case / "statistics", split / "FeatureStats.pb")
    given = artifact(standard_artifacts.ExampleStatistics, split.parent)
    imported, inferred = (artifact(standard_artifacts.Schema, output / name) for name in ("imported", "inferred"))
    ImportSchemaGen().Do({}, {"schema": [imported]}, {"schema_file": str(case / "schema")})
    SchemaGen().Do({"statistics": [given]}, {"schema": [inferred]}, {})
    found = artifact(standard_artifacts.ExampleAnomalies, output / "found")
    ExampleValidator().Do({"statistics": [given], "schema": [imported]}, {"anomalies": [found]}, {})


def artifact(kind, folder: Path):
    made = kind()
    made.uri = str(folder)
    if kind is not standard_artifacts.Schema:
        made.split_names = SPLITS
    folder.mkdir(exist_ok=True)
    return made


def refused(schemas: dict[str, str], output: Path) -> None:
    """Write what TFX says of schemas that it refuses; null where it refuses none."""
    said = {}
    for name, text in schemas.items():
        try:
            schema_utils.schema_as_feature_spec(text_format.Parse(text, Schema()))
            said[name] = None
        except (KeyError, ValueError, text_format.ParseError) as error:
            said[name] = str(error)
    (output / "refused.json").write_text(json.dumps(said))


def write(message, path: Path) -> None:
    path.write_text(text_format.MessageToString(message, as_utf8=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
