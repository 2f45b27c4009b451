"""What a job is made of, what is refused or warned of, and that the same pipeline gives the same bytes."""

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from kfp import compiler, dsl, kubernetes
from kfp.dsl import Artifact, Dataset, Input, Output

from penstock.compile import from_kfp
from penstock.compile.cli import penstock
from penstock.compile.errors import PenstockError
from penstock.compile.findings import Severity
from penstock.compile.targets.azureml import convert, emit, features, options, validate
from penstock.compile.targets.azureml.convert import Conversion
from tests.compile.rich import rich


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def make(rows: int = 1) -> list:
    return [1] * rows


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def take(value: str):
    print(value)


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def look(data: Input[Artifact]):
    print(data.uri)


@dsl.container_component
def serve():
    return dsl.ContainerSpec(image="example/server:1")


def codes(conversion: Conversion, severity: Severity = Severity.ERROR) -> dict[str, str]:
    """Return the path of each kind of finding."""
    return {found.code: found.path for found in conversion.findings if found.severity is severity}


def node(conversion: Conversion, name: str) -> dict:
    return yaml.safe_load(conversion.files["pipeline.yml"])["jobs"][name]


def component(conversion: Conversion, name: str) -> dict:
    return yaml.safe_load(conversion.files[f"components/{name}.yml"])


# What stands in the way


def test_a_loop_over_what_a_task_gives_needs_a_bound(converted):
    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.ParallelFor(make().output) as item:
            take(value=item)

    refused = converted(pipeline)
    assert codes(refused) == {"unbounded-loop": "for-loop-1"}
    assert refused.files == {}
    assert "max_iterations" in str(refused.findings[0])
    assert sum("take" in name for name in converted(pipeline, max_iterations={"for-loop-*": 3}).files) == 3 * 4


def test_an_accelerator_never_becomes_a_machine_without(converted):
    @dsl.pipeline(name="p")
    def pipeline():
        take(value="a").set_accelerator_type("NVIDIA_TESLA_T4").set_accelerator_limit(2)

    assert codes(converted(pipeline)) == {"unmapped-accelerator": "take"}
    small = {"accelerator": "NVIDIA_TESLA_T4", "count": 1, "compute": "small"}
    assert codes(converted(pipeline, machines=[small])) == {"unmapped-accelerator": "take"}
    large = {"accelerator": "*", "count": 4, "compute": "large", "instance_type": "Standard_NC16as_T4_v3"}
    done = converted(pipeline, machines=[small, large])
    assert node(done, "take")["compute"] == "azureml:large"
    assert node(done, "take")["resources"] == {"instance_type": "Standard_NC16as_T4_v3"}


def test_machines_are_chosen_by_tasks_cpus_and_memory(converted):
    @dsl.pipeline(name="p")
    def pipeline():
        take(value="a").set_cpu_limit("4").set_memory_limit("16G")
        take(value="b").set_display_name("second")

    rules = [{"cpu": 2, "memory": "64G", "compute": "few"}, {"cpu": 8, "memory": "32Gi", "compute": "many"}]
    done = converted(pipeline, machines=[*rules[:1], {**rules[1], "tasks": "take"}], compute="default")
    assert node(done, "take")["compute"] == "azureml:many"
    assert node(done, "take_2")["compute"] == "azureml:few"
    assert codes(converted(pipeline), Severity.WARNING) == {"unmatched-machine": "take"}
    assert yaml.safe_load(done.files["job.yml"])["settings"]["default_compute"] == "azureml:default"


def test_importers_need_a_place_where_azure_has_the_data(converted):
    @dsl.pipeline(name="p")
    def pipeline(where: str = "s3://b/x/rows.csv"):
        look(data=dsl.importer(artifact_uri="gs://bucket/trips", artifact_class=Dataset, reimport=False).output)
        look(data=dsl.importer(artifact_uri=where, artifact_class=Dataset, reimport=False).output)

    assert set(codes(converted(pipeline))) == {"unmapped-uri"}
    there = "azureml://datastores/store/paths/"
    done = converted(pipeline, uri_map={"gs://bucket/": there, "s3://b/": "wasbs://c@a.blob.core.windows.net/"})
    assert yaml.safe_load(done.files["job.yml"])["inputs"] == {
        "import_importer": {"type": "uri_folder", "path": f"{there}trips"},
        "import_importer_2": {"type": "uri_file", "path": "wasbs://c@a.blob.core.windows.net/x/rows.csv"},
    }


