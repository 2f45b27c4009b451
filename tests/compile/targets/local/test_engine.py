"""Compiled pipelines run in processes, with the meaning that Kubeflow and Vertex AI give them."""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import List, NamedTuple, Optional  # noqa: UP035 kfp reads these names

import pytest
import yaml
from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output, OutputPath

from penstock.compile.errors import PenstockError
from penstock.compile.targets import local
from penstock.compile.targets.local.record import ArtifactRecord, RunRecord, State

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@component
def number(value: int) -> int:
    return value


@component
def decimal(value: float) -> float:
    return value


@component
def text(value: str) -> str:
    return value


@component
def listed(value: list) -> list:
    return value


@component
def kinds(value: dict) -> str:
    import json

    return json.dumps(value)


@component
def fail(message: str = "too bad") -> int:
    raise ValueError(message)


@component
def write(content: str, data: Output[Dataset]):
    with open(data.path, "w") as file:
        file.write(content)
    data.metadata["length"] = len(content)


@component
def read(data: Input[Dataset]) -> str:
    with open(data.path) as file:
        return f"{file.read()}/{data.metadata['length']}"


@component
def content(data: Input[Dataset]) -> str:
    with open(data.path) as file:
        return file.read()


@component
def number_or(value: int = -1) -> int:
    return value


@component
def final(status: dsl.PipelineTaskFinalStatus) -> str:
    return f"{status.pipeline_task_name} {status.state} {status.error_message}"


@pytest.fixture
def run(compiled, tmp_path):
    """Compile a pipeline, run it and return its record."""

    def run_it(what, parameters=None, jobs=4, **options) -> RunRecord:
        options = {"runner": "subprocess", **options}
        return local.run(compiled(what), parameters or {}, root=tmp_path / "root", jobs=jobs, **options)

    return run_it


def states(record: RunRecord) -> dict[str, str]:
    return {task.path: task.state.value for task in record.tasks}


def task(record: RunRecord, path: str):
    return next(task for task in record.tasks if task.path == path)


def by_name(record: RunRecord) -> dict:
    return {one.name: one for one in record.tasks}


def output(record: RunRecord, path: str, port: str = "Output"):
    return task(record, path).outputs.parameters[port]


def edited(compiled, what, change, tmp_path) -> Path:
    spec = yaml.safe_load(compiled(what).read_text())
    change(spec)
    path = tmp_path / "edited.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


# What a run leaves


def test_a_chain_runs_and_leaves_spec_record_logs_and_report(compiled, tmp_path):
    @dsl.pipeline(name="chain")
    def chain(start: int = 3) -> int:
        first = number(value=start)
        return number(value=first.output).output

    spec = compiled(chain)
    seen: list[RunRecord] = []
    record = local.run(spec, {"start": 5}, root=tmp_path / "root", jobs=2, observe=seen.append)
    assert record.state is State.SUCCEEDED
    assert record.outputs.parameters == {"Output": 5}
    assert record.parameters == {"start": 5}
    folder = Path(record.folder)
    assert folder.parent == tmp_path / "root" / "runs"
    assert folder.name == record.id
    assert record.id.startswith("chain-2")
    assert (folder / "spec.yaml").read_bytes() == spec.read_bytes()
    assert record.spec_sha256 == hashlib.sha256(spec.read_bytes()).hexdigest()
    assert json.loads((folder / "run.json").read_text()) == json.loads(json.dumps(record.to_json()))
    assert "number-2" in (folder / "report.html").read_text()
    assert "Got executor_input" in (folder / "tasks" / "number" / "log.txt").read_text()
    second = task(record, "number-2")
    assert (second.depends_on, second.kind, second.exit_code, second.log) == (
        ("number",), "container", 0, "tasks/number-2/log.txt",
    )  # fmt: skip
    assert second.inputs.parameters == {"value": 5}
    assert second.seconds > 0
    assert states(seen[0]) == {"number": "RUNNING", "number-2": "PENDING"}
    assert [states(one)["number"] for one in seen][-1] == "SUCCEEDED"
    assert not [path for path in folder.rglob("*") if path.name in ("work", "tmp") or "unfinished" in path.name]


