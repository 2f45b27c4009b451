"""A task whose image has sh and no Python gives what the local engine gives, and its texts stay texts."""

import json
import os
import shutil
import subprocess

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kfp import dsl, kubernetes
from kfp.dsl import Artifact, Dataset, Input, Output, OutputPath

from penstock.compile.findings import Severity
from penstock.compile.targets.azureml import convert, rehearsal, step
from penstock.compile.targets.azureml.options import parse
from tests.compile.targets.azureml.parity import differences
from tests.compile.targets.azureml.shells import SHELLS, shell_called_sh

EVIL = "'\"; touch OWNED; `touch OWNED` $(touch OWNED) $HOME ${PATH} \\\\ \\' * ~ # !x\n\tPENSTOCK\n @@p0@@ é\n\n"
SAY = 'printf %s "$0" >"$1"; echo "said $VOICE"; printf %s "$VOICE" >"$2"'


@dsl.container_component
def say(text: str, data: Output[Dataset], voice: OutputPath(str)):
    return dsl.ContainerSpec(image="busybox:1.36", command=["sh", "-c", SAY], args=[text, data.path, voice])


@dsl.container_component
def count(data: Input[Dataset], number: OutputPath(int), unit: str = "c", note: str = None):  # noqa: RUF013
    return dsl.ContainerSpec(
        image="alpine",
        command=["sh", "-c", 'wc "-$0" <"$1" >"$2"; echo "$@"'],
        args=[
            unit,
            data.path,
            number,
            dsl.ConcatPlaceholder(["unit=", unit]),
            dsl.IfPresentPlaceholder(input_name="note", then=["--note", note], else_=["--none"]),
        ],
    )


@dsl.container_component
def tell(values: list, said: OutputPath(str)):
    return dsl.ContainerSpec(image="alpine", command=["sh", "-c", 'printf "%s" "$0" >"$1"'], args=[values, said])


@dsl.container_component
def fail(number: int):
    return dsl.ContainerSpec(image="alpine", command=["sh", "-c", 'echo "error: $0 is too many" >&2; exit 65'],
                             args=[number])  # fmt: skip


@dsl.container_component
def describe(data: Input[Artifact], report: Output[Artifact], lines: OutputPath(list)):
    return dsl.ContainerSpec(
        image="alpine",
        command=["sh", "-c", 'mkdir -p "$1"; cp "$0" "$1/part"; echo "[1, 2]" >"$2"; printf %s "$3" >"$1/input"'],
        args=[data.path, report.path, lines, "{{$.inputs.artifacts['data'].metadata}}"],
    )


@dsl.container_component
def hang():
    return dsl.ContainerSpec(image="alpine", command=["sh", "-c", "echo begun; exec sleep 60"])


@pytest.fixture(params=SHELLS)
def same(request, tmp_path, compiled, monkeypatch):
    """Return a function that says where the two differ about a pipeline, run with each shell."""
    (tmp_path / "bin").mkdir()
    shell_called_sh(request.param, tmp_path / "bin")
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]))

    def same_as(what, values=None, **options) -> list[str]:
        return differences(compiled(what), tmp_path, values, parse(options))

    return same_as


def test_what_is_decided_resolved_and_collected_is_what_the_local_engine_has(same, tmp_path):
    @dsl.pipeline(name="p")
    def pipeline(text: str, sizes: list = ["l", "w"]) -> int:  # noqa: B006 kfp copies it
        said = say(text=text).set_env_variable("VOICE", 'it\'s $(id) "loud"')
        counted = count(data=said.outputs["data"])
        with dsl.If(counted.outputs["number"] > 3, name="many"):
            one = count(data=said.outputs["data"], unit="w")
        with dsl.Else(name="few"):
            other = count(data=said.outputs["data"], unit="l", note=text)
        dsl.OneOf(one.outputs["number"], other.outputs["number"])
        with dsl.ParallelFor(sizes) as size:
            each = count(data=said.outputs["data"], unit=size)
        tell(values=dsl.Collected(each.outputs["number"]))
        describe(data=said.outputs["data"])
        return counted.outputs["number"]

    assert same(pipeline, {"text": EVIL}) == []
    assert not list(tmp_path.rglob("OWNED"))