def test_a_relative_path_is_one_of_the_folder_where_the_job_is_converted(converted, tmp_path, monkeypatch):
    @dsl.pipeline(name="p")
    def pipeline(data: Input[Dataset]):
        look(data=data)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("1")
    done = converted(pipeline, {"data": "rows.csv"})
    given = yaml.safe_load(done.files["job.yml"])["inputs"]
    assert given == {"data": {"type": "uri_file", "path": str(tmp_path / "rows.csv")}}
    asset = yaml.safe_load(converted(pipeline, {"data": "azureml:trips:1"}).files["job.yml"])["inputs"]
    assert asset == {"data": {"type": "uri_folder", "path": "azureml:trips:1"}}


def test_an_image_without_a_command_needs_its_entrypoint(converted):
    @dsl.pipeline(name="p")
    def pipeline():
        serve()

    assert codes(converted(pipeline)) == {"no-command": "serve"}
    done = converted(pipeline, entrypoints={"example/*": ["/bin/server", "--once"]}, has_python=["example/*"])
    assert json.loads(done.files["code/serve/step.json"])["task"]["command"] == ["/bin/server", "--once"]


def test_images_that_have_no_python_and_that_may_have_none_are_told_apart(converted):
    @dsl.container_component
    def shell():
        return dsl.ContainerSpec(image="docker.io/library/busybox:1.36", command=["sh", "-c"], args=["echo"])

    @dsl.container_component
    def own():
        return dsl.ContainerSpec(image="example/own@sha256:" + "0" * 64, command=["/bin/tool"])

    @dsl.container_component
    def script():
        return dsl.ContainerSpec(image="python:3.12-slim", command=["sh", "-c"], args=["python -c pass"])

    @dsl.pipeline(name="p")
    def pipeline():
        shell()
        own()
        script()

    done = converted(pipeline)
    assert codes(done) == {}
    assert codes(done, Severity.WARNING) == {"maybe-no-python": "own", "no-python": "shell"}
    assert codes(converted(pipeline, has_python=["*/busybox:*", "example/*"]), Severity.WARNING) == {}


def test_kubernetes_settings_are_lowered_mapped_or_refused_by_name(converted):
    @dsl.pipeline(name="p")
    def pipeline():
        first, second = take(value="a"), take(value="b")
        kubernetes.set_timeout(first, 30)
        kubernetes.add_pod_label(first, "team", "trees")
        kubernetes.empty_dir_mount(first, "scratch", "/tmp/scratch")
        kubernetes.use_config_map_as_env(first, "settings", {"level": "LEVEL"})
        kubernetes.use_secret_as_env(second, "token", {"key": "TOKEN"})
        kubernetes.mount_pvc(second, "claim", "/data")

    refused = converted(pipeline, config_maps={"settings": {"level": "high"}})
    said = [str(found) for found in refused.findings if found.severity is Severity.ERROR]
    assert len(said) == 2
    assert "task take-2: kubernetes.pvcMount" in said[0]
    assert "task take-2: kubernetes.secretAsEnv (Secret token, keys key)" in said[1]

    @dsl.pipeline(name="p")
    def first_only():
        first = take(value="a")
        kubernetes.set_timeout(first, 30)
        kubernetes.add_pod_label(first, "team", "trees")
        kubernetes.empty_dir_mount(first, "scratch", "/tmp/scratch")
        kubernetes.use_config_map_as_env(first, "settings", {"level": "LEVEL"})

    assert codes(converted(first_only)) == {"unmapped-config-map": "take"}
    done = converted(first_only, config_maps={"settings": {"level": "high"}})
    step = json.loads(done.files["code/take/step.json"])
    assert step["task"]["timeout"] == 30
    assert step["task"]["env"] == {"LEVEL": "high"}
    assert step["folders"] == ["/tmp/scratch"]
    assert node(done, "take")["tags"] == {"penstock.task": "take", "team": "trees"}