def test_run_json_is_whole_at_every_change(compiled, tmp_path):
    @dsl.pipeline(name="two")
    def two():
        number(value=1)
        number(value=2)

    def check(record: RunRecord) -> None:
        on_disk = json.loads((Path(record.folder) / "run.json").read_text())
        assert [one["state"] for one in on_disk["tasks"]] == [one.state for one in record.tasks]

    assert local.run(compiled(two), {}, root=tmp_path, jobs=2, observe=check).state is State.SUCCEEDED


def test_run_ids_are_unique_and_a_given_one_is_never_overwritten(run):
    @dsl.pipeline(name="one")
    def one():
        number(value=1)

    assert run(one).id != run(one).id
    assert run(one, run_id="mine").id == "mine"
    with pytest.raises(PenstockError, match=r"mine is there already"):
        run(one, run_id="mine")
    with pytest.raises(PenstockError, match=r"run id .\.\./up"):
        run(one, run_id="../up")


def test_paths_are_absolute_and_the_users_own_folder_is_known(run, tmp_path, monkeypatch):
    @component
    def places(data: Output[Dataset]) -> List[str]:  # noqa: UP006
        import os

        with open(data.path, "w") as file:
            file.write("x")
        return [os.getcwd(), data.path, os.environ["PENSTOCK_ROOT"], os.environ["PENSTOCK_CWD"], os.environ["TMPDIR"]]

    @dsl.pipeline(name="where")
    def where():
        places()

    monkeypatch.chdir(tmp_path)
    cwd, path, root, here, temporary = output(run(where), "places")
    folder = tmp_path / "root"
    assert (root, here) == (str(folder), str(tmp_path))
    assert Path(cwd).is_relative_to(folder / "runs")
    assert not os.path.lexists(temporary)
    assert Path(path).exists()
    assert not Path(cwd).exists()


def test_tasks_run_in_the_python_of_the_engine(run):
    @component
    def which() -> str:
        import sys

        return sys.prefix

    assert output(run(which), "which") == sys.prefix


# Values


def test_integers_stay_integers_also_inside_lists_and_dicts(run):
    @dsl.pipeline(name="values")
    def values(options: dict = {"a": [1, 2.5, {"b": 3}], "c": True}):  # noqa: B006
        kinds(value=options)
        kinds(value={"a": [1, 2.5]})
        chain = listed(value=[1, 2])
        listed(value=chain.output)
        decimal(value=2.0)

    record = run(values)
    assert output(record, "kinds") == '{"a": [1, 2.5, {"b": 3}], "c": true}'
    assert output(record, "kinds-2") == '{"a": [1, 2.5]}'
    found = output(record, "listed-2")
    assert (found, [type(item) for item in found]) == ([1, 2], [int, int])
    assert type(output(record, "decimal")) is float


def test_constants_that_refer_to_other_tasks_are_filled_in(run):
    @dsl.pipeline(name="texts")
    def texts(name: str = "Ann"):
        count = number(value=3)
        text(value=f"{name} has {count.output} of {dsl.PIPELINE_JOB_NAME_PLACEHOLDER}")
        kinds(value={"who": name, "n": [count.output]})

    record = run(texts, {"name": "{{$.inputs.parameters['x']}}"})
    assert output(record, "text") == "{{$.inputs.parameters['x']}} has 3 of " + record.id
    assert json.loads(output(record, "kinds")) == {"who": "{{$.inputs.parameters['x']}}", "n": [3]}


def test_artifacts_carry_their_metadata_and_are_recorded_relative_to_the_run(run):
    @dsl.pipeline(name="files")
    def files() -> Dataset:
        written = write(content="abc")
        read(data=written.output)
        return written.output

    record = run(files)
    assert output(record, "read") == "abc/3"
    found = ArtifactRecord("data", "system.Dataset", "tasks/write/outputs/data", {"length": 3})
    assert task(record, "write").outputs.artifacts == {"data": [found]}
    assert task(record, "read").inputs.artifacts == {"data": [found]}
    assert list(record.outputs.artifacts.values()) == [[found]]


