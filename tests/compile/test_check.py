"""Whatever is broken in a spec is caught by the code meant for it, and nothing is said of what is whole."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from kfp import dsl

from penstock.compile import check, cli
from penstock.compile.findings import Severity, errors
from penstock.compile.to_kfp import compiled
from tests.compile.mutations import CORRUPTIONS
from tests.compile.rich import rich

GOLDEN = Path(__file__).parents[1] / "golden"


def load(path: Path) -> dict:
    return next(yaml.load_all(path.read_text(), yaml.CSafeLoader))


@pytest.fixture(scope="module")
def specs() -> dict[str, dict]:
    """Every pipeline of ours, and one with a bit of everything."""
    found = {path.stem: load(path) for path in sorted(GOLDEN.glob("*.yaml"))}
    return {**found, "rich": yaml.safe_load(compiled(rich).text)}


def codes(spec: dict, target: str = "") -> set[str]:
    return {finding.code for finding in check.check(spec, target)}


def missed(spec: dict) -> list[str]:
    """Return the corruptions of a spec that are not caught by their code."""
    found = []
    for name, (code, corrupt) in CORRUPTIONS.items():
        broken = copy.deepcopy(spec)
        if corrupt(broken) and code not in codes(broken):
            found.append(f"{name}: {code} is not among {sorted(codes(broken))}")
    return found


def test_there_are_at_least_forty_kinds_of_corruption():
    assert len(CORRUPTIONS) >= 40


def test_ours_are_without_fault(specs):
    for name, spec in specs.items():
        assert {finding.code for finding in check.check(spec)} <= {"mutable-image"}, name


def test_every_corruption_of_every_pipeline_is_caught_by_its_code(specs):
    assert {name: missed(spec) for name, spec in specs.items() if missed(spec)} == {}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_applies_to_the_pipeline_that_has_everything(specs, name):
    assert CORRUPTIONS[name][1](copy.deepcopy(specs["rich"]))


def test_every_finding_of_a_corruption_says_what_and_how_to_mend_it(specs):
    for name, (code, corrupt) in CORRUPTIONS.items():
        broken = copy.deepcopy(specs["rich"])
        corrupt(broken)
        found = [finding for finding in check.check(broken) if finding.code == code]
        assert found, name
        assert all(finding.message and "\n" not in str(finding) for finding in found if code != "not-a-pipeline"), name


def test_codes_are_unique_and_findings_have_the_severity_of_their_code(specs):
    known = {code.name: code.severity for code in check.codes()}
    assert len(known) == len(check.codes())
    for _, (code, _) in CORRUPTIONS.items():
        assert code in known
    broken = copy.deepcopy(specs["rich"])
    CORRUPTIONS["parameter_from_no_task"][1](broken)
    assert all(finding.severity is known[finding.code] for finding in check.check(broken))


def test_a_secret_is_named_and_not_shown(specs):
    broken = copy.deepcopy(specs["rich"])
    CORRUPTIONS["secret_in_a_variable"][1](broken)
    said = "\n".join(map(str, check.check(broken)))
    assert "DATABASE_PASSWORD" in said
    assert "correct-horse-battery" not in said


@pytest.mark.parametrize(
    "text",
    [
        "{unclosed",
        "a: !!python/object/apply:os.system [ls]",
        "pipelineInfo: {name: a}\n? [1, 2]\n: 3\n",
        "pipelineInfo: 5",
        '{"pipelineSpec": [1]}',
        '{"pipelineInfo": {"name": "x"}, "root": {"dag": {"tasks": {"a": null}}}}',
    ],
)
def test_what_is_no_pipeline_is_one_line(text):
    (finding,) = check.check(text)
    assert finding.code in ("not-a-pipeline", "malformed")
    assert "\n" not in str(finding)


def test_all_that_is_wrong_is_said_at_once(specs):
    broken = copy.deepcopy(specs["rich"])
    for name in ("dependency_on_no_task", "memory_in_words", "condition_on_no_input", "unknown_field_at_the_top"):
        assert CORRUPTIONS[name][1](broken)
    assert {"unknown-dependency", "bad-quantity", "condition-input", "unknown-field"} <= codes(broken)


def test_unknown_fields_name_the_field_and_the_schema_version(specs):
    broken = copy.deepcopy(specs["rich"])
    CORRUPTIONS["misspelled_field_of_a_task"][1](broken)
    (finding,) = [each for each in check.check(broken) if each.code == "unknown-field"]
    assert "schema version 2.1.0 has no field named 'dependantTasks'" in finding.message
    assert "dependentTasks" in finding.remedy


def test_a_vertex_job_is_unwrapped_and_its_own_fields_are_checked(specs):
    job = {"displayName": "x", "pipelineSpec": specs["rich"], "runtimeConfig": {"gcsOutputDirectory": "gs://b/r"}}
    assert codes(job) == {"mutable-image"}
    assert "unknown-field" in codes({**job, "pipelineRoot": "gs://b/r"})
    assert "unknown-field" in codes({**job, "runtimeConfig": {"parameterValue": {}}})


def test_a_manifest_of_kubernetes_is_unwrapped(specs):
    manifest = {
        "apiVersion": "pipelines.kubeflow.org/v2beta1",
        "kind": "PipelineVersion",
        "metadata": {"name": "rich"},
        "spec": {"pipelineSpec": specs["rich"], "pipelineName": "rich"},
    }
    first = {"apiVersion": manifest["apiVersion"], "kind": "Pipeline", "metadata": {"name": "rich"}}
    text = yaml.safe_dump_all([first, manifest])
    assert {finding.code for finding in check.check(text)} == {"mutable-image"}
    manifest["spec"]["pipelineSpecs"] = {}
    assert "unknown-field" in codes(manifest)


def test_settings_of_kubernetes_are_checked(specs):
    label = next(iter(specs["rich"]["deploymentSpec"]["executors"]))
    for settings, code in (
        ({"secretAsEnvv": []}, "bad-platform-setting"),
        ({"activeDeadlineSeconds": "soon"}, "bad-platform-setting"),
    ):
        platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {label: settings}}}}}
        text = yaml.safe_dump_all([specs["rich"], platform])
        assert code in {finding.code for finding in check.check(text)}
    text = yaml.safe_dump_all(
        [specs["rich"], {"platforms": {"nomad": {"deploymentSpec": {"executors": {label: {"a": 1}}}}}}]
    )
    assert "unknown-platform" in {finding.code for finding in check.check(text)}


@pytest.mark.parametrize(
    "condition",
    [
        "inputs.artifacts['pipelinechannel--data'].artifacts[0].metadata['blessed'] == 1.0",
        "inputs.parameters['pipelinechannel--rows'] in [1, 2] ? true : false",
        "size(inputs.parameter_values['pipelinechannel--rows']) > 0 && !(1 + 2 == -1)",
        "inputs.parameter_values['pipelinechannel--rows'].startsWith('a') || {'a': 1}['a'] == 1",
    ],
)
def test_conditions_may_be_more_of_cel_than_the_launcher_knows(specs, condition):
    spec = copy.deepcopy(specs["rich"])
    task = spec["root"]["dag"]["tasks"]["look"]
    task["inputs"]["parameters"] = {"pipelinechannel--rows": {"componentInputParameter": "rows"}}
    task["inputs"]["artifacts"]["pipelinechannel--data"] = task["inputs"]["artifacts"]["found"]
    task["triggerPolicy"] = {"condition": condition}
    assert codes(spec) == {"mutable-image"}


def tfx_job() -> dict:
    """A job in the form that TFX's runner for Vertex AI writes: schema 2.0.0, old types, a resolver, other CEL."""
    examples = {"instanceSchema": "title: tfx.Examples\ntype: object\nproperties:\n  span:\n    type: integer\n"}
    model, blessing = ({"instanceSchema": f"title: tfx.{name}\ntype: object\n"} for name in ("Model", "ModelBlessing"))

    def constant(value: str) -> dict:
        return {"runtimeValue": {"constantValue": {"stringValue": value}}}

    def output(task: str, key: str) -> dict:
        return {"taskOutputArtifact": {"producerTask": task, "outputArtifactKey": key}}

    def task(name: str, **more) -> dict:
        return {
            "taskInfo": {"name": name},
            "componentRef": {"name": name},
            "cachingOptions": {"enableCache": True},
            **more,
        }

    def component(label: str, inputs: dict, outputs: dict, **parameters) -> dict:
        return {
            "executorLabel": f"{label}_executor",
            "inputDefinitions": {
                "artifacts": {name: {"artifactType": kind} for name, kind in inputs.items()},
                "parameters": {name: {"type": kind} for name, kind in parameters.items()},
            },
            "outputDefinitions": {"artifacts": {name: {"artifactType": kind} for name, kind in outputs.items()}},
        }

    container = {
        "image": "tensorflow/tfx:1.21.0",
        "command": ["python", "-m", "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor"],
        "args": ["--executor_class_path", "x.Executor", "--json_serialized_invocation_args", "{{$}}"],
    }
    query = {"filter": 'schema_title="tfx.Model" AND state=LIVE'}
    steps = ("CsvExampleGen", "Trainer", "Evaluator", "Pusher")
    return {
        "displayName": "taxi",
        "runtimeConfig": {"gcsOutputDirectory": "gs://bucket/root", "parameterValues": {"train_args": "{}"}},
        "pipelineSpec": {
            "pipelineInfo": {"name": "taxi"},
            "schemaVersion": "2.0.0",
            "sdkVersion": "tfx-1.21.0",
            "deploymentSpec": {
                "executors": {
                    **{f"{name}_executor": {"container": container} for name in steps},
                    "Resolver_executor": {"resolver": {"outputArtifactQueries": {"model": query}}},
                }
            },
            "components": {
                "CsvExampleGen": component("CsvExampleGen", {}, {"examples": examples}, input_base="STRING"),
                "Resolver": component("Resolver", {}, {"model": model}),
                "Trainer": component(
                    "Trainer", {"examples": examples, "base_model": model}, {"model": model}, train_args="STRING"
                ),
                "Evaluator": component("Evaluator", {"model": model}, {"blessing": blessing}),
                "Pusher": component("Pusher", {"model": model}, {}),
            },
            "root": {
                "inputDefinitions": {"parameters": {"train_args": {"type": "STRING"}}},
                "dag": {
                    "tasks": {
                        "CsvExampleGen": task(
                            "CsvExampleGen", inputs={"parameters": {"input_base": constant("gs://bucket/data")}}
                        ),
                        "Resolver": task("Resolver"),
                        "Trainer": task(
                            "Trainer",
                            inputs={
                                "parameters": {"train_args": {"componentInputParameter": "train_args"}},
                                "artifacts": {
                                    "examples": output("CsvExampleGen", "examples"),
                                    "base_model": output("Resolver", "model"),
                                },
                            },
                            dependentTasks=["CsvExampleGen", "Resolver"],
                        ),
                        "Evaluator": task("Evaluator", inputs={"artifacts": {"model": output("Trainer", "model")}}),
                        "Pusher": task(
                            "Pusher",
                            inputs={
                                "artifacts": {
                                    "model": output("Trainer", "model"),
                                    "_Evaluator.blessing": output("Evaluator", "blessing"),
                                }
                            },
                            triggerPolicy={
                                "condition": "(inputs.artifacts['_Evaluator.blessing'].artifacts[0]"
                                ".metadata['blessed'] == 1.0)"
                            },
                        ),
                    }
                },
            },
        },
    }