def test_what_only_other_platforms_have_is_refused_with_every_task_that_has_it(converted):
    @dsl.container_component
    def drive():
        return dsl.ContainerSpec(
            image="gcr.io/ml-pipeline/google-cloud-pipeline-components:2.22.0",
            command=["python3"],
            args=[dsl.PIPELINE_ROOT_PLACEHOLDER],
        )

    @dsl.pipeline(name="p")
    def pipeline():
        drive()
        drive()

    done = converted(pipeline)
    assert [(found.code, found.path) for found in done.findings] == [
        ("google-cloud", "drive"),
        ("no-placeholder", "drive"),
        ("google-cloud", "drive-2"),
        ("no-placeholder", "drive-2"),
    ]


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def save(item: int, data: Output[Dataset]) -> int:
    with open(data.path, "w") as file:
        file.write(str(item))
    return item


def test_more_artifacts_than_a_step_has_inputs_are_refused(converted):
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def gather(data: Input[list[Dataset]]):
        print(data)

    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.ParallelFor(list(range(201))) as item:
            given = save(item=item)
        gather(data=dsl.Collected(given.outputs["data"]))

    @dsl.pipeline(name="p")
    def giving() -> list[Dataset]:
        with dsl.ParallelFor(list(range(201))) as item:
            given = save(item=item)
        return dsl.Collected(given.outputs["data"])

    done = converted(pipeline)
    assert codes(done) == {"too-many": "gather"}
    assert "takes 201 artifacts, and a step has 200 inputs" in done.findings[0].message
    assert "its outputs are chosen from 201 artifacts" in converted(giving).findings[0].message


def test_more_parameters_than_a_step_has_inputs_come_through_steps_between(converted):
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def take_all(values: list):
        print(values)

    @dsl.pipeline(name="p")
    def pipeline() -> list:
        with dsl.ParallelFor(list(range(201))) as item:
            given = save(item=item)
        take_all(values=dsl.Collected(given.outputs["Output"]))
        take_all(values=dsl.Collected(given.outputs["Output"]))
        return dsl.Collected(given.outputs["Output"])

    done = converted(pipeline)
    assert codes(done) == {}
    jobs = yaml.safe_load(done.files["pipeline.yml"])["jobs"]
    assert [name for name in jobs if "gather" in name] == ["penstock_gather_1", "penstock_gather_2"]
    assert [len(jobs[f"penstock_gather_{index}"]["inputs"]) for index in (1, 2)] == [150, 51]
    assert {name: binding for name, binding in jobs["take_all_2"]["inputs"].items() if name.startswith("g")} == {
        "g0": "${{parent.jobs.penstock_gather_1.outputs.control}}",
        "g1": "${{parent.jobs.penstock_gather_2.outputs.control}}",
    }


def test_a_pipeline_that_imports_alone_is_one_step(converted):
    @dsl.pipeline(name="p")
    def pipeline():
        dsl.importer(artifact_uri="azureml://datastores/d/paths/x", artifact_class=Dataset, reimport=False)

    done = converted(pipeline)
    assert codes(done) == {}
    assert list(yaml.safe_load(done.files["pipeline.yml"])["jobs"]) == ["penstock_outputs"]


def test_a_time_limit_is_one_of_azures_too(converted):
    @dsl.pipeline(name="p")
    def pipeline():
        kubernetes.set_timeout(take(value="a"), 30)
        kubernetes.set_timeout(take(value="b").set_retry(2, "10s", 2.0, "15s"), 30)
        take(value="c")

    done = converted(pipeline)
    assert node(done, "take")["limits"] == {"timeout": 630}
    assert node(done, "take_2")["limits"] == {"timeout": 3 * 30 + 10 + 15 + 600}
    assert "limits" not in node(done, "take_3")