def test_metrics_are_read_from_their_metadata(run):
    @component
    def measure(scores: Output[Metrics]):
        scores.log_metric("auc", 0.75)
        scores.log_metric("rows", 10)
        scores.log_metric("by", "me")

    assert task(run(measure), "measure").metrics == {"auc": 0.75, "rows": 10.0}


def test_optional_inputs_that_are_absent_are_none(run):
    @component
    def maybe(data: Optional[Input[Dataset]] = None, note: Optional[str] = None, many: int = 4) -> str:  # noqa: UP045
        return f"{data} {note} {many}"

    @dsl.pipeline(name="inner")
    def inner(note: Optional[str] = None, data: Optional[Input[Dataset]] = None) -> str:  # noqa: UP045
        return maybe(note=note, data=data).output

    @dsl.pipeline(name="optional")
    def optional(note: Optional[str] = None):  # noqa: UP045
        maybe()
        inner(note=note)
        with dsl.If(number(value=1).output == 1):
            maybe(note=note)

    record = run(optional)
    assert output(record, "maybe") == "None None 4"
    assert output(record, "inner.maybe") == "None None 4"
    assert output(record, "condition-1.maybe-2") == "None None 4"


def test_an_artifact_input_of_the_pipeline_takes_a_path(run, tmp_path):
    @component
    def show(data: Input[Dataset]) -> str:
        return open(data.path).read()

    @dsl.pipeline(name="given")
    def given(data: Input[Dataset]):
        show(data=data)

    (tmp_path / "rows").write_text("1,2")
    assert output(run(given, {"data": str(tmp_path / "rows")}), "show") == "1,2"
    with pytest.raises(PenstockError, match=r"parameter data: .*nowhere is not there"):
        run(given, {"data": str(tmp_path / "nowhere")})
    with pytest.raises(PenstockError, match=r"pipeline given needs data \(path or URI of system.Dataset\)"):
        run(given)


def test_custom_paths_and_output_paths_are_honoured(run):
    @component
    def custom(model: Output[Model], count: OutputPath(int)):
        import tempfile

        folder = tempfile.mkdtemp(dir="/tmp")
        with open(folder + "/weights", "w") as file:
            file.write("w")
        model.custom_path = folder
        with open(count, "w") as file:
            file.write("12")

    @component
    def load(model: Input[Model], count: int) -> str:
        return open(model.path + "/weights").read() * count

    @dsl.pipeline(name="paths")
    def paths():
        made = custom()
        load(model=made.outputs["model"], count=made.outputs["count"])

    assert output(run(paths), "load") == "w" * 12


def test_lineage_parameters_are_filled_in(run, monkeypatch):
    @dsl.pipeline(name="lineage")
    def lineage(spec_sha256: str = "", git_commit: str = ""):
        text(value=spec_sha256)

    record = run(lineage)
    assert output(record, "text") == record.spec_sha256
    assert record.parameters["spec_sha256"] == record.spec_sha256


# Containers


def test_container_components_run_their_command_with_placeholders(run):
    @dsl.container_component
    def join(
        name: str,
        data: Input[Dataset],
        out: Output[Dataset],
        lines: OutputPath(int),
        extra: Optional[str] = None,  # noqa: UP045
    ):
        return dsl.ContainerSpec(
            image="debian:12",
            command=[
                "sh", "-ec", 'cat "$1" > "$4"; echo "$2 $3" >> "$4"; wc -l < "$4" > "$5"', "sh", data.path,
                dsl.ConcatPlaceholder(["name=", name]),
                dsl.IfPresentPlaceholder(input_name="extra", then=[extra], else_=["none"]),
            ],
            args=[out.path, lines],
        )  # fmt: skip

    @dsl.pipeline(name="containers")
    def containers():
        written = write(content="abc\n")
        join(name="Ann", data=written.output).set_env_variable("A", "1")

    record = run(containers)
    assert output(record, "join", "lines") == 2
    assert (Path(record.folder) / "tasks/join/outputs/out").read_text() == "abc\nname=Ann none\n"


def test_the_tasks_own_variables_are_set(run):
    @component
    def variable() -> str:
        import os

        return os.environ["MODE"]

    @dsl.pipeline(name="variables")
    def variables():
        variable().set_env_variable("MODE", "fast")

    assert output(run(variables), "variable") == "fast"