def test_failures_retries_and_who_runs_all_the_same_are_those_of_the_local_engine(same, converted, tmp_path):
    @dsl.container_component
    def third(folder: str, number: OutputPath(int)):
        script = 'echo x >>"$0/tries"; [ "$(wc -l <"$0/tries")" -ge 3 ] || exit 4; echo 3 >"$1"'
        return dsl.ContainerSpec(image="alpine", command=["sh", "-c", script], args=[folder, number])

    @dsl.pipeline(name="p")
    def pipeline(text: str):
        with dsl.ExitHandler(say(text=text).set_display_name("bye")):
            tell(values=[1]).after(fail(number=7))
        bad = fail(number=8).set_retry(1, backoff_duration="0s")
        tell(values=["a"]).after(bad).ignore_upstream_failure()
        tell(values=["b"]).after(bad)

    assert same(pipeline, {"text": EVIL}) == []

    @dsl.pipeline(name="p")
    def trying(folder: str) -> int:
        return third(folder=folder).set_retry(3, backoff_duration="0s").outputs["number"]

    folder = tmp_path / "tries"
    folder.mkdir()
    convert.write(converted(trying, {"folder": str(folder)}), tmp_path / "again")
    record = rehearsal.run(tmp_path / "again" / "job.yml", root=tmp_path, jobs=2)
    assert (record.state, record.outputs) == ("Completed", {"Output": 3})
    assert (folder / "tries").read_text() == "x\n" * 3


def test_a_command_that_takes_too_long_is_ended_and_said_to_be(same):
    @dsl.pipeline(name="p")
    def pipeline():
        kubernetes.set_timeout(hang(), 1)

    assert same(pipeline) == []


def test_a_command_that_is_not_there_fails_its_task(converted, tmp_path):
    @dsl.container_component
    def missing():
        return dsl.ContainerSpec(image="alpine", command=["no-such-tool"])

    @dsl.pipeline(name="p")
    def pipeline():
        missing()

    convert.write(converted(pipeline), tmp_path / "job")
    record = rehearsal.run(tmp_path / "job" / "job.yml", root=tmp_path, jobs=1)
    assert (record.state, record.tasks["missing"].exit_code) == ("Failed", 127)
    assert "no-such-tool" in record.tasks["missing"].error
    assert {each.name: each.state for each in record.steps} == {
        "missing": "Failed", "missing__command": "Completed", "missing__prepare": "Completed",
    }  # fmt: skip