def test_values_that_a_parameter_may_have_are_told_to_azure(compiled):
    @dsl.pipeline(name="p")
    def pipeline(size: str = "small", other: str = None):  # noqa: RUF013
        take(value=size)

    spec = yaml.safe_load(compiled(pipeline).read_text())
    for name in ("size", "other"):
        spec["root"]["inputDefinitions"]["parameters"][name]["literals"] = ["small", "large"]
    done = convert.convert_text(yaml.safe_dump(spec), "spec", {"size": "large"})
    declared = yaml.safe_load(done.files["pipeline.yml"])["inputs"]
    assert declared["size"] == {"type": "string", "default": "small", "enum": ["small", "large"]}
    assert declared["other"]["enum"] == ["small", "large", "json:null"]
    with pytest.raises(PenstockError, match="is not one of"):
        convert.convert_text(yaml.safe_dump(spec), "spec", {"size": "huge"})
    changed = {**done.files, "job.yml": done.files["job.yml"].replace(b"large", b"huge")}
    assert "job.yml: input size: 'huge' is none of small, large" in validate.check(changed)


def test_a_job_of_tfx_brings_its_values_along(kfp_job):
    done = convert.convert_text(json.dumps(kfp_job), "job.json", {}, options.parse({"has_python": ["*/tfx:*"]}))
    assert codes(done) == {}
    assert codes(done, Severity.WARNING) == {"pipeline-root": "", "runtime-config": "", "old-properties": ""}
    assert yaml.safe_load(done.files["pipeline.yml"])["inputs"]["rows"]["default"] == 7
    given = convert.convert_text(json.dumps(kfp_job), "job.json", {"rows": "8"})
    assert yaml.safe_load(given.files["job.yml"])["inputs"]["rows"] == 8
    there = convert.convert_text(
        json.dumps(kfp_job), "job.json", {}, options.parse({"uri_map": {"gs://b/": "azureml://datastores/d/paths/"}})
    )
    assert "pipeline-root" not in codes(there, Severity.WARNING)
    kfp_job["pipelineSpec"]["deploymentSpec"]["executors"]["Resolver_executor"] = {"resolver": {}}
    kfp_job["pipelineSpec"]["components"]["Resolver"] = {"executorLabel": "Resolver_executor"}
    kfp_job["pipelineSpec"]["root"]["dag"]["tasks"]["Resolver"] = {
        "taskInfo": {"name": "Resolver"}, "componentRef": {"name": "Resolver"},
    }  # fmt: skip
    refused = convert.convert_text(json.dumps(kfp_job), "job.json", {})
    assert codes(refused) == {"executor": "Resolver"}


@pytest.fixture
def kfp_job() -> dict:
    """Return a job as TFX's runner for Vertex AI writes them: schema 2.0.0, one document, values apart."""
    span = {"span": {"constantValue": {"intValue": "0"}}}
    examples = {"artifactType": {"instanceSchema": "title: tfx.Examples\ntype: object\nproperties:\n  span:\n"}}
    return {
        "displayName": "tfx-pipeline",
        "labels": {"tfx_version": "1-16-0"},
        "pipelineSpec": {
            "pipelineInfo": {"name": "tfx-pipeline"},
            "schemaVersion": "2.0.0",
            "sdkVersion": "tfx-1.16.0",
            "components": {
                "CsvExampleGen": {
                    "executorLabel": "CsvExampleGen_executor",
                    "inputDefinitions": {"parameters": {"input_base": {"type": "STRING"}, "rows": {"type": "INT"}}},
                    "outputDefinitions": {"artifacts": {"examples": {**examples, "properties": span}}},
                },
                "StatisticsGen": {
                    "executorLabel": "StatisticsGen_executor",
                    "inputDefinitions": {"artifacts": {"examples": examples}},
                },
            },
            "deploymentSpec": {
                "executors": {
                    f"{name}_executor": {
                        "container": {
                            "image": "gcr.io/tfx-oss-public/tfx:1.16.0",
                            "command": ["python", "-m", "tfx.orchestration.kubeflow.v2.container.run_executor"],
                            "args": ["--json_serialized_invocation_args", "{{$}}"],
                        }
                    }
                    for name in ("CsvExampleGen", "StatisticsGen")
                }
            },
            "root": {
                "inputDefinitions": {"parameters": {"rows": {"type": "INT"}}},
                "dag": {
                    "tasks": {
                        "CsvExampleGen": {
                            "taskInfo": {"name": "CsvExampleGen"},
                            "componentRef": {"name": "CsvExampleGen"},
                            "inputs": {
                                "parameters": {
                                    "input_base": {"runtimeValue": {"constantValue": {"stringValue": "gs://b/data"}}},
                                    "rows": {"componentInputParameter": "rows"},
                                }
                            },
                        },
                        "StatisticsGen": {
                            "taskInfo": {"name": "StatisticsGen"},
                            "componentRef": {"name": "StatisticsGen"},
                            "dependentTasks": ["CsvExampleGen"],
                            "inputs": {
                                "artifacts": {
                                    "examples": {
                                        "taskOutputArtifact": {
                                            "producerTask": "CsvExampleGen",
                                            "outputArtifactKey": "examples",
                                        }
                                    }
                                }
                            },
                        },
                    }
                },
            },
        },
        "runtimeConfig": {
            "gcsOutputDirectory": "gs://b/root",
            "parameters": {"rows": {"intValue": "7"}},
            "failurePolicy": "PIPELINE_FAILURE_POLICY_FAIL_FAST",
        },
    }


