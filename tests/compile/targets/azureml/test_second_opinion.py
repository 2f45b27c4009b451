"""Azure's own client loads, validates and serialises every job, with nothing of a private preview turned on."""

import pytest
import yaml

from penstock.compile import from_kfp, graph
from penstock.compile.targets.azureml import convert
from penstock.compile.targets.azureml.convert import Conversion
from penstock.compile.targets.azureml.options import parse
from tests.compile.rich import rich

pytestmark = pytest.mark.slow

SAMPLES = {
    graph.Type.STRING: "x",
    graph.Type.INTEGER: 1,
    graph.Type.DOUBLE: 0.5,
    graph.Type.BOOLEAN: True,
    graph.Type.LIST: [1],
    graph.Type.STRUCT: {"a": 1},
}
OPTIONS = {
    "max_iterations": 3,
    "machines": [{"accelerator": "*", "count": 8, "compute": "gpu", "instance_type": "Standard_NC6s_v3"}],
    "uri_map": {"gs://": "azureml://datastores/gs/paths/", "oci://": "azureml://datastores/oci/paths/"},
    "datastore": "workspaceblobstore",
}


def accepted(done: Conversion, folder) -> dict:
    """Return what the client would send."""
    ml = pytest.importorskip("azure.ai.ml")
    convert.write(done, folder)
    job = ml.load_job(folder / "job.yml")
    said = job._validate()
    assert said.passed, said.error_messages
    return job._to_rest_object()


def test_a_bit_of_everything(compiled, tmp_path, monkeypatch):
    monkeypatch.delenv("AZURE_ML_CLI_PRIVATE_FEATURES_ENABLED", raising=False)
    done = convert.convert(from_kfp.read(compiled(rich)), {"greeting": ""}, parse(OPTIONS))
    sent = accepted(done, tmp_path / "job").properties
    assert sent.settings["continue_on_step_failure"] is True
    assert sent.inputs["greeting"].value == 'json:""'
    assert sent.inputs["import_importer"].uri == "azureml://datastores/gs/paths/bucket/trips"
    document = yaml.safe_load(done.files["pipeline.yml"])
    assert len(document["jobs"]) == 20
    assert [name.rpartition("show")[2] for name in document["jobs"] if "show" in name] == ["", "__command", "__prepare"]


@pytest.mark.corpus
def test_pipelines_of_others(kfp_specs, tmp_path):
    converted = 0
    for path in sorted((kfp_specs / "valid").rglob("*.yaml")):
        pipeline = from_kfp.read(path)
        values = {name: SAMPLES[port.type] for name, port in pipeline.inputs.parameters.items() if port.required}
        values |= dict.fromkeys(pipeline.inputs.artifacts, "azureml://datastores/d/paths/x")
        done = convert.convert(pipeline, values, parse(OPTIONS))
        if not done.refused:
            accepted(done, tmp_path / f"{converted}")
            converted += 1
    assert converted >= 60
