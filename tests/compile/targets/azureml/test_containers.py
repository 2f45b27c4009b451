"""A step in its image sees what Azure ML documents, gives what the local engine gives, and leaves nothing behind."""

import contextlib
import io
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import docker
import kfp
import pytest
import typing_extensions
from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from penstock.compile.container_engine import available
from penstock.compile.errors import PenstockError
from penstock.compile.targets.azureml import convert, rehearsal
from penstock.compile.targets.azureml.job import Job, Node
from penstock.compile.targets.azureml.options import parse
from tests.compile.targets.azureml.parity import differences

BASE = "python:3.11-slim"
UID = 12345

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def engine():
    """The engine's client; its tests skip where none answers."""
    if reason := available():
        pytest.skip(reason)
    with contextlib.closing(docker.from_env().api) as client:
        yield client


def wheel() -> bytes:
    """Return a wheel of a package called tinypackage."""
    files = {
        "tinypackage.py": "ANSWER = 42\n",
        "tinypackage-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tinypackage\nVersion: 1.0\n",
        "tinypackage-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, "tinypackage-1.0.dist-info/RECORD"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in {**files, "tinypackage-1.0.dist-info/RECORD": record}.items():
            archive.writestr(name, text)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def images(engine):
    """Names of images by what is special about them: all with KFP, but "bare", which has neither bash nor Python."""
    busybox = shutil.which("busybox")
    if not engine.images(BASE) or not busybox:
        pytest.skip(f"{BASE}, or busybox, is not here")
    repository = f"penstock-test-{secrets.token_hex(4)}"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:

        def add(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))

        tar.add(Path(kfp.__file__).parent, "kfp", filter=lambda each: None if "__pycache__" in each.name else each)
        tar.add(typing_extensions.__file__, "typing_extensions.py")
        add("wheels/tinypackage-1.0-py3-none-any.whl", wheel())
        lines = [
            f"FROM {BASE} AS plain",
            "COPY kfp /opt/kfp/kfp",
            "COPY typing_extensions.py /opt/kfp/",
            "COPY wheels /wheels",
            "ENV PYTHONPATH=/opt/kfp PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_ROOT_USER_ACTION=ignore OF_IMAGE=here",
            'ENTRYPOINT ["false"]',
            "WORKDIR /srv",
            "FROM plain AS numeric",
            f"USER {UID}",
            "FROM plain AS named",
            f"RUN useradd --uid {UID} app",
            "USER app",
        ]
        add("Dockerfile", "\n".join(lines).encode())
    for target in ("plain", "numeric", "named"):
        buffer.seek(0)
        said = list(
            engine.build(
                fileobj=buffer, custom_context=True, tag=f"{repository}:{target}", target=target, decode=True, rm=True
            )
        )
        assert "error" not in said[-1], said[-1]
    said = subprocess.run([busybox, "--list"], capture_output=True, text=True).stdout
    busybox_applets = [applet for applet in said.split() if applet != "busybox"]
    file_system = io.BytesIO()
    with tarfile.open(fileobj=file_system, mode="w") as tar:
        tar.add(os.path.realpath(busybox), "bin/busybox")
        for applet in busybox_applets:
            member = tarfile.TarInfo(f"bin/{applet}")
            member.type, member.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(member)
    engine.import_image_from_data(file_system.getvalue(), repository=repository, tag="bare", changes=["ENV PATH=/bin"])
    names = {tag: f"{repository}:{tag}" for tag in ("plain", "numeric", "named", "bare")}
    yield names
    for name in [*list(names.values())[::-1]]:
        engine.remove_image(name, force=True)


def listed(engine, run: str) -> list[str]:
    return [found["Id"] for found in engine.containers(all=True, filters={"label": f"penstock.run={run}"})]


