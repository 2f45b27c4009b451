"""A converted job gives what the local engine gives: states, values, files, and which task failed."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from kfp import compiler, dsl
from kfp.dsl import Dataset, Output

from penstock.compile import from_kfp, launcher
from penstock.compile.cli import penstock
from penstock.compile.errors import PenstockError
from penstock.compile.targets import local
from penstock.compile.targets.azureml import convert, emit, plan, rehearsal
from penstock.compile.targets.azureml.options import parse
from tests.compile.rich import rich
from tests.compile.targets.azureml.parity import compared, differences
from tests.compile.targets.local.test_corpus import FAIL, PARAMETERS, SUCCEED, given


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def give(rows: int = 1) -> list:
    return list(range(rows))


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def fail(rows: int = 1) -> int:
    raise ValueError(f"{rows} rows are too few")


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def add(one: int = 0, other: int = 1) -> int:
    return one + other


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def tell(status: dsl.PipelineTaskFinalStatus) -> str:
    return f"{status.state} {status.pipeline_task_name} {status.error_message}"


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def save(text: str, data: Output[Dataset]):
    with open(data.path, "w") as file:
        file.write(text)


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def length(values: list) -> int:
    return len(values)


@pytest.fixture
def same(tmp_path, compiled):
    """Return a function that says where the two differ about a pipeline."""

    def same_as(what, values=None, **options) -> list[str]:
        return differences(compiled(what), tmp_path, values, parse(options))

    return same_as


def test_a_bit_of_everything(compiled, tmp_path):
    spec, data = compiled(rich), tmp_path / "trips"
    data.write_text("trips")
    spec.write_text(spec.read_text().replace("gs://bucket/trips", str(data)))
    assert differences(spec, tmp_path, {"rows": 2}, parse({"max_iterations": 4, "has_python": ["*"]})) == []


def test_a_failure_and_the_exit_task_that_hears_of_it(same, tmp_path):
    @dsl.pipeline(name="p")
    def pipeline(rows: int = 3):
        with dsl.ExitHandler(tell(), name="guarded"):
            first = fail(rows=rows).set_retry(1, backoff_duration="0s")
            add(one=first.output)
            give(rows=rows)
        add(one=rows)

    assert same(pipeline) == []


def test_a_failure_stops_what_needs_it_and_nothing_else(same):
    @dsl.pipeline(name="p")
    def pipeline():
        bad = fail()
        add(one=bad.output)
        add(one=1).after(give(rows=1))
        add(one=2, other=3).after(bad).ignore_upstream_failure()

    assert same(pipeline) == []


def test_branches_loops_and_what_they_collect(same):
    @dsl.pipeline(name="p")
    def pipeline(sizes: list = [1, 2]) -> int:  # noqa: B006 kfp copies it
        found = give(rows=3)
        with dsl.ParallelFor(found.output, parallelism=1) as item:
            with dsl.If(item == "1"):
                one = save(text=item)
            with dsl.Else():
                two = save(text="other")
            dsl.OneOf(one.outputs["data"], two.outputs["data"])
            kept = add(other=2)
        with dsl.ParallelFor(sizes) as size, dsl.If(size == "2"):
            add(other=3)
        return length(values=dsl.Collected(kept.output)).output

    assert same(pipeline, {"sizes": [1, 2, 3]}, max_iterations=4) == []


def test_more_items_than_the_job_was_converted_for_fail_it(compiled, tmp_path):
    @dsl.pipeline(name="p")
    def pipeline(rows: int = 3) -> list:
        with dsl.ParallelFor(give(rows=rows).output) as item:
            kept = add(other=1)
            save(text=item)
        return dsl.Collected(kept.output)

    done = convert.convert(from_kfp.read(compiled(pipeline)), {}, parse({"max_iterations": 2}))
    convert.write(done, tmp_path / "job")
    record = rehearsal.run(tmp_path / "job" / "job.yml", root=tmp_path, jobs=2)
    assert record.state == "Failed"
    log = tmp_path / "azureml-runs" / record.id / "steps" / "for_loop_1__0__add" / "log.txt"
    assert "its loop has 3 items, and the job was converted for at most 2" in log.read_text()
    fewer = rehearsal.run(tmp_path / "job" / "job.yml", root=tmp_path, jobs=2, inputs={"rows": "1"})
    assert fewer.state == "Completed"
    assert fewer.outputs == {"Output": [1]}
    assert fewer.tasks["for-loop-1.1.add"].state == "ABSENT"


def test_steps_between_carry_what_is_more_than_a_step_can_take(same, monkeypatch):
    monkeypatch.setattr(plan, "MOST_INPUTS", 6)
    monkeypatch.setattr(plan, "GATHERED", 3)
    monkeypatch.setattr(emit, "GATHERED", 3)

    @dsl.pipeline(name="p")
    def pipeline() -> list:
        with dsl.ParallelFor([1, 2, 3, 4, 5, 6], parallelism=2) as item:
            with dsl.If(item != 4):
                save(text="a")
            given = add(one=item)
        length(values=dsl.Collected(given.output)).after(save(text="b"))
        return dsl.Collected(given.output)

    assert same(pipeline) == []


def test_what_importers_alone_give(same, tmp_path):
    (tmp_path / "rows.csv").write_text("a,b")

    @dsl.pipeline(name="p")
    def pipeline(where: str) -> Dataset:
        return dsl.importer(artifact_uri=where, artifact_class=Dataset, reimport=False, metadata={"rows": 1}).output

    assert same(pipeline, {"where": str(tmp_path / "rows.csv")}) == []


def test_a_step_that_hangs_is_ended(compiled, tmp_path):
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def sleep():
        import time

        time.sleep(60)

    @dsl.pipeline(name="p")
    def pipeline():
        add(one=1).after(sleep())

    convert.write(convert.convert(from_kfp.read(compiled(pipeline))), tmp_path / "job")
    begin = time.monotonic()
    record = rehearsal.run(tmp_path / "job" / "job.yml", root=tmp_path, jobs=2, timeout=2)
    assert time.monotonic() - begin < 30
    assert record.state == "Canceled"
    assert {step.name: step.state for step in record.steps} == {"add": "NotStarted", "sleep": "Canceled"}


def test_a_job_that_is_ended_runs_no_exit_task_as_the_local_engine_does(compiled, tmp_path):
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def sleep():
        import time

        time.sleep(60)

    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.ExitHandler(tell(), name="guarded"):
            add(one=1).after(sleep())

    spec = compiled(pipeline)
    convert.write(convert.convert(from_kfp.read(spec)), tmp_path / "job")
    how = {"jobs": 2, "run_id": "ended", "timeout": 2}
    theirs = local.run(spec, {}, root=tmp_path / "local", runner="subprocess", **how)
    ours = rehearsal.run(tmp_path / "job", root=tmp_path, **how)
    assert (ours.state, ours.error) == ("Canceled", "took too long: ended after 2 s")
    assert {step.name: step.state for step in ours.steps} == {
        "exit_handler_1__add": "NotStarted", "exit_handler_1__sleep": "Canceled", "penstock_verdict": "NotStarted",
        "tell": "NotStarted",
    }  # fmt: skip
    assert compared(ours, theirs) == []


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda job: (job / "job.yml").unlink(), "is no converted job; give the folder"),
        (lambda job: (job / "pipeline.yml").write_text("a: ["), "is not sound: pipeline.yml: not YAML"),
        (lambda job: (job / "pipeline.yml").write_text("jobs: 3"), "it is not as penstock convert writes jobs"),
        (lambda job: (job / "code/add/step.json").write_text("{"), "it is not as penstock convert writes jobs"),
        (lambda job: (job / "components/add.yml").unlink(), "is not sound: components/add.yml is not there"),
    ],
)
def test_a_folder_that_is_no_sound_job_is_refused_in_one_line(compiled, tmp_path, break_it, words):
    @dsl.pipeline(name="p")
    def pipeline():
        add(one=1)

    convert.write(convert.convert(from_kfp.read(compiled(pipeline))), tmp_path / "job")
    break_it(tmp_path / "job")
    with pytest.raises(PenstockError) as caught:
        rehearsal.run(tmp_path / "job", root=tmp_path / "out", jobs=1)
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_whoever_watches_is_told_of_every_step_and_may_end_the_job(compiled, tmp_path):
    @dsl.pipeline(name="p")
    def pipeline():
        add(one=2).after(add(one=1))

    convert.write(convert.convert(from_kfp.read(compiled(pipeline))), tmp_path / "job")
    told, stop = [], launcher.Stop()

    def observe(record):
        told.append((record.state, *(step.state for step in record.steps)))
        if record.steps[1].state == "Completed":
            stop.request()

    record = rehearsal.run(tmp_path / "job", root=tmp_path, jobs=2, observe=observe, stop=stop)
    assert told == [
        ("Running", "NotStarted", "Running"),
        ("Running", "NotStarted", "Completed"),
        ("Running", "NotStarted", "Completed"),
        ("Canceled", "NotStarted", "Completed"),
    ]
    assert (record.state, record.tasks["add-2"].parameters) == ("Canceled", {"Output": 2})


def test_an_interrupted_rehearsal_leaves_nothing_running(compiled, tmp_path):
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def sleep(where: str):
        import os
        import time

        with open(where, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(120)

    @dsl.pipeline(name="p")
    def pipeline(where: str):
        sleep(where=where)

    pid = tmp_path / "pid"
    convert.write(convert.convert(from_kfp.read(compiled(pipeline)), {"where": str(pid)}), tmp_path / "job")
    command = [sys.executable, "-m", "penstock.compile.cli", "run", str(tmp_path / "job" / "job.yml")]
    process = subprocess.Popen([*command, "--target", "azureml-local", "--root", str(tmp_path)])
    for _ in range(600):
        if pid.is_file() and pid.read_text():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    (record,) = (tmp_path / "azureml-runs").glob("*/run.json")
    assert json.loads(record.read_text())["state"] == "Canceled"
    state = subprocess.run(["ps", "-o", "stat=", "-p", pid.read_text()], capture_output=True, text=True).stdout.strip()
    assert state[:1] in ("", "Z")  # nobody may have taken note of its end, but it has ended


def decided(value):
    """Return a spec in which every throw of a die gives 1."""
    if isinstance(value, dict):
        return {key: decided(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decided(item) for item in value]
    return re.sub(r"random\.randint\([^)]*\)", "1", value) if isinstance(value, str) else value


def test_the_command_shows_what_became_of_a_job(compiled, tmp_path):
    @dsl.pipeline(name="p")
    def pipeline(rows: int = 3) -> int:
        with dsl.If(rows > 5):
            give(rows=rows)
        return add(one=rows, other=1).output

    convert.write(convert.convert(from_kfp.read(compiled(pipeline))), tmp_path / "job")
    job = tmp_path / "job" / "job.yml"

    def call(*arguments: object):
        line = ["run", *map(str, arguments), "--target", "azureml-local", "--root", str(tmp_path / "out")]
        return CliRunner().invoke(penstock, line, prog_name="penstock")

    done = call(job, "-p", "rows=4", "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert (record["state"], record["outputs"]) == ("Completed", {"Output": 5})
    assert record["tasks"]["condition-1.give"]["state"] == "SKIPPED"
    shown = call(job)
    assert "give: skipped: not (int(rows) > 5)" in shown.stderr
    assert shown.stdout.split()[:6] == ["step", "output", "value", "add", "Output", "4"]
    assert "Completed in" in shown.stdout
    assert "condition-1.give" in (Path(record["folder"]) / "report.html").read_text()
    unknown = call(job, "-p", "row=4")
    assert unknown.exit_code == 2
    assert "there is no input row; there are rows" in unknown.stderr
    for what in (job, job.parent):
        wrong = CliRunner().invoke(penstock, ["run", str(what)], prog_name="penstock")
        assert wrong.exit_code == 2
        assert f"is a job that was converted for Azure ML: penstock run {what} --target azureml-local" in wrong.stderr
    (tmp_path / "job" / "components" / "add.yml").unlink()
    assert "is not sound: components/add.yml is not there" in call(job).stderr


def test_what_needs_its_image_is_not_run_without_it(compiled, tmp_path):
    @dsl.component(base_image="python:3.11", packages_to_install=["numpy<2"])
    def compute():
        pass

    @dsl.pipeline(name="p")
    def pipeline():
        compute()

    convert.write(convert.convert(from_kfp.read(compiled(pipeline))), tmp_path / "job")
    with pytest.raises(PenstockError, match="task compute installs numpy<2, into this Python; use --runner docker"):
        rehearsal.run(tmp_path / "job" / "job.yml", root=tmp_path / "out", jobs=1)
    assert not (tmp_path / "out").exists()


# What the local engine takes of them and the conversion refuses.
REFUSED = {
    "valid/create_pod_metadata_complex": "asks for its pod's labels",
    "valid/critical/modelcar": "imports a model from an image",
    "valid/critical/pipeline_with_pod_metadata": "asks for its pod's labels",
    "valid/critical/pipeline_with_volume_long_name": "makes a volume",
    "valid/parallel_and_nested/nested_parallel_for_secret": "takes Secrets of a cluster",
    "valid/pipeline_with_string_machine_fields_task_output": "takes its CPUs from another task",
    "valid/pipeline_with_volume_no_cache": "makes a volume",
}
# What has to fail fails in both, of the same task and with the same words.
FAILING = [name for name in FAIL if name.startswith("valid/")]
SETTINGS = parse({"max_iterations": 5, "machines": [{"accelerator": "*", "count": 8, "compute": "gpu"}]})


@pytest.mark.corpus
@pytest.mark.parametrize("name", [*(name for name in SUCCEED if name.startswith("valid/")), *FAILING])
def test_pipelines_of_others(kfp_specs, tmp_path, name):
    """Jobs give what the local engine gives, which is held to kfp.local."""
    values, inputs = given(name, tmp_path), None
    if PARAMETERS.get(name, {}).get("counter_path") == "NEW":  # it counts its attempts there: each run has its own
        inputs = {"counter_path": str(tmp_path / "newer")}
    spec = tmp_path / "spec.yaml"
    # Coins fall as they like; here both runs see the same side.
    spec.write_text(yaml.safe_dump_all(map(decided, yaml.safe_load_all((kfp_specs / f"{name}.yaml").read_text()))))
    done = convert.convert(from_kfp.read(spec), values, SETTINGS)
    assert done.refused == (name in REFUSED), [str(found) for found in done.findings]
    if not done.refused:
        assert differences(spec, tmp_path, values, SETTINGS, inputs=inputs) == []


def test_compiled_twice_gives_the_same_run(tmp_path):
    @dsl.pipeline(name="p")
    def pipeline():
        give(rows=2)

    records = []
    for name in ("a", "b"):
        compiler.Compiler().compile(pipeline, str(tmp_path / f"{name}.yaml"))
        convert.write(convert.convert(from_kfp.read(tmp_path / f"{name}.yaml")), tmp_path / name)
        records.append(rehearsal.run(tmp_path / name / "job.yml", root=tmp_path, jobs=1, run_id=name))
    assert records[0].tasks == records[1].tasks