def test_jobs_in_the_form_of_tfx_are_without_fault_and_tied_to_vertex_by_their_resolver():
    assert codes(tfx_job()) == {"mutable-image"}
    assert refused(tfx_job(), "vertex") == set()
    assert refused(tfx_job(), "kubeflow") == {"other-executor"}
    assert missed_in_job(tfx_job()) == []


def missed_in_job(job: dict) -> list[str]:
    found = []
    for name, (code, corrupt) in CORRUPTIONS.items():
        broken = copy.deepcopy(job)
        if corrupt(broken["pipelineSpec"]) and code not in codes(broken):
            found.append(name)
    return found


@pytest.mark.corpus
def test_nothing_is_wrong_with_the_pipelines_of_others(kfp_specs):
    paths = sorted((kfp_specs / "valid").rglob("*.yaml"))
    assert len(paths) > 50
    assert {path.name: found for path in paths if (found := list(map(str, errors(check.check_file(path)))))} == {}
    for path in sorted((kfp_specs / "invalid").rglob("*.yaml")):
        assert errors(check.check_file(path)), path


@pytest.mark.corpus
def test_every_corruption_of_the_pipelines_of_others_is_caught(kfp_specs):
    paths = sorted((kfp_specs / "valid").rglob("*.yaml"))
    assert {path.name: found for path in paths if (found := missed(load(path)))} == {}