@pytest.fixture
def run(engine, tmp_path):
    """Return a function that runs a job in containers, and looks that none is left."""

    def run_it(what, **options):
        run_id = f"run-{secrets.token_hex(4)}"
        try:
            return rehearsal.run(what, root=tmp_path, jobs=2, runner="docker", network="none", run_id=run_id, **options)
        finally:
            assert listed(engine, run_id) == []

    return run_it


@pytest.fixture
def step(tmp_path, images, run):
    """Return a function that runs a script as a job of one step, and returns its record and what it said."""

    def run_it(script: str, image: str = "plain", inputs=None, files=None, **options):
        code = tmp_path / f"code-{secrets.token_hex(4)}"
        code.mkdir()
        for name, text in (files or {}).items():
            (code / name).write_text(text)
        node = Node("only", script, images[image], code, dict.fromkeys(inputs or {}), {"out": ""}, **options)
        bound = {port: f"${{{{parent.inputs.{port}}}}}" for port in inputs or {}}
        node = Node(**{**vars(node), "inputs": bound})
        record = run(Job("job", {"only": node}, inputs or {}))
        log = Path(record.steps[0].folder, "log.txt")
        return record, log.read_text() if log.exists() else ""

    return run_it


def out(record) -> Path:
    return Path(record.steps[0].folder, "outputs", "out")


def test_it_works_in_its_snapshot_with_bash_and_the_environment_of_its_image(step):
    script = 'pwd; ls; [[ -v BASH ]] && echo bash; echo "$OF_IMAGE $MINE $AZUREML_RUN_ID"; echo 1 > ${{outputs.out}}/x'
    record, said = step(script, files={"a.py": ""}, env={"MINE": "of the node"})
    assert record.state == "Completed"
    where, *rest = said.splitlines()
    assert where.startswith("/mnt/azureml/cr/j/")
    assert where.endswith("/exe/wd")
    assert rest == ["a.py", "bash", f"here of the node {record.id}.only"]
    assert (out(record) / "x").read_text() == "1\n"
    assert (record.steps[0].runner, record.steps[0].image) == ("container", record.steps[0].image)


def test_inputs_are_read_only_and_nothing_else_of_this_machine_is_there(step, tmp_path):
    data = tmp_path / "rows.csv"
    data.write_text("1,2\n")
    script = (
        'cat "${{inputs.data}}"; basename "${{inputs.data}}"; echo ${{inputs.rate}}\n'
        f'echo x > "${{{{inputs.data}}}}" || echo refused; ls {tmp_path} || echo nothing\n'
        "echo 1 > ${{outputs.out}}/x; mkdir ${{outputs.out}}/empty"
    )
    record, said = step(script, inputs={"data": data, "rate": 0.5})
    assert record.state == "Completed"
    assert [line for line in said.splitlines() if " cannot " not in line and "Read-only" not in line] == [
        "1,2", "rows.csv", "0.5", "refused", "nothing",
    ]  # fmt: skip
    assert data.read_text() == "1,2\n"
    assert os.listdir(out(record)) == ["x"]  # a store of blobs has no empty folders


@pytest.mark.parametrize("image", ["numeric", "named"])
def test_a_user_other_than_root_writes_outputs_and_the_snapshot(step, image):
    script = "umask 077; id -u; touch beside; mkdir ${{outputs.out}}/deep; echo 1 > ${{outputs.out}}/deep/x"
    record, said = step(script, image)
    assert (record.state, said) == ("Completed", f"{UID}\n")
    assert (out(record) / "deep/x").stat().st_mode & 0o444 == 0o444


def test_shared_memory_and_options_of_docker_are_honoured(step):
    limits = "/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max"
    script = f"df -k /dev/shm | tail -1; ulimit -n; cat {limits} 2>&1"
    _, said = step(script, shm_size="96m", docker_args="--ulimit nofile=100:200 -m 256m")
    shared, files, *memory = [line for line in said.splitlines() if "No such" not in line]
    assert (shared.split()[1], files, memory) == (str(96 * 1024), "100", [str(256 * 1024**2)])