@pytest.mark.parametrize("shell", SHELLS)
def test_the_commands_step_needs_nothing_but_a_shell(converted, compiled, tmp_path, shell):
    """What busybox has is all that is on the path."""

    @dsl.pipeline(name="p")
    def pipeline(text: str = "x"):
        say(text=text)

    convert.write(converted(pipeline), tmp_path / "job")
    tools = tmp_path / "tools"
    tools.mkdir()
    shell_called_sh(shell, tools)
    busybox = shutil.which("busybox")
    for name in ("env", "kill", "mkdir", "mkfifo", "rm", "sleep", "tee"):
        (tools / name).symlink_to(busybox)
    prepared, made = tmp_path / "prepared", tmp_path / "made"
    for folder in (prepared, made):
        folder.mkdir()
    places = {"control": "@mark@"}
    line = ["sh", "-c", SAY, EVIL, "@mark@/outputs/data", "@mark@/outputs/voice"]
    script = step.shell_script(line, {"VOICE": EVIL}, places, [0], None, "", [])
    (prepared / "command.sh").write_text(script)
    component = yaml.safe_load((tmp_path / "job" / "components" / "say__command.yml").read_text())
    assert component["environment"] == {"image": "busybox:1.36"}
    command = component["command"].replace("${{outputs.control}}", str(made))
    command = command.replace("${{inputs.prepared}}", str(prepared))
    code = tmp_path / "job" / "code" / "say__command"
    done = subprocess.run(
        [tools / "sh", "-c", command], cwd=code, env={"PATH": str(tools)}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (made / "code").read_text() == "0"
    assert (made / "outputs" / "data").read_text() == (made / "outputs" / "voice").read_text() == EVIL
    assert (made / "log.txt").read_text() == done.stdout == f"said {EVIL}\n"
    assert sorted(path.name for path in code.iterdir()) == ["step.json", "step.sh"]


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=25, deadline=None)
@given(texts=st.lists(TEXTS | st.sampled_from(["@mark@", "a@mark@'b"]), max_size=8), value=TEXTS)
def test_any_text_reaches_a_command_as_it_is(shell, texts, value):
    line = ["sh", "-c", 'printf "%s\\0" "$VALUE" "$@"', "sh", *texts]
    script = step.shell_script(line, {"VALUE": value}, {"a0": "@mark@"}, [0, 2], 1.5, "/a b", [])
    start = [shutil.which(shell), *(["sh"] if shell == "busybox" else [])]
    done = subprocess.run(
        [*start, "-c", f"penstock_a0='/m n/it'\"'\"'s'; {script}penstock_command"], capture_output=True, check=True
    )
    wanted = [value, *(text.replace("@mark@", "/m n/it's") for text in texts)]
    assert done.stdout.decode().split("\0") == [*wanted, ""]


def test_what_runs_a_command_is_known_of_the_image_or_told(converted):
    @dsl.container_component
    def own():
        return dsl.ContainerSpec(image="example/own:1", command=["/bin/tool"])

    @dsl.container_component
    def static():
        return dsl.ContainerSpec(image="gcr.io/distroless/static", command=["/tool"])

    @dsl.pipeline(name="p")
    def pipeline():
        say(text="a")
        own()

    @dsl.pipeline(name="p")
    def bare():
        static()

    def steps(**options) -> list[str]:
        return list(yaml.safe_load(converted(pipeline, **options).files["pipeline.yml"])["jobs"])

    of_say = ["say", "say__command", "say__prepare"]
    assert steps() == ["own", *of_say]
    assert steps(has_python=["busybox:*"]) == ["own", "say"]
    assert steps(launchers={"busybox*": "python"}) == ["own", "say"]
    assert steps(launchers={"example/*": "sh"}) == ["own", "own__command", "own__prepare", *of_say]
    done = converted(pipeline)
    assert [(each.code, each.path) for each in done.findings] == [("maybe-no-python", "own"), ("no-python", "say")]
    refused = converted(bare)
    assert [(each.code, each.path, each.severity) for each in refused.findings] == [
        ("no-shell", "static", Severity.ERROR)
    ]
    assert not converted(bare, launchers={"*/distroless/*": "sh"}).refused


def test_the_machine_is_that_of_the_command(converted):
    @dsl.pipeline(name="p")
    def pipeline():
        task = say(text="a").set_accelerator_type("NVIDIA_TESLA_T4").set_accelerator_limit(1)
        kubernetes.empty_dir_mount(task, "scratch", "/tmp/it's")
        task.set_caching_options(False)

    done = converted(pipeline, machines=[{"accelerator": "*", "compute": "gpu"}], image="own/python:1")
    jobs = yaml.safe_load(done.files["pipeline.yml"])["jobs"]
    assert {name: job.get("compute") for name, job in jobs.items()} == {
        "say": None, "say__command": "azureml:gpu", "say__prepare": None,
    }  # fmt: skip
    components = {name: yaml.safe_load(done.files[f"components/{name}.yml"]) for name in jobs}
    assert {name: each["environment"]["image"] for name, each in components.items()} == {
        "say": "own/python:1", "say__command": "busybox:1.36", "say__prepare": "own/python:1",
    }  # fmt: skip
    assert not any(each["is_deterministic"] for each in components.values())
    assert json.loads(done.files["code/say__prepare/step.json"])["folders"] == ["/tmp/it's"]