def gcpc_pipelines() -> list[Path]:
    import google_cloud_pipeline_components

    folder = Path(google_cloud_pipeline_components.__file__).parent
    return [path for path in sorted(folder.rglob("*_pipeline.yaml")) if "\nroot:" in path.read_text()]


@pytest.mark.slow
def test_nothing_is_wrong_with_the_pipelines_that_google_ships():
    paths = gcpc_pipelines()
    assert len(paths) > 10
    tied = [path for path in paths if codes(load(path), "kubeflow") & {"vertex-operator", "google-placeholder"}]
    assert len(tied) > 10
    for path in paths:
        assert list(map(str, errors(check.check_file(path, "vertex")))) == [], path


# Targets


def refused(spec: dict, target: str) -> set[str]:
    return {finding.code for finding in check.check(spec, target) if finding.severity is Severity.ERROR}


@pytest.fixture
def plain(specs) -> dict:
    """A pipeline that every platform takes."""
    spec = copy.deepcopy(specs["rich"])
    for executor in spec["deploymentSpec"]["executors"].values():
        if "container" in executor:
            executor["container"]["image"] = f"docker.io/library/python@sha256:{'0' * 64}"
    return spec


def test_targets_of_the_command_are_those_of_the_checks():
    assert cli._TARGETS == check.TARGETS