def test_options_of_docker_that_are_not_known_are_refused_with_the_step(step):
    with pytest.raises(PenstockError, match=r"step only: --userns=host is not known here; known are add-host"):
        step("true", docker_args="--userns=host")


def test_a_step_that_takes_too_long_is_ended_and_has_failed(step):
    begin = time.monotonic()
    record, _ = step("sleep 100", timeout=2)
    assert time.monotonic() - begin < 20
    assert (record.state, record.steps[0].error) == ("Failed", "timed out after 2 s")


def test_an_image_without_bash_fails_clearly_and_a_step_made_for_sh_runs(step, images):
    record, _ = step("pwd", "bare")
    assert record.state == "Failed"
    assert record.steps[0].error == f"the image {images['bare']} has no bash, with which Azure ML runs commands"
    record, said = step("sh step.sh <<'END'\n@@out@@${{outputs.out}}\nEND", "bare", files={"step.sh": "cat"})
    assert record.state == "Completed"
    assert said.startswith("@@out@@/mnt/azureml/")


def test_an_image_that_cannot_be_had_is_named_with_its_step(run, tmp_path):
    (tmp_path / "code").mkdir()
    node = Node("train", "true", "127.0.0.1:9/none:1", tmp_path / "code")
    with pytest.raises(
        PenstockError, match=r"^step train: image 127.0.0.1:9/none:1: .*; build it, log in, or use --run"
    ):
        run(Job("job", {"train": node}))
    assert list((tmp_path / "azureml-runs").iterdir()) == []


def test_what_is_ended_is_gone_within_ten_seconds(converted, images, engine, tmp_path):
    @dsl.container_component
    def stubborn():
        return dsl.ContainerSpec(images["plain"], ["sh", "-c", "trap '' TERM INT; echo begun; sleep 100; sleep 100"])

    @dsl.pipeline(name="p")
    def pipeline():
        first = stubborn()
        stubborn().after(first)

    convert.write(converted(pipeline), tmp_path / "job")
    line = [sys.executable, "-m", "penstock.compile.cli", "run", str(tmp_path / "job"), "--target", "azureml-local"]
    process = subprocess.Popen(
        [*line, "--root", str(tmp_path), "--runner", "docker"], stderr=subprocess.PIPE, text=True
    )
    runs = tmp_path / "azureml-runs"
    for _ in range(600):
        logs = list(runs.glob("*/steps/stubborn/log.txt"))
        if logs and "begun" in logs[0].read_text():
            break
        time.sleep(0.1)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert time.monotonic() - begin < 12  # ten, and the interpreter's own end
    assert process.returncode == 130
    (folder,) = runs.iterdir()
    assert said.splitlines()[-1].startswith("stopped by SIGINT; see ")
    record = json.loads((folder / "run.json").read_text())
    assert (record["state"], [step["state"] for step in record["steps"]]) == ("Canceled", ["Canceled", "NotStarted"])
    assert listed(engine, folder.name) == []


def components(image: str):
    """Return components that run in an image."""

    @dsl.component(base_image=image, install_kfp_package=False)
    def save(rows: int, data: Output[Dataset]) -> dict:
        import os

        os.makedirs(data.path)
        for row in range(rows):
            with open(f"{data.path}/{row}", "w") as file:
                file.write("x" * row)
        data.metadata["rows"] = rows
        return {"rows": rows}

    @dsl.component(base_image=image, install_kfp_package=False)
    def count(data: Input[Dataset], most: float = 2.5) -> int:
        import os

        found = len(os.listdir(data.path))
        if found > most:
            raise ValueError(f"{found} are more than {most}")
        return found

    @dsl.container_component
    def say(text: str, said: dsl.OutputPath(str)):
        return dsl.ContainerSpec(image, ["sh", "-c", 'echo "$0" > "$1"'], [text, said])

    return save, count, say