# Control flow


@component
def busy(name: str) -> List[float]:  # noqa: UP006
    import time

    start = time.time()
    time.sleep(0.5)
    return [start, time.time()]


def most_at_once(record: RunRecord) -> int:
    spans = [one.outputs.parameters["Output"] for one in record.tasks if one.name.startswith("busy")]
    return max(sum(start <= moment < end for start, end in spans) for moment, _ in spans)


def test_independent_tasks_run_side_by_side_up_to_jobs(run):
    @dsl.pipeline(name="fan")
    def fan():
        for name in "abcd":
            busy(name=name)

    assert most_at_once(run(fan, jobs=4)) == 4
    assert most_at_once(run(fan, jobs=2, reuse=False)) <= 2


def test_an_integer_output_is_compared_with_a_fraction(run):
    @dsl.pipeline(name="gate")
    def gate(score: int):
        found = number(value=score)
        with dsl.If(found.output > 0.5, name="good"):
            text(value="deployed")
        with dsl.Else():
            text(value="kept")

    record = run(gate, {"score": 1})
    assert (by_name(record)["text"].state, by_name(record)["text-2"].state) == (State.SUCCEEDED, State.SKIPPED)
    record = run(gate, {"score": 0})
    assert (by_name(record)["text"].state, by_name(record)["text-2"].state) == (State.SKIPPED, State.SUCCEEDED)
    assert (
        by_name(record)["good"].condition
        == "double(int(inputs.parameter_values['pipelinechannel--number-Output'])) > 0.5"
    )


@pytest.mark.parametrize(("side", "expected"), [("heads", "H"), ("it's", "Q"), ("edge", "E")])
def test_one_of_several_branches_gives_the_value(run, side, expected):
    @dsl.pipeline(name="coin")
    def coin(side: str) -> str:
        flipped = text(value=side)
        with dsl.If(flipped.output == "heads"):
            one = text(value="H")
        with dsl.Elif(flipped.output != "edge"):
            two = text(value="Q")
        with dsl.Else():
            three = text(value="E")
        return text(value=dsl.OneOf(one.output, two.output, three.output)).output

    record = run(coin, {"side": side})
    assert record.state is State.SUCCEEDED
    assert record.outputs.parameters == {"Output": expected}


def test_one_of_several_branches_gives_the_artifact(run):
    @dsl.pipeline(name="either")
    def either(first: bool) -> str:
        chosen = number(value=1)
        with dsl.If(first == True):  # noqa: E712 it makes a condition
            one = write(content="one")
        with dsl.Else():
            two = write(content="other")
        chosen.after(one)
        return read(data=dsl.OneOf(one.outputs["data"], two.outputs["data"])).output

    record = run(either, {"first": True})
    assert record.outputs.parameters == {"Output": "one/3"}
    record = run(either, {"first": False})
    assert record.outputs.parameters == {"Output": "other/5"}


def test_what_comes_after_a_skipped_task_is_skipped_unless_it_ignores_that(compiled, tmp_path):
    @dsl.pipeline(name="skips")
    def skips():
        with dsl.If(number(value=1).output > 2):
            text(value="inner")
        after = text(value="after")
        text(value="further").after(after)
        text(value="anyway")

    def depend(spec: dict) -> None:
        tasks = spec["root"]["dag"]["tasks"]
        tasks["text-2"]["dependentTasks"] = tasks["text-4"]["dependentTasks"] = ["condition-1"]
        tasks["text-4"]["triggerPolicy"] = {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}

    spec = edited(compiled, skips, depend, tmp_path)
    record = local.run(spec, {}, root=tmp_path, jobs=2)
    assert record.state is State.SUCCEEDED
    assert states(record) == {
        "number": "SUCCEEDED", "condition-1": "SKIPPED", "condition-1.text": "SKIPPED", "text-2": "SKIPPED",
        "text-3": "SKIPPED", "text-4": "SUCCEEDED",
    }  # fmt: skip