@pytest.mark.parametrize("target", ["kubeflow", "vertex"])
def test_a_plain_pipeline_runs_on_every_platform(plain, target):
    assert refused(plain, target) == set()


@pytest.mark.parametrize("target", ["kubeflow", "vertex"])
@pytest.mark.parametrize("image", ["penstock/tabular:0.1.0", "localhost:5000/x:1", "sha256:" + "0" * 64])
def test_images_that_no_platform_can_pull_are_refused(plain, target, image):
    next(iter(plain["deploymentSpec"]["executors"].values()))["container"]["image"] = image
    assert refused(plain, target) == {"local-image"}


def test_the_bytes_of_all_parameters_together_are_limited_on_kubeflow(plain):
    assert "parameters-size" not in refused(plain, "kubeflow")
    found = check.check(plain, "kubeflow", {"greeting": "x" * 9_980})
    assert "parameters-size" in {finding.code for finding in found}
    found = check.check(plain, "kubeflow", {"greeting": "x" * 9_900})
    assert "parameters-size" not in {finding.code for finding in found}


@pytest.mark.parametrize(
    ("size", "code"), [(700_001, "spec-size"), ((1 << 20) + 1, "workflow-size"), ((3 << 19) + 1, "etcd-size")]
)
def test_specs_that_kubernetes_does_not_take_are_named_by_the_limit_they_meet(plain, size, code):
    text = json.dumps(plain)
    assert code not in {finding.code for finding in check.check(text, "kubeflow")}
    text += " " * (size - len(text))
    assert code in {finding.code for finding in check.check(text, "kubeflow")}
    assert code not in {finding.code for finding in check.check(text[:-1], "kubeflow")}


def test_what_needs_kubernetes_is_refused_on_vertex(plain):
    label = next(iter(plain["deploymentSpec"]["executors"]))
    claim = {"pvcMount": [{"constant": "data", "mountPath": "/data"}]}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {label: claim}}}}}
    found = {finding.code for finding in errors(check.check(yaml.safe_dump_all([plain, platform]), "vertex"))}
    assert found == {"two-documents", "kubernetes-settings"}


def test_what_needs_vertex_is_refused_on_kubeflow(plain):
    container = next(iter(plain["deploymentSpec"]["executors"].values()))["container"]
    container["args"] = ["{{$.pipeline_google_cloud_project_id}}"]
    container["image"] = "gcr.io/ml-pipeline/google-cloud-pipeline-components:2.22.0"
    assert refused(plain, "kubeflow") == {"google-placeholder", "vertex-operator"}
    assert refused(plain, "vertex") == set()


def found(spec: dict, target: str, code: str) -> dict[str, str]:
    return {finding.path: finding.message for finding in check.check(spec, target) if finding.code == code}


@pytest.mark.parametrize(
    "container",
    [
        {"image": "europe-docker.pkg.dev/acme/mirror/google-cloud-pipeline-components@sha256:" + "ab" * 32},
        {
            "image": "acme/gcpc:1",
            "command": ["python3", "-m", "google_cloud_pipeline_components.container.v1.x.launcher"],
        },
        {"image": "us-docker.pkg.dev/vertex-ai/automl-tabular/kfp-v2-base:latest"},
        {"image": "us-docker.pkg.dev/vertex-ai-restricted/automl-tabular/training:1"},
        {"image": "gcr.io/ml-pipeline/model-evaluation:v0.9"},
    ],
)
def test_operators_of_vertex_are_found_wherever_their_image_comes_from(plain, container):
    [own] = list(plain["deploymentSpec"]["executors"].values())[:1]
    own["container"] |= {"args": [], **container}
    assert refused(plain, "kubeflow") == {"vertex-operator"}


@pytest.mark.parametrize(
    "image", ["us-docker.pkg.dev/vertex-ai/training/tf-cpu.2-11:latest", "gcr.io/ml-pipeline/ui:1"]
)
def test_images_of_google_that_run_anywhere_are_left_alone(plain, image):
    next(iter(plain["deploymentSpec"]["executors"].values()))["container"]["image"] = image
    assert refused(plain, "kubeflow") == set()