@pytest.mark.parametrize("image", ["plain", "numeric"])
def test_jobs_in_containers_give_what_the_local_engine_gives_in_containers(compiled, images, tmp_path, image):
    save, count, say = components(images[image])

    @dsl.pipeline(name="p")
    def pipeline() -> list:
        with dsl.ParallelFor([1, 2, 3], parallelism=2) as each:
            saved = save(rows=each)
            counted = count(data=saved.outputs["data"])
            with dsl.If(counted.output == 2):
                say(text="two")
        say(text="$HOME; 'x'\n")
        return dsl.Collected(saved.outputs["Output"])

    assert differences(compiled(pipeline), tmp_path, runner="docker", network="none") == []
    record = json.loads((tmp_path / "azureml-runs/parity/run.json").read_text())
    states = {path.removeprefix("for-loop-2."): task["state"] for path, task in record["tasks"].items()}
    assert states == {
        **{f"{row}.save": "SUCCEEDED" for row in range(3)},
        "0.count": "SUCCEEDED",
        "1.count": "SUCCEEDED",
        "2.count": "FAILED",
        "0.condition-3.say": "SKIPPED",
        "1.condition-3.say": "SUCCEEDED",
        "say-2": "SUCCEEDED",
    }


def test_tasks_that_install_packages_install_them_in_their_containers(converted, images, run, tmp_path):
    @dsl.component(base_image=images["plain"], install_kfp_package=False, packages_to_install=["tinypackage==1.0"])
    def answer() -> int:
        import tinypackage

        return tinypackage.ANSWER

    @dsl.pipeline(name="p")
    def pipeline() -> int:
        return answer().output

    convert.write(converted(pipeline), tmp_path / "job")
    assert run(tmp_path / "job").outputs == {"Output": 42}


def test_what_parameters_name_here_is_shown_to_containers_with_a_warning(converted, images, run, tmp_path):
    @dsl.container_component
    def copy(path: str, said: dsl.OutputPath(str)):
        return dsl.ContainerSpec(images["plain"], ["sh", "-c", 'cp "$0" "$1"'], [path, said])

    @dsl.pipeline(name="p")
    def pipeline(path: str) -> str:
        return copy(path=path).outputs["said"]

    (tmp_path / "rows").write_text("1,2")
    convert.write(converted(pipeline, {"path": str(tmp_path / "rows")}, image=images["plain"]), tmp_path / "job")
    record = run(tmp_path / "job")
    assert record.outputs == {"Output": "1,2"}
    assert record.warnings == (f"{tmp_path}/rows is shown to containers here; Azure does not have it",)


def test_images_with_neither_python_nor_bash_give_what_the_local_engine_gives(compiled, images, tmp_path):
    @dsl.container_component
    def say(text: str, said: dsl.OutputPath(str), data: Output[Dataset]):
        return dsl.ContainerSpec(
            images["bare"], ["sh", "-c", 'echo "$0 $(id -u)" > "$1"; mkdir -p "$2"; cat "$1" > "$2/part"'],
            [text, said, data.path],
        )  # fmt: skip

    @dsl.container_component
    def read(data: Input[Dataset], said: dsl.OutputPath(str)):
        return dsl.ContainerSpec(images["bare"], ["sh", "-c", 'cat "$0/part" > "$1"'], [data.path, said])

    @dsl.pipeline(name="p")
    def pipeline() -> str:
        first = say(text="$HOME; 'x'")
        with dsl.If(first.outputs["said"] == "no"):
            say(text="never")
        return read(data=first.outputs["data"]).outputs["said"]

    options = parse({"image": images["plain"], "launchers": {images["bare"]: "sh"}})
    assert differences(compiled(pipeline), tmp_path, None, options, runner="docker", network="none") == []
    record = json.loads((tmp_path / "azureml-runs/parity/run.json").read_text())
    assert record["outputs"] == {"Output": "$HOME; 'x' 0\n"}
