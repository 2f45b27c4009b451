"""TFX both ways, in the image that has it: its programs on our files, its jobs in our engine, ours on its files."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from google.protobuf.message import Message
from tensorflow_metadata.proto.v0.anomalies_pb2 import Anomalies
from tensorflow_metadata.proto.v0.schema_pb2 import Schema
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList

from penstock.compile.cli import penstock
from penstock.components._shared.errors import UserError
from penstock.components.ingestion.ingest import ingest
from penstock.components.monitoring.drift import detect
from penstock.components.validation.validate import validate
from tests.components.conftest import make_dataset  # noqa: F401  a fixture
from tests.containers.conftest import ROOT
from tests.containers.test_beam import DEMANDS, EDGES, in_image, kinds, write_schemas

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1800)]

DOCS = ROOT / "docs" / "tfx.md"
CASES = ("type", "range", "presence", "domain", "gone", "kept")  # of the demands
# A pipeline without drivers, on what validate wrote.
HELD = """
from tfx import v1 as tfx
from tfx.orchestration.data_types import RuntimeParameter

statistics = tfx.dsl.Importer(
    source_uri=RuntimeParameter("statistics", str),
    artifact_type=tfx.types.standard_artifacts.ExampleStatistics,
    properties={"split_names": '["train"]'},
).with_id("statistics")
schema = tfx.components.ImportSchemaGen(schema_file=RuntimeParameter("schema_file", str))
held = tfx.components.ExampleValidator(statistics=statistics.outputs["result"], schema=schema.outputs["schema"])
pipeline = tfx.dsl.Pipeline("held", "gs://bucket/root", components=[statistics, schema, held])
config = tfx.orchestration.experimental.KubeflowV2DagRunnerConfig(default_image="penstock/beam:0.1.0")
runner = tfx.orchestration.experimental.KubeflowV2DagRunner(config=config, output_filename="held.json")
runner.run(pipeline)
"""


@dataclass(frozen=True)
class Told:
    """A dataset, what validate wrote of it by case, and what TFX made of that."""

    rows: Path
    ours: Path
    theirs: Path


def message(path: Path, kind: type[Message]) -> Message:
    content = path.read_bytes()
    return kind.FromString(content) if path.suffix == ".pb" else text_format.Parse(content, kind())


def example(name: str) -> str:
    """Return the block of the page that defines or makes something of that name."""
    (found,) = [block for block in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL) if name in block]
    return found


@pytest.fixture(scope="module")
def told(built, make_dataset, tmp_path_factory) -> Told:  # noqa: F811
    folder = tmp_path_factory.mktemp("tfx")
    cases = folder / "cases"
    cases.mkdir()
    write_schemas(folder, DEMANDS)
    rows = make_dataset({name: EDGES[name] for name in ("whole", "number", "word", "flag", "zeros")})
    for name in CASES:
        ports = [cases / name / port for port in ("statistics", "schema", "anomalies", "report.html")]
        schema = folder / "schemas" / f"{name}.pbtxt"
        validate(rows, *ports, given_schema=schema, on_anomaly="report")
    (cases / "bad.json").write_text(json.dumps({name: text for name, (text, _) in BAD.items()}))
    (cases / "held.py").write_text(HELD)
    (cases / "taxi.py").write_text(example("CsvExampleGen"))
    in_image(built("beam").name, cases, folder / "output", "beam_tfx.py")
    return Told(rows, cases, folder / "output")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("statistics", DatasetFeatureStatisticsList), ("schema", Schema), ("anomalies", Anomalies)],
)
def test_tfx_reads_what_validate_writes(name, kind, told):
    for case in CASES:
        ours, theirs = told.ours / case / name, told.theirs / case / name
        if name == "statistics":
            assert kind.FromString(theirs.read_bytes()) == kind.FromString(ours.read_bytes())
        else:
            assert message(theirs, kind) == message(ours, kind)


def test_a_schema_of_ours_goes_through_tfx_s_import_as_it_is(told):
    for case in CASES:
        taken = told.theirs / case / "imported" / "schema.pbtxt"
        assert taken.read_bytes() == (told.ours / case / "schema").read_bytes()


def test_example_validator_finds_in_our_statistics_what_validate_found(told):
    differing = {}
    for case in CASES:
        ours = kinds(message(told.ours / case / "anomalies", Anomalies))
        theirs = kinds(message(told.theirs / case / "found" / "Split-train" / "SchemaDiff.pb", Anomalies))
        if ours != theirs:
            differing[case] = (ours, theirs)
    assert differing == {}
    assert kinds(message(told.ours / "kept" / "anomalies", Anomalies)).keys() == {"whole", "number", "word", "flag"}


def test_validate_finds_nothing_wrong_by_the_schema_that_schema_gen_infers_of_our_statistics(told, tmp_path):
    schema = told.theirs / "kept" / "inferred" / "schema.pbtxt"
    assert validate(told.rows, *(tmp_path / str(port) for port in range(4)), schema_uri=str(schema)).valid


# Schemas that TFX refuses, and what validate says of them.
WHOLE = 'feature { name: "whole" type: INT } '
BAD: dict[str, tuple[str, str]] = {
    "no_text_of_a_schema": (f"{WHOLE} featur {{ }}", "line 1, column "),
    "no_type": ('feature { name: "whole" }', "whole: No type in the schema"),
    "sparse": (
        WHOLE + 'sparse_feature { name: "s" index_feature { name: "at" } value_feature { name: "whole" } }',
        "the sparse_feature 's' refers to a feature 'at', which is not there",
    ),
    "tensor": (
        WHOLE + 'tensor_representation_group { key: "" value { tensor_representation { key: "x" value { '
        'dense_tensor { column_name: "nothing" shape { dim { size: 1 } } } } } } }',
        "the tensor_representation 'x' refers to a feature 'nothing', which is not there",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_schema_that_tfx_refuses_is_refused_in_one_line_that_names_the_feature(name, told, tmp_path):
    assert json.loads((told.theirs / "refused.json").read_text())[name]
    schema = tmp_path / "schema.pbtxt"
    schema.write_text(BAD[name][0])
    with pytest.raises(UserError, match=re.escape(BAD[name][1])) as refused:
        validate(told.rows, *(tmp_path / str(port) for port in range(4)), given_schema=schema)
    assert "\n" not in str(refused.value)


def run(spec: Path | str, root: Path, **parameters: str) -> dict:
    given = [word for name, value in parameters.items() for word in ("-p", f"{name}={value}")]
    done = CliRunner().invoke(penstock, ["run", str(spec), "--runner", "docker", "--json", "--root", str(root), *given])
    assert done.exit_code == 0, done.output[-3000:]
    return json.loads(done.stdout)


def output(record: dict, task: str, port: str) -> tuple[Path, dict]:
    """Return the folder and the metadata of an artifact of a run."""
    (found,) = [each for each in record["tasks"] if each["path"] == task]
    (artifact,) = found["outputs"]["artifacts"][port]
    return Path(record["folder"], artifact["uri"]), artifact["metadata"]


def test_a_job_that_tfx_wrote_is_checked_described_converted_and_run_on_our_files(told, tmp_path):
    job = told.theirs / "held.json"
    assert json.loads(job.read_text())["pipelineSpec"]["schemaVersion"] == "2.0.0"
    invoke = CliRunner().invoke
    assert invoke(penstock, ["check", str(job)]).exit_code == 0
    described = json.loads(invoke(penstock, ["describe", str(job), "--json"]).output)
    assert {port["name"]: port["type"] for port in described["ports"]} == {"statistics": "str", "schema_file": "str"}
    given = ["-p", "statistics=azureml://datastores/workspaceblobstore/paths/s", "-p", "schema_file=schema.pbtxt"]
    converted = invoke(penstock, ["convert", str(job), "--to", "azureml", "--output", str(tmp_path / "azure"), *given])
    assert converted.exit_code == 0, converted.output
    assert "2 steps" in converted.output
    statistics = told.theirs / "range" / "statistics_artifact"
    record = run(job, tmp_path / "root", statistics=statistics, schema_file=told.ours / "range" / "schema")
    found, about = output(record, "ExampleValidator", "anomalies")
    theirs = message(found / "Split-train" / "SchemaDiff.pb", Anomalies)
    assert kinds(theirs) == kinds(message(told.ours / "range" / "anomalies", Anomalies))
    assert about["blessed"] == {"train": 0}


@pytest.fixture(scope="module")
def both(told, built, tmp_path_factory) -> tuple[Path, dict]:
    """A folder with trips and their schema, and the run of the documented example on them."""
    built("tabular")
    folder = tmp_path_factory.mktemp("both")
    (folder / "trips").mkdir()
    some = np.random.default_rng(0)
    rows = zip(some.gamma(3, 4, 600), some.integers(1, 6, 600), some.choice(["a", "b"], 600), strict=True)
    text = "".join(f"{fare},{riders},{zone}\n" for fare, riders, zone in rows)
    (folder / "trips" / "trips.csv").write_text(f"fare,riders,zone\n{text}")
    ingest(str(folder / "trips"), *(folder / name for name in ("train", "eval", "bad")))
    validate(folder / "train", *(folder / name for name in ("statistics", "schema.pbtxt", "anomalies", "report.html")))
    (folder / "both.py").write_text(example("def both"))
    shutil.copy(told.theirs / "taxi.yaml", folder)
    given = {"trips": folder / "trips", "schema_file": folder / "schema.pbtxt"}
    return folder, run(f"{folder / 'both.py'}:both", folder / "root", **given)


def test_the_documented_example_runs_both_parts_and_both_find_the_rows_to_be_as_the_schema_says(both):
    _, record = both
    assert {task["state"] for task in record["tasks"]} == {"SUCCEEDED"}
    states = {task["path"]: task for task in record["tasks"]}
    assert states["validate"]["outputs"]["parameters"]["valid"] is True
    _, about = output(record, "taxi.ExampleValidator", "anomalies")
    assert about["blessed"] == {"train": 1, "eval": 1}


def test_statistics_of_tfx_are_what_validate_and_detect_drift_compare_with(both, tmp_path):
    folder, record = both
    theirs = output(record, "taxi.StatisticsGen", "statistics")[0] / "Split-train" / "FeatureStats.pb"
    schema = message(folder / "schema.pbtxt", Schema)
    (zone,) = [feature for feature in schema.feature if feature.name == "zone"]
    zone.drift_comparator.infinity_norm.threshold = 0.2
    (tmp_path / "schema.pbtxt").write_text(text_format.MessageToString(schema))
    ports = [tmp_path / name for name in ("statistics", "schema", "anomalies", "report.html")]
    found = validate(folder / "train", *ports, schema_uri=str(tmp_path / "schema.pbtxt"), previous_statistics=theirs)
    assert (found.valid, found.warnings) == (True, ())
    (measured,) = message(ports[2], Anomalies).drift_skew_info
    assert 0 < measured.drift_measurements[0].value < 0.2
    drift = detect(folder / "train", *(tmp_path / str(port) for port in range(3)), reference_statistics=theirs)
    assert (drift.drifted, drift.metrics["columns"]) == ((), 3)