def test_nested_pipelines_take_inputs_and_give_outputs(run):
    @dsl.pipeline(name="inner")
    def inner(value: int, factor: int = 2) -> NamedTuple("Outputs", [("value", int), ("data", Dataset)]):
        first = number(value=value)
        written = write(content=f"{first.output}-{factor}")
        return NamedTuple("Outputs", [("value", int), ("data", Dataset)])(first.output, written.outputs["data"])

    @dsl.pipeline(name="outer")
    def outer() -> str:
        made = inner(value=number(value=7).output)
        number(value=made.outputs["value"])
        return read(data=made.outputs["data"]).output

    record = run(outer)
    assert record.outputs.parameters == {"Output": "7-2/3"}
    assert output(record, "number-2") == 7
    assert output(record, "inner", "value") == 7
    assert task(record, "inner").kind == "dag"


def test_loops_run_their_body_for_each_item_and_collect(run):
    @component
    def total(numbers: List[int]) -> int:  # noqa: UP006
        return sum(numbers)

    @component
    def joined(data: Input[List[Dataset]]) -> str:  # noqa: UP006
        return ",".join(open(one.path).read() for one in data)

    @dsl.pipeline(name="loops")
    def loops(names: List[str] = ["a", "b"]) -> int:  # noqa: UP006, B006
        base = number(value=10)
        with dsl.ParallelFor([1, 2, 3], parallelism=2) as item:
            each = number(value=item)
            text(value=f"{base.output}+{item}")
        with dsl.ParallelFor(names) as name:
            made = write(content=name)
            with dsl.ParallelFor([{"n": 1}, {"n": 2}]) as inner:
                deep = number(value=inner.n)
        with dsl.ParallelFor(listed(value=[]).output) as nothing:
            none = number(value=nothing)
        joined(data=dsl.Collected(made.outputs["data"]))
        total(numbers=dsl.Collected(deep.output))
        total(numbers=dsl.Collected(none.output))
        return total(numbers=dsl.Collected(each.output)).output

    record = run(loops)
    assert record.state is State.SUCCEEDED, record.error
    assert record.outputs.parameters == {"Output": 6}
    assert output(record, "joined") == "a,b"
    assert task(record, "total").inputs.parameters["numbers"] == [1, 2, 1, 2]
    assert output(record, "total-2") == 0
    bodies = sorted(one.outputs.parameters["Output"] for one in record.tasks if one.name == "text")
    assert bodies == ["10+1", "10+2", "10+3"]


def test_a_loop_with_an_item_that_does_not_fit_fails_before_any_iteration_begins(compiled, tmp_path):
    @dsl.pipeline(name="misfit")
    def misfit():
        with dsl.ParallelFor([1, 2]) as item:
            number(value=item)

    def change(spec: dict) -> None:
        spec["root"]["dag"]["tasks"]["for-loop-2"]["parameterIterator"]["items"]["raw"] = '[1, "x"]'

    record = local.run(edited(compiled, misfit, change, tmp_path), {}, root=tmp_path / "root", jobs=2)
    assert states(record) == {"for-loop-2": "FAILED"}
    assert record.error == "for-loop-2: input 'pipelinechannel--loop-item-param-1': expected an integer, got text: 'x'"


def test_a_loop_runs_no_more_iterations_at_once_than_it_may(run):
    @dsl.pipeline(name="limit")
    def limit():
        with dsl.ParallelFor(["a", "b", "c", "d"], parallelism=2) as name:
            busy(name=name)

    assert most_at_once(run(limit, jobs=4)) <= 2


def test_an_exit_task_hears_how_it_ended_and_the_run_still_fails(run):
    @dsl.pipeline(name="handled")
    def handled():
        with dsl.ExitHandler(final()):
            fail(message="no disk")

    record = run(handled)
    assert record.state is State.FAILED
    assert output(record, "final") == "exit-handler-1 FAILED ValueError: no disk"

    @dsl.pipeline(name="handled")
    def fine():
        with dsl.ExitHandler(final()):
            number(value=1)

    assert output(run(fine), "final").startswith("exit-handler-1 COMPLETE")


