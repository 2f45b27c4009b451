"""Pipelines that others wrote do here what they do on Kubeflow, as far as they need nothing that is not here."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.compile import from_kfp
from penstock.compile.errors import PenstockError
from penstock.compile.targets import local
from penstock.compile.targets.local import features
from penstock.compile.targets.local.record import RunRecord, State

pytestmark = pytest.mark.corpus

# What has no default. FILE stands for a file of rows, NEW for a path where nothing is.
PARAMETERS: dict[str, dict[str, Any]] = {
    "valid/arguments_parameters": {"param2": "b"},
    "valid/component_with_metadata_fields": {"dataset_a": "FILE", "dataset_b": "FILE"},
    "valid/container_io": {"text": "x"},
    "valid/essential/concat_message": {"message1": "a", "message2": "b"},
    "valid/essential/dict_input": {"struct": {"a": 1}},
    "valid/essential/lightweight_python_functions_pipeline": {"message": "m"},
    "valid/essential/lightweight_python_functions_with_outputs": {
        "first_message": "a", "first_number": 1, "second_message": "b", "second_number": 2,
    },
    "valid/identity": {"value": "v"},
    "valid/local_execution/local_execution_pipeline_with_retry": {"counter_path": "NEW"},
    "valid/pipeline_with_metadata_fields": {"string": "s", "in_dataset": "FILE"},
    "valid/pipeline_with_parallelfor_parallelism": {"loop_parameter": ["a", "b"]},
    "valid/pipeline_with_parallelfor_pipeline_param": {"loop_parameter": ["a", "b"], "prefix": "p"},
    "valid/take_nap_compiled": {"naptime_secs": 1},
}  # fmt: skip

# The standard library and kfp are all that they need.
SUCCEED = [
    "valid/arguments_parameters",
    "valid/artifacts_simple",
    "valid/collected_artifacts",
    "valid/component_with_metadata_fields",
    "valid/conditional_producer_and_consumers",
    "valid/critical/artifact_crust",
    "valid/critical/collected_parameters",
    "valid/critical/container_component_with_no_inputs",
    "valid/critical/mixed_parameters",
    "valid/critical/multiple_parameters_namedtuple",
    "valid/critical/pipeline_with_artifact_custom_path",
    "valid/critical/pipeline_with_env",
    "valid/critical/pipeline_with_input_status_state",
    "valid/critical/pipeline_with_placeholders",
    "valid/critical/pipeline_with_pod_metadata",
    "valid/critical/pipeline_with_volume_long_name",
    "valid/critical/producer_consumer_param_pipeline",
    "valid/critical/pythonic_artifacts_test_pipeline",
    "valid/cross_loop_after_topology",
    "valid/essential/concat_message",
    "valid/essential/container_no_input",
    "valid/essential/dict_input",
    "valid/essential/embedded_artifact",
    "valid/essential/lightweight_python_functions_pipeline",
    "valid/essential/lightweight_python_functions_with_outputs",
    "valid/essential/pipeline_with_nested_conditions",
    "valid/essential/pipeline_with_nested_conditions_yaml",
    "valid/essential/pipeline_with_outputs",
    "valid/essential/placeholder_with_if_placeholder_none_input_value",
    "valid/gpu-scheduling/nvidia_gpu_scheduling_check",
    "valid/hello_world",
    "valid/identity",
    "valid/if_elif_else_complex",
    "valid/if_elif_else_with_oneof_parameters",
    "valid/local_execution/local_execution_pipeline_with_retry",
    "valid/output_metrics",
    "valid/parallel_and_nested/loop_consume_upstream",
    "valid/parallel_and_nested/nested_pipeline_opt_input_child_level_compiled",
    "valid/parallel_and_nested/nested_pipeline_opt_inputs_nil_compiled",
    "valid/parallel_and_nested/nested_pipeline_opt_inputs_parent_level_compiled",
    "valid/parallel_and_nested/pipeline_in_pipeline",
    "valid/parallel_and_nested/pipeline_in_pipeline_loaded_from_yaml",
    "valid/parallel_and_nested/pipeline_with_loops",
    "valid/pipeline_with_metadata_fields",
    "valid/pipeline_with_only_display_name",
    "valid/pipeline_with_parallelfor_list_artifacts_GH-12033",
    "valid/pipeline_with_parallelfor_parallelism",
    "valid/pipeline_with_parallelfor_pipeline_param",
    "valid/pipeline_with_string_machine_fields_task_output",
    "valid/pipeline_with_task_final_status_yaml",
    "valid/pipeline_with_volume_no_cache",
    "valid/run_as_user_cache_disabled",
    "valid/run_as_user_cache_enabled",
]

# What fails, by the first message; those of failing/ are meant to.
FAIL = {
    "valid/failing/fail_v2": "exit code 1",
    "valid/failing/pipeline_with_multiple_exit_handlers": "Task failed",
    "valid/pipeline_with_task_final_status": "Task failed",  # it is what its exit task hears of
    "valid/create_pod_metadata_complex": "Pod annotation is None",  # it wants "" where no variable is set
    "valid/container_io": "the command 'my_program' is not there",  # stands for any program
    "valid/pipeline_with_concat_placeholder": "not found",  # a test of bash, in an image whose sh is bash
    "valid/critical/modelcar": "unknown scheme oci://",  # a model in an image
    "valid/parallel_and_nested/nested_parallel_for_secret": "there is no Secret test-secret-1",  # the cluster has it
}

REFUSED = {
    "invalid/empty_file": "empty; expected a compiled pipeline",
    "invalid/no_name": "the pipeline has no name",
    "valid/pipeline_with_various_io_types": "command of the image",  # of an image that there is not
}

# Taken, and not run in tests: what they need is not here.
ELSEWHERE = {
    "valid/critical/notebook_component_simple": "installs packages",
    "valid/critical/pipeline_with_submit_request": "installs packages and calls httpbin.org",
    "valid/integration/ray_integration_compiled": "installs packages and needs a Ray cluster",
    "valid/pipeline_with_dynamic_importer_metadata": "imports from Google Cloud Storage",
    "valid/pipeline_with_dynamic_task_output_custom_training_job": "submits a job to Vertex AI",
    "valid/pythonic_artifact_with_single_return": "installs packages and imports from Google Cloud Storage",
    "valid/sequential_v2": "downloads with gsutil",
    "valid/upload_download_compiled": "installs packages and needs a MinIO server",
}

LONG = {
    "valid/long-running": "two tasks of five minutes each",
    "valid/take_nap_compiled": "fifteen minutes, unless it is told less",
}

# kfp.local, version 2.17.0, cannot run them.
KFP_LOCAL_FAILS = {
    "valid/artifacts_simple": "IndexError: the placeholder of a whole list of artifacts",
    "valid/arguments_parameters": "takes an input with a default for a required one",
    "valid/collected_artifacts": "AttributeError: artifacts that nested loops collected",
    "valid/component_with_metadata_fields": "a pipeline's artifact input cannot be given",
    "valid/conditional_producer_and_consumers": "an iteration gives nothing because its condition is false",
    "valid/critical/pipeline_with_artifact_custom_path": "custom paths are not honoured",
    "valid/critical/pipeline_with_input_status_state": "says SUCCEEDED in a final status, Kubeflow COMPLETE",
    "valid/critical/pipeline_with_placeholders": "IndexError: placeholders of the run as arguments",
    "valid/critical/pipeline_with_pod_metadata": "platform documents are dropped in silence",
    "valid/parallel_and_nested/nested_pipeline_opt_inputs_nil_compiled": "ValueError: optional inputs without a value",
    "valid/pipeline_with_metadata_fields": "a pipeline's artifact input cannot be given",
}
# It orders tasks without regard to those whose outputs resources read: whether it can run this one is left to chance.
KFP_LOCAL_VARIES = ["valid/pipeline_with_string_machine_fields_task_output"]
KFP_LOCAL_REFUSES = [  # container components are refused by its SubprocessRunner
    "valid/critical/container_component_with_no_inputs",
    "valid/critical/pipeline_with_env",
    "valid/critical/pipeline_with_volume_long_name",
    "valid/critical/producer_consumer_param_pipeline",
    "valid/essential/container_no_input",
    "valid/essential/pipeline_with_nested_conditions_yaml",
    "valid/essential/pipeline_with_outputs",
    "valid/essential/placeholder_with_if_placeholder_none_input_value",
    "valid/gpu-scheduling/nvidia_gpu_scheduling_check",
    "valid/hello_world",
    "valid/parallel_and_nested/pipeline_in_pipeline",
    "valid/parallel_and_nested/pipeline_in_pipeline_loaded_from_yaml",
    "valid/pipeline_with_only_display_name",
    "valid/pipeline_with_task_final_status_yaml",
    "valid/pipeline_with_volume_no_cache",
    "valid/run_as_user_cache_disabled",
    "valid/run_as_user_cache_enabled",
]
# Both run them; what the tasks give is not the same.
KFP_LOCAL_DIFFERS = {
    "valid/pipeline_with_parallelfor_pipeline_param": "hands the loop item to a body that reads an outer value",
    "valid/pipeline_with_parallelfor_list_artifacts_GH-12033": "leaves the names of collected artifacts empty",
    "valid/essential/lightweight_python_functions_pipeline": "has what was written to files in no executor output",
    "valid/essential/pipeline_with_nested_conditions": "random",
    "valid/if_elif_else_complex": "random",
    "valid/if_elif_else_with_oneof_parameters": "random",
    "valid/output_metrics": "random",
}


def run(specs: Path, name: str, tmp_path: Path, spec: Path | None = None, **options: Any) -> RunRecord:
    path = spec or specs / f"{name}.yaml"
    return local.run(path, given(name, tmp_path), root=tmp_path / "root", jobs=2, runner="subprocess", **options)


def given(name: str, folder: Path) -> dict[str, Any]:
    (folder / "rows.csv").write_text("1,2\n")
    paths = {"FILE": str(folder / "rows.csv"), "NEW": str(folder / "new")}
    values = PARAMETERS.get(name, {})
    return {key: paths.get(value, value) if isinstance(value, str) else value for key, value in values.items()}


def test_it_is_stated_of_every_pipeline_what_becomes_of_it(kfp_specs):
    stated = [*SUCCEED, *FAIL, *REFUSED, *ELSEWHERE, *LONG]
    assert [name for name, count in Counter(stated).items() if count > 1] == []
    there = {str(path.relative_to(kfp_specs).with_suffix("")) for path in kfp_specs.rglob("*.yaml")}
    assert sorted(there ^ set(stated)) == []


@pytest.mark.parametrize("name", SUCCEED)
def test_what_needs_the_standard_library_and_kfp_alone_succeeds(kfp_specs, tmp_path, name):
    record = run(kfp_specs, name, tmp_path)
    assert (record.state, record.error) == (State.SUCCEEDED, None)


@pytest.mark.parametrize("name", FAIL)
def test_what_has_to_fail_fails_and_says_why(kfp_specs, tmp_path, name):
    record = run(kfp_specs, name, tmp_path)
    assert record.state is State.FAILED
    assert FAIL[name] in record.error


def test_a_secret_that_is_given_gets_to_every_iteration(kfp_specs, tmp_path):
    name = "valid/parallel_and_nested/nested_parallel_for_secret"
    manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "test-secret-1"}}
    (tmp_path / "secrets.yaml").write_text(
        yaml.safe_dump_all(
            {**manifest, "metadata": {"name": f"test-secret-{number}"}, "stringData": {"username": "someone"}}
            for number in (1, 2, 3)
        )
    )
    record = run(kfp_specs, name, tmp_path, objects=(tmp_path / "secrets.yaml",))
    assert (record.state, record.error) == (State.SUCCEEDED, None)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_run_is_refused_before_anything_does(kfp_specs, tmp_path, name):
    with pytest.raises(PenstockError, match=re.escape(REFUSED[name])):
        run(kfp_specs, name, tmp_path)
    assert not (tmp_path / "root/runs").exists()


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_needs_more_than_is_here_is_taken(kfp_specs, name):
    assert [str(one) for one in features.check(from_kfp.read(kfp_specs / f"{name}.yaml"), "subprocess")] == []


@pytest.mark.slow
def test_what_takes_long_is_ended_and_succeeds_when_it_takes_less(kfp_specs, tmp_path):
    record = run(kfp_specs, "valid/long-running", tmp_path, timeout=2)
    assert (record.state, record.error) == (State.CANCELLED, "took too long: ended after 2 s")
    assert record.seconds < 60  # of five minutes
    assert run(kfp_specs, "valid/take_nap_compiled", tmp_path, timeout=60).state is State.SUCCEEDED


# Against kfp.local


PROGRAM = """
import json, sys
from pathlib import Path