def test_strict_refuses_what_would_be_warned_of(compiled):
    @dsl.pipeline(name="p")
    def pipeline(rows: int):
        make(rows=rows)

    parsed = from_kfp.read(compiled(pipeline))
    assert not convert.convert(parsed).refused
    strict = convert.convert(parsed, strict=True)
    assert (codes(strict), strict.files) == ({"no-value": ""}, {})
    assert not convert.convert(parsed, {"rows": 3}, strict=True).refused


def test_every_feature_that_is_found_has_a_code_of_its_own():
    found = [feature.code for feature in features.FEATURES if feature.find]
    assert len(found) == len(set(found))
    assert all(bool(feature.code) == bool(feature.find) for feature in features.FEATURES)
    assert {feature.effect for feature in features.FEATURES if feature.find} == {
        features.Effect.WARNED,
        features.Effect.OPTION,
        features.Effect.REFUSED,
    }


# Options


def test_options_name_all_that_is_wrong_with_them():
    with pytest.raises(PenstockError) as wrong:
        options.parse(
            {
                "comput": "a",
                "force_rerun": "yes",
                "machines": [{"compute": "a", "memory": "much"}, {"tasks": "b"}],
                "max_iterations": {"*": 0},
                "uri_types": {"*": "table"},
            }
        )
    said = str(wrong.value)
    assert "unknown option comput, did you mean compute?" in said
    assert "force_rerun is not true or false" in said
    assert "machines[0].memory 'much' is no amount of memory" in said
    assert "machines[1] has neither compute nor instance_type" in said
    assert "max_iterations.* is below 1" in said
    assert "uri_types.* is neither uri_file nor uri_folder" in said


def test_options_of_a_file(tmp_path):
    (tmp_path / "azure.yaml").write_text("compute: c\nmax_iterations: 7\nentrypoints:\n  'x/*': [run]\n")
    found = options.read(tmp_path / "azure.yaml")
    assert (found.compute, found.max_iterations, found.entrypoints) == ("c", {"*": 7}, {"x/*": ("run",)})


# What is written