def test_a_task_that_ignores_failure_upstream_runs_with_its_default(run):
    @dsl.pipeline(name="ignore")
    def ignore():
        failed = fail()
        number_or(value=failed.output).ignore_upstream_failure()

    record = run(ignore)
    assert output(record, "number-or") == -1
    assert record.state is State.FAILED


def test_retries_are_made(run, tmp_path):
    @component
    def flaky(marks: str) -> int:
        import os

        os.makedirs(marks, exist_ok=True)
        count = len(os.listdir(marks)) + 1
        open(f"{marks}/{count}", "w").close()
        if count < 3:
            raise RuntimeError("not yet")
        return count

    @dsl.pipeline(name="retries")
    def retries(marks: str):
        flaky(marks=marks).set_retry(3, backoff_duration="0s")

    record = run(retries, {"marks": str(tmp_path / "marks")})
    assert output(record, "flaky") == 3


def test_importers_take_local_files_as_they_lie(run, tmp_path):
    @component
    def size(data: Input[Artifact]) -> str:
        return f"{open(data.path).read()} {data.metadata['by']} {data.metadata['n']}"

    @dsl.pipeline(name="imports")
    def imports(uri: str):
        data = dsl.importer(artifact_uri=uri, artifact_class=Dataset, metadata={"by": "me", "n": 3})
        size(data=data.output)

    (tmp_path / "rows").write_text("1,2")
    assert output(run(imports, {"uri": str(tmp_path / "rows")}), "size") == "1,2 me 3"
    record = run(imports, {"uri": "ftp://host/rows"})
    assert record.state is State.FAILED
    assert "importer: ftp://host/rows: unknown scheme ftp://" in record.error


def test_importers_fetch_what_lies_on_a_server(run, tmp_path):
    import http.server
    import threading

    @component
    def size(data: Input[Dataset]) -> str:
        return f"{open(data.path).read()} {data.metadata['by']}"

    @dsl.pipeline(name="imports")
    def imports(uri: str):
        data = dsl.importer(artifact_uri=uri, artifact_class=Dataset, metadata={"by": "me"})
        size(data=data.output)

    (tmp_path / "rows.csv").write_text("1,2")
    handler = lambda *args: http.server.SimpleHTTPRequestHandler(*args, directory=str(tmp_path))  # noqa: E731
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}/rows.csv"
        first, second = run(imports, {"uri": uri}), run(imports, {"uri": uri})
        assert output(first, "size") == "1,2 me"
        assert task(first, "importer").outputs.artifacts["artifact"][0].uri.startswith("tasks/importer/outputs/")
        assert (task(second, "size").reused, task(second, "importer").reused) == (f"{first.id}/size", None)
        missing = run(imports, {"uri": uri + ".gone"})
        assert missing.state is State.FAILED
        assert "rows.csv.gone" in missing.error
        server.shutdown()


def test_tasks_share_a_workspace(run, tmp_path):
    @component
    def put(folder: str):
        with open(f"{folder}/shared", "w") as file:
            file.write("here")

    @component
    def get(folder: str, data: Input[Dataset]) -> str:
        assert data.path.startswith(folder)
        return open(f"{folder}/shared").read() + open(data.path).read()

    (tmp_path / "rows").write_text("1,2")

    @dsl.pipeline(name="shared", pipeline_config=dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size="1Gi")))
    def shared(uri: str):
        data = dsl.importer(artifact_uri=uri, artifact_class=Dataset, download_to_workspace=True)
        before = put(folder=dsl.WORKSPACE_PATH_PLACEHOLDER)
        get(folder=dsl.WORKSPACE_PATH_PLACEHOLDER, data=data.output).after(before)

    record = run(shared, {"uri": str(tmp_path / "rows")})
    assert output(record, "get") == "here1,2"
    assert (Path(record.folder) / "workspace" / "shared").exists()