import kfp.local
from kfp import components

spec, parameters, root, result = Path(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])


def plain(value):
    if isinstance(value, list):
        return [plain(item) for item in value]
    return [value.name, value.metadata] if hasattr(value, "uri") else value


kfp.local.init(
    runner=kfp.local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True
)
task = components.load_component_from_file(str(spec))(**parameters)
given = [json.loads(path.read_text()).get("parameterValues", {}) for path in root.rglob("executor_output.json")]
outputs = {name: plain(value) for name, value in task.outputs.items()}
result.write_text(json.dumps({"outputs": outputs, "given": given}))
"""


INSTALL = r"\bpip3?\s+install\b"


def without_installs(spec: Path, target: Path) -> None:
    """Write a spec whose components install nothing: kfp.local would do that to the environment of the tests."""
    documents = list(yaml.safe_load_all(spec.read_text()))
    for executor in documents[0].get("deploymentSpec", {}).get("executors", {}).values():
        container = executor.get("container", {})
        command = container.get("command", [])
        if command[:2] == ["sh", "-c"] and re.search(INSTALL, command[2]) and len(command) > 3:
            command[2] = '"$0" "$@"'
        assert not any(re.search(INSTALL, element) for element in [*command, *container.get("args", [])])
    target.write_text(yaml.safe_dump_all(documents))


def kfp_local(name: str, spec: Path, folder: Path) -> dict[str, Any] | None:
    """Return outputs of the pipeline and of its tasks as kfp.local has them; None where it fails."""
    folder.mkdir()
    result = folder / "result.json"
    command = [sys.executable, "-c", PROGRAM, spec, json.dumps(given(name, folder)), folder / "root", result]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        # Nothing is left to install. If there were, it could not be had, and would not go to the tests' environment.
        "PIP_NO_INDEX": "1",
        "PIP_TARGET": str(folder / "packages"),
    }
    subprocess.run([*map(str, command)], env=environment, cwd=folder, capture_output=True, timeout=120)
    return json.loads(result.read_text()) if result.exists() else None


def comparable(values: Any) -> str:
    """Return outputs as text, in which paths are names and numbers have one form: kfp.local has its own of both."""
    text = json.dumps(values, sort_keys=True)
    return re.sub(r"(?<=\d)\.0\b", "", re.sub(r"/[^\s\"]*/", "", text))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SUCCEED if name not in KFP_LOCAL_REFUSES + KFP_LOCAL_VARIES])
def test_outputs_are_those_of_kfp_local_where_that_is_right(kfp_specs, tmp_path, name):
    spec = tmp_path / "spec.yaml"
    without_installs(kfp_specs / f"{name}.yaml", spec)
    theirs = kfp_local(name, spec, tmp_path / "theirs")
    if name in KFP_LOCAL_FAILS:
        assert theirs is None, "it runs it now: compare"
        return
    assert theirs is not None
    ours = run(kfp_specs, name, tmp_path, spec)
    assert ours.state is State.SUCCEEDED
    if name in KFP_LOCAL_DIFFERS:
        return
    tasks = [task for task in ours.tasks if task.kind == "container" and task.state is State.SUCCEEDED]
    outputs = {
        **ours.outputs.parameters,
        **{port: [[one.name, one.metadata] for one in items] for port, items in ours.outputs.artifacts.items()},
    }
    assert comparable(outputs) == comparable(theirs["outputs"])
    mine = sorted(comparable(task.outputs.parameters) for task in tasks)
    assert mine == sorted(comparable(values) for values in theirs["given"])