def test_a_default_that_only_vertex_fills_in_is_refused_on_kubeflow_unless_it_is_given(plain):
    task = next(iter(plain["root"]["dag"]["tasks"].values()))
    component = plain["components"][task["componentRef"]["name"]]
    port = {"parameterType": "STRING", "defaultValue": "{{$.pipeline_google_cloud_project_id}}", "isOptional": True}
    component.setdefault("inputDefinitions", {}).setdefault("parameters", {})["project"] = port
    assert refused(plain, "kubeflow") == {"google-placeholder"}
    assert refused(plain, "vertex") == set()
    given = {"runtimeValue": {"constant": "acme"}}
    task.setdefault("inputs", {}).setdefault("parameters", {})["project"] = given
    assert refused(plain, "kubeflow") == set()


def test_images_in_worker_pools_are_held_to_what_images_are(plain):
    pools = [{"container_spec": {"image_uri": "localhost:5000/train:1"}}]
    component = next(iter(plain["components"].values()))
    port = {"parameterType": "LIST", "defaultValue": pools, "isOptional": True}
    component.setdefault("inputDefinitions", {}).setdefault("parameters", {})["worker_pool_specs"] = port
    assert "localhost:5000/train:1" in " ".join(found(plain, "vertex", "local-image").values())
    assert "localhost:5000/train:1" in " ".join(found(plain, "vertex", "mutable-image").values())


def test_what_kfp_leaves_unfilled_in_the_uri_of_an_importer_is_found():
    def taken_in(bucket):
        dsl.importer(artifact_uri=f"gs://{bucket}/model", artifact_class=dsl.Model)

    taken_in.__annotations__ = {"bucket": str}  # KFP reads types, not their names
    said = found(yaml.safe_load(compiled(dsl.pipeline(taken_in)).text), "", "bad-placeholder")
    assert list(said) == ["importer"]
    assert "KFP's compiler has left '{{channel:task=;name=bucket" in said["importer"]


def test_more_than_a_hundred_artifacts_in_one_input_are_refused_on_vertex(plain):
    loop = next(
        task
        for scope in (plain["root"], *plain["components"].values())
        for task in scope.get("dag", {}).get("tasks", {}).values()
        if task.get("parameterIterator", {}).get("items", {}).get("inputParameter", "").endswith("parts")
    )
    loop["parameterIterator"]["items"] = {"raw": json.dumps(list(range(100)))}
    assert refused(plain, "vertex") == set()
    loop["parameterIterator"]["items"] = {"raw": json.dumps(list(range(101)))}
    assert refused(plain, "vertex") == {"collected-artifacts"}


def test_a_name_of_which_no_job_can_be_made_is_refused_on_vertex(plain):
    plain["pipelineInfo"]["name"] = "Rich pipeline"
    assert refused(plain, "vertex") == {"job-name"}


def test_labels_that_kubernetes_does_not_take_are_refused_on_kubeflow(plain):
    label = next(iter(plain["deploymentSpec"]["executors"]))
    for value, fits in (("v" * 63, True), ("v" * 64, False), ("-v", False), ("", True)):
        settings = {"podMetadata": {"labels": {"team": value}}}
        platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {label: settings}}}}}
        found = errors(check.check(yaml.safe_dump_all([plain, platform]), "kubeflow"))
        assert ([finding.code for finding in found] == []) is fits, value


# The command


def run(*arguments: str):
    return CliRunner().invoke(cli.penstock, ["check", *arguments])


def test_the_command_tells_findings_and_exits_by_them(plain, tmp_path):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(yaml.safe_dump(plain))
    CORRUPTIONS["dependency_on_no_task"][1](plain)
    bad.write_text(yaml.safe_dump(plain))
    assert run(str(good)).exit_code == 0
    assert "1 spec: no errors, no warnings" in run(str(good)).output
    result = run(str(tmp_path))
    assert result.exit_code == 1
    assert f"{bad}: error[unknown-dependency] task " in result.output.replace("../" * 20, "")
    assert "2 specs: 1 error, no warnings" in result.output
    missing = run(str(tmp_path / "none.yaml"))
    assert missing.exit_code == 2
    assert "there is no such file" in missing.output


def test_the_command_prints_json(plain, tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(plain))
    (entry,) = json.loads(run(str(path), "--json", "--target", "vertex").output)
    assert entry == {"file": str(path), "target": "vertex", "findings": []}


def test_strict_counts_warnings(specs, tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(specs["rich"]))
    assert run(str(path)).exit_code == 0
    assert run(str(path), "--strict").exit_code == 1