def test_a_component_is_told_its_task_configuration(run):
    @dsl.component(
        base_image="python:3.11",
        install_kfp_package=False,
        task_config_passthroughs=[dsl.TaskConfigField.RESOURCES, dsl.TaskConfigField.ENV],
    )
    def told(config: dsl.TaskConfig) -> str:
        import json

        return json.dumps([config.resources, config.env, config.tolerations])

    @dsl.pipeline(name="telling")
    def telling(cpu: str = "2"):
        told().set_cpu_limit(cpu).set_memory_request("1G").set_env_variable("A", "b")

    assert json.loads(output(run(telling), "told")) == [
        {"requests": {"memory": "1G"}, "limits": {"cpu": "2"}}, [{"name": "A", "value": "b"}], None,
    ]  # fmt: skip


# Failures


def test_a_failing_task_fails_the_run_and_stops_only_what_depends_on_it(run):
    @dsl.pipeline(name="failing")
    def failing():
        bad = fail(message="no\nluck")
        number(value=bad.output)
        text(value="x").after(bad)
        other = number(value=2)
        number(value=other.output)

    record = run(failing, jobs=1)
    assert record.state is State.FAILED
    assert states(record) == {
        "fail": "FAILED", "number": "CANCELLED", "text": "CANCELLED", "number-2": "SUCCEEDED", "number-3": "SUCCEEDED",
    }  # fmt: skip
    assert task(record, "fail").error == "ValueError: no luck"
    assert task(record, "fail").exit_code == 1
    assert task(record, "number").error == "not run: fail failed"
    assert record.error == "ValueError: no luck"
    assert "Traceback" in (Path(record.folder) / "tasks/fail/log.txt").read_text()


def test_a_users_mistake_shows_the_components_own_line(run):
    @component
    def strict():
        import sys

        print("reading", flush=True)
        print("error: ingest: source: is empty. Give rows.", file=sys.stderr)
        sys.exit(65)

    record = run(strict)
    assert (task(record, "strict").error, task(record, "strict").exit_code) == (
        "ingest: source: is empty. Give rows.",
        65,
    )


@component
def unwritten(data: Output[Dataset]):
    pass


@component
def empty(data: Output[Dataset]):
    import os

    os.mkdir(data.path)


@component
def not_a_number() -> float:
    return float("nan")


@component
def too_big() -> int:
    return 2**53


@component
def deep_nan() -> dict:
    return {"a": [float("inf")]}


@component
def no_parameter(count: OutputPath(int)):
    pass


TOO_BIG = "too-big: output 'Output': 9007199254740992 is beyond 2^53-1, which no KFP backend can hold; give it as text"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (unwritten, "unwritten: output 'data': is declared but nothing was written to its path"),
        (empty, "empty: output 'data': is an empty folder"),
        (not_a_number, "not-a-number: output 'Output': nan is not a finite number"),
        (too_big, TOO_BIG),
        (deep_nan, "deep-nan: output 'Output': inf is not a finite number"),
        (no_parameter, "no-parameter: output 'count': is declared but was not written"),
    ],
    ids=lambda value: getattr(value, "name", None),
)  # fmt: skip
def test_outputs_that_break_the_boundary_fail_their_task(run, what, message):
    record = run(what)
    (only,) = record.tasks
    assert (only.state, only.error) == (State.FAILED, message)
    assert not (Path(record.folder) / "tasks" / only.path / "outputs").exists()


def test_inputs_without_a_value_fail_their_task_naming_the_input(compiled, tmp_path):
    @dsl.pipeline(name="hole")
    def hole():
        number_or(value=fail().output).ignore_upstream_failure()

    def require(spec: dict) -> None:
        port = spec["components"]["comp-number-or"]["inputDefinitions"]["parameters"]["value"]
        del port["defaultValue"], port["isOptional"]

    record = local.run(edited(compiled, hole, require, tmp_path), {}, root=tmp_path, jobs=2)
    assert task(record, "number-or").error == "number-or: input 'value': has no value"


# Refusals


def test_a_condition_that_does_not_parse_is_refused_before_anything_runs(compiled, tmp_path):
    @dsl.pipeline(name="gate")
    def gate(name: str = "x"):
        number(value=1)
        with dsl.If(name == "it's", name="quoted"):
            number(value=2)

    with pytest.raises(PenstockError, match=r"task condition-1: condition that does not parse .*character"):
        local.run(compiled(gate), {}, root=tmp_path / "root", jobs=1)
    assert not (tmp_path / "root").exists()