def test_the_job_is_the_same_over_hash_seeds_and_folders(compiled, tmp_path):
    spec = compiled(rich)
    settings = tmp_path / "azure.yaml"
    settings.write_text(
        "has_python: ['alpine:*']\nmax_iterations: 3\nuri_map: {'gs://bucket/': 'azureml://datastores/d/paths/'}\n"
    )
    found = []
    for seed in ("1", "2"):
        folder = tmp_path / seed / "job"
        folder.parent.mkdir()
        done = subprocess.run(
            [sys.executable, "-m", "penstock.compile.cli", "convert", str(spec), "--to", "azureml", "--output",
             str(folder), "--options", str(settings)],
            env={**os.environ, "PYTHONHASHSEED": seed}, cwd=folder.parent, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    assert found[0] == found[1]


def test_values_survive_the_job_as_they_are(converted):
    values = {
        "text": "json: ${{parent.inputs.x}}\n$[[y]] 'it''s' `id` $(id)",
        "empty": "",
        "number": 1e-7,
        "items": [1, "a", None],
    }

    @dsl.pipeline(name="p")
    def pipeline(text: str, items: list, empty: str = "x", number: float = 0.5, other: str = None):  # noqa: RUF013
        take(value=f"{text}{empty}{number}{items}{other}")

    done = converted(pipeline, values)
    assert not done.refused
    given = yaml.safe_load(done.files["job.yml"])["inputs"]
    assert given["number"] == 1e-7
    assert given["empty"] == 'json:""'
    assert given["items"] == '[1, "a", null]'
    assert given["text"].startswith("json:")
    assert "${{" not in given["text"]
    assert json.loads(given["text"].removeprefix("json:")) == values["text"]
    declared = yaml.safe_load(done.files["pipeline.yml"])["inputs"]
    assert declared["other"] == {"type": "string", "default": "json:null"}


def test_names_that_azure_does_not_take_are_changed_and_kept_apart(converted):
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def penstock_verdict(Data: Output[Dataset], data: Output[Dataset]):
        pass

    @dsl.pipeline(name="9 Lives: Ü!")
    def pipeline(Rows: int = 1, rows: int = 2):
        with dsl.ExitHandler(take(value="bye")):
            penstock_verdict().set_display_name("x" * 300)
            make(rows=Rows)
            make(rows=rows)

    done = converted(pipeline)
    assert not done.refused
    document = yaml.safe_load(done.files["pipeline.yml"])
    assert document["name"] == "t_9_lives"
    assert set(document["inputs"]) == {"Rows", "rows_2"}
    assert "penstock_verdict" in document["jobs"]
    assert json.loads(done.files["code/penstock_verdict/step.json"])["mode"] == "verdict"


def test_nothing_of_the_pipelines_text_is_in_a_command(converted):
    @dsl.pipeline(name="p")
    def pipeline(value: str = "$(touch /tmp/x)"):
        take(value=f"`id` {value}")

    done = converted(pipeline)
    lines = component(done, "take")["command"].splitlines()
    assert lines[1].startswith('"$python" -u step.py <<\'PENSTOCK_')
    assert lines[2:4] == ["@@control@@${{outputs.control}}", "@@p0@@${{inputs.p0}}"]
    assert lines[4:] == [lines[1].partition("<<")[2].strip("'")]


def test_a_folder_of_something_else_is_left_alone(converted, tmp_path):
    done = converted(rich, max_iterations=1, uri_map={"gs://": "azureml://"}, has_python=["alpine:*"])
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(PenstockError, match="holds something that is no converted job"):
        convert.write(done, folder)
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    convert.write(done, tmp_path / "job")
    (tmp_path / "job" / "old.yml").write_text("")
    convert.write(done, tmp_path / "job")
    assert not (tmp_path / "job" / "old.yml").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job", "mine", "spec.yaml"]


def test_an_interrupted_conversion_leaves_what_was_there(converted, tmp_path, monkeypatch):
    @dsl.pipeline(name="p")
    def pipeline(rows: int = 1):
        make(rows=rows)

    first, second = converted(pipeline), converted(pipeline, {"rows": 2})
    renamed, written = Path.rename, Path.write_bytes

    def interrupted(name):
        def stop(path, *arguments):
            if path.name.startswith(name):
                raise KeyboardInterrupt
            return (renamed if name == ".job-" else written)(path, *arguments)

        return stop

    for method, name in (("write_bytes", "step.json"), ("rename", ".job-")):
        for before in (None, first):
            folder = tmp_path / f"{method}-{before is None}"
            folder.mkdir()
            if before:
                convert.write(before, folder / "job")
            with monkeypatch.context() as patched:
                patched.setattr(Path, method, interrupted(name))
                with pytest.raises(KeyboardInterrupt):
                    convert.write(second, folder / "job")
            assert [path.name for path in folder.iterdir()] == (["job"] if before else [])
            if before:
                assert (folder / "job" / "job.yml").read_bytes() == first.files["job.yml"]
                convert.write(second, folder / "job")
                assert (folder / "job" / "job.yml").read_bytes() == second.files["job.yml"]


def test_patterns_that_fit_nothing_are_warned_of(compiled, tmp_path):
    @dsl.pipeline(name="p")
    def pipeline():
        make()

    spec = from_kfp.read(compiled(pipeline))
    told = options.parse(
        {
            "machines": [{"tasks": "trian", "compute": "c"}],
            "outputs": {"make.model": {"type": "mlflow_model"}},
            "max_iterations": {"for-loop-9": 3},
            "has_python": ["python:*", "*"],
            "launchers": {"busybox": "sh"},
        }
    )
    found = [each.message for each in convert.convert(spec, {}, told).findings if each.code == "unused-option"]
    assert found == [
        "launchers of the options: busybox fits nothing (there is python:3.11)",
        "machines.tasks of the options: trian fits nothing (there is make)",
        "max_iterations of the options: for-loop-9 fits nothing (there is nothing)",
        "outputs of the options: make.model fits nothing (there is nothing)",
    ]
    assert convert.convert(spec, {}, told, lenient=True).findings == ()


def test_five_hundred_tasks_take_less_than_two_seconds(tmp_path):
    @dsl.pipeline(name="p")
    def pipeline():
        before = make()
        for _ in range(499):
            before = make(rows=1).after(before)

    compiler.Compiler().compile(pipeline, str(tmp_path / "spec.yaml"))
    parsed = from_kfp.read(tmp_path / "spec.yaml")
    begin = time.process_time()
    done = convert.convert(parsed)
    assert time.process_time() - begin < 2
    assert len(done.files) == 2 + 500 * 4


# The command


def call(*arguments: object):
    return CliRunner().invoke(penstock, ["convert", "--to", "azureml", *map(str, arguments)], prog_name="penstock")


def test_the_command_writes_a_job_and_a_report(compiled, tmp_path):
    spec = compiled(rich)
    refused = call(spec, "--output", tmp_path / "job", "--report", tmp_path / "report.json")
    assert refused.exit_code == 1
    assert "error[unmapped-uri] task importer: imports gs://bucket/trips" in refused.stdout
    assert not (tmp_path / "job").exists()
    report = json.loads((tmp_path / "report.json").read_text())
    assert not report["converted"]
    assert {found["code"] for found in report["findings"]} >= {"unmapped-uri", "unbounded-loop"}
    settings = tmp_path / "azure.yaml"
    settings.write_text(
        "has_python: ['alpine:*']\nmax_iterations: 3\nuri_map: {'gs://bucket/': 'azureml://datastores/d/paths/'}\n"
    )
    done = call(spec, "--output", tmp_path / "job", "--options", settings, "-p", "rows=5")
    assert done.exit_code == 0, done.output
    assert "job.yml: 18 steps" in done.stdout
    assert yaml.safe_load((tmp_path / "job" / "job.yml").read_text())["inputs"]["rows"] == 5
    assert validate.check_folder(tmp_path / "job") == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--options", "{other}/azure.yaml"], "azure.yaml: unknown option comput, did you mean compute?"),
        (["-p", "row=1"], "pipeline p has no parameter row; did you mean rows?"),
        (["-p", "rows=many"], "rows"),
        (["--report", "{other}/none/report.json"], "report.json: cannot be written: No such file or directory"),
        (["--output", "{other}"], "holds something that is no converted job"),
        (["--output", "{other}/azure.yaml/job"], "job: cannot be written:"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_and_nothing_is_written(compiled, tmp_path, arguments, said):
    @dsl.pipeline(name="p")
    def pipeline(rows: int = 1):
        make(rows=rows)

    other = tmp_path / "other"
    other.mkdir()
    (other / "azure.yaml").write_text("comput: a")
    spec, before = compiled(pipeline), sorted(tmp_path.rglob("*"))
    given = [each.format(other=other) for each in arguments]
    output = [] if "--output" in given else ["--output", tmp_path / "job"]
    done = call(spec, *output, *given)
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert sorted(tmp_path.rglob("*")) == sorted({*before, spec})
    each = call("--each", spec.parent, "--report", other / "none" / "report.json")
    assert (each.exit_code, len(each.stderr.splitlines())) == (2, 1)


def test_each_shows_a_table_of_what_comes_of_every_file(compiled, tmp_path):
    folder = tmp_path / "specs"
    folder.mkdir()
    (folder / "rich.yaml").write_bytes(compiled(rich).read_bytes())
    (folder / "none.yaml").write_text("a: 1")

    @dsl.pipeline(name="p")
    def pipeline():
        make()

    (folder / "plain.yaml").write_bytes(compiled(pipeline).read_bytes())
    shown = call("--each", folder)
    assert shown.exit_code == 1
    assert "3 files in" in shown.stdout
    assert "1 converted, 1 refused, 1 no pipeline" in shown.stdout
    given = call("--each", folder, "--json", "-p", "rows=3", "-p", "row=3")
    assert given.stderr == f"warning: -p row: no pipeline in {folder} has it\n"
    found = {each["file"]: each["state"] for each in json.loads(given.stdout)}
    assert found == {"none.yaml": "no pipeline", "plain.yaml": "converted", "rich.yaml": "refused"}


EVERYTHING = {
    "max_iterations": 5,
    "machines": [{"accelerator": "*", "count": 8, "compute": "gpu"}],
    "uri_map": {f"{kind}://": f"azureml://datastores/{kind}/paths/" for kind in ("gs", "s3", "minio", "oci")},
    "entrypoints": {"*": ["run"]},
}
# Refused whatever the options say, because Azure ML has nothing like it.
POLICY = {"google-cloud", "kubernetes-refused", "runtime-resources", "volume-task"}
SAMPLES = {"STRING": "x", "NUMBER_INTEGER": 1, "NUMBER_DOUBLE": 0.5, "BOOLEAN": True, "LIST": [1], "STRUCT": {"a": 1}}


@pytest.mark.corpus
@pytest.mark.parametrize("given", [{}, EVERYTHING], ids=["without options", "with options"])
def test_pipelines_of_others_convert_or_are_refused_with_task_and_feature(kfp_specs, given):
    known = {feature.code: feature.effect for feature in features.FEATURES}
    wrong, allowed, count = {}, 0, 0
    for path in sorted((kfp_specs / "valid").rglob("*.yaml")):
        pipeline, values = from_kfp.read(path), {}
        if given:
            required = (item for item in pipeline.inputs.parameters.items() if item[1].required)
            values = {name: SAMPLES[port.type.value] for name, port in required}
            values |= dict.fromkeys(pipeline.inputs.artifacts, "azureml://datastores/d/paths/x")
        done = convert.convert(pipeline, values, options.parse(given))
        assert done.refused != bool(done.files)
        for found in done.findings:
            assert found.message
            assert known[found.code]
            assert found.remedy or found.severity is Severity.WARNING
            assert found.path or found.code == "artifact-input" or found.severity is Severity.WARNING, (
                f"{path}: {found}"
            )
        refused = set(codes(done))
        count += 1
        allowed += not refused & POLICY
        if refused and not refused & POLICY:
            wrong[path.name] = refused
    needed = {feature.code for feature in features.FEATURES if feature.effect is features.Effect.OPTION}
    if given:
        assert wrong == {}
        assert count >= 72
        assert allowed >= 64
    else:
        assert all(each <= {*needed, "artifact-input"} for each in wrong.values())


@pytest.mark.corpus
def test_what_is_no_pipeline_is_said_to_be_none(kfp_specs):
    done = call("--each", kfp_specs / "invalid", "--json")
    assert {each["state"] for each in json.loads(done.stdout)} == {"no pipeline"}
    assert done.exit_code == 1


def test_the_programs_in_a_snapshot_need_nothing_but_each_other():
    programs = emit.shipped()
    assert sorted(programs) == ["launcher.py", "step.py"]
    assert b"penstock.compile" not in programs["step.py"]
    for name, content in programs.items():
        tree = ast.parse(content, name, feature_version=(3, 8))
        imported = {
            alias.name.partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in ([ast.alias(str(node.module))] if isinstance(node, ast.ImportFrom) else node.names)
        }
        assert imported <= {*sys.stdlib_module_names, "launcher"}


def test_a_shipped_step_starts_alone(tmp_path):
    for name, content in emit.shipped().items():
        Path(tmp_path / name).write_bytes(content)
    step = {"mode": "verdict", "pipeline": "p", "controls": {}, "artifacts": {}}
    (tmp_path / "step.json").write_text(json.dumps(step))
    done = subprocess.run(
        [sys.executable, "-S", tmp_path / "step.py"], input=f"@@control@@{tmp_path / 'out'}\n", text=True,
        capture_output=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "out" / "penstock-task.json").read_text()) == {"failed": {}}