def test_missing_parameters_and_jobs_are_refused_before_anything_runs(run, tmp_path):
    @dsl.pipeline(name="needs")
    def needs(rows: int, name: str):
        number(value=rows)
        text(value=name)

    with pytest.raises(PenstockError, match=r"needs name \(STRING\), rows \(NUMBER_INTEGER\)"):
        run(needs)
    with pytest.raises(PenstockError, match="--jobs 0"):
        run(needs, {"rows": 1, "name": "x"}, jobs=0)
    assert not (tmp_path / "root").exists()


def test_a_run_whose_images_cannot_be_had_leaves_nothing(compiled, tmp_path, monkeypatch):
    from penstock.compile.targets.local import containers

    class Refusing(containers.Containers):
        def __enter__(self):
            raise PenstockError("images that cannot be had: python:3.11")

    monkeypatch.setattr(containers, "available", lambda: None)
    monkeypatch.setattr(containers, "Containers", Refusing)
    with pytest.raises(PenstockError, match="images that cannot be had"):
        local.run(compiled(number), {"value": 1}, root=tmp_path / "root", jobs=1, runner="docker")
    assert list((tmp_path / "root/runs").iterdir()) == []


def test_images_of_branches_are_not_asked_for_before_they_run(compiled, tmp_path, monkeypatch):
    from penstock.compile.targets.local import containers

    @dsl.pipeline(name="branches")
    def branches(large: bool):
        number(value=1)
        with dsl.If(large == True):  # noqa: E712
            number(value=2).set_container_image("elsewhere:1")

    class Noting(containers.Containers):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def prepare(self, images, tell=None):
            raise PenstockError(f"asked for {', '.join(images)}.")

    monkeypatch.setattr(containers, "available", lambda: None)
    monkeypatch.setattr(containers, "Containers", Noting)
    with pytest.raises(PenstockError, match=r"asked for python:3\.11\.$"):
        local.run(compiled(branches), {"large": True}, root=tmp_path / "root", jobs=1, runner="docker")


def test_an_observer_that_raises_ends_the_run_and_its_record(compiled, tmp_path):
    @dsl.pipeline(name="watched")
    def watched():
        busy(name="a")

    def observe(record: RunRecord) -> None:
        if states(record)["busy"] == "RUNNING":
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        local.run(compiled(watched), {}, root=tmp_path, jobs=1, observe=observe)
    (folder,) = (tmp_path / "runs").iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert (record["state"], record["tasks"][0]["state"]) == ("CANCELLED", "CANCELLED")


def test_a_record_that_cannot_be_kept_ends_the_run(compiled, tmp_path):
    def observe(record: RunRecord) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(PenstockError, match=r"record cannot be kept: .*No space left"):
        local.run(compiled(number), {"value": 1}, root=tmp_path, jobs=1, observe=observe)


def test_names_too_long_for_a_folder_are_shortened(run):
    @dsl.pipeline(name="n" * 110)
    def innermost():
        number(value=1)

    @dsl.pipeline(name="m" * 110)
    def middle():
        innermost()

    @dsl.pipeline(name="long")
    def outermost():
        middle()

    record = run(outermost)
    assert record.state is State.SUCCEEDED
    leaf = next(one for one in record.tasks if one.kind == "container")
    assert len(leaf.path) > 200
    assert (Path(record.folder) / leaf.log).exists()


# Against others


@pytest.mark.slow
def test_kfp_local_gives_the_same_outputs(run, tmp_path):
    import kfp.local

    @dsl.pipeline(name="parity")
    def parity(start: int = 3) -> str:
        first = number(value=start)
        written = write(content=f"it is {text(value='good').output}")
        with dsl.If(first.output == 3):
            chosen = text(value="three")
        with dsl.Else():
            other = text(value="many")
        text(value=dsl.OneOf(chosen.output, other.output))
        return content(data=written.outputs["data"]).output

    ours = run(parity)
    kfp.local.init(
        runner=kfp.local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "kfp"), raise_on_error=True
    )
    theirs = parity(start=3)
    assert ours.outputs.parameters == theirs.outputs == {"Output": "it is good"}
