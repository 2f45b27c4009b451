"""Runs a converted job on this machine the way Azure ML documents it: step by step, in processes, without Azure.

What it stands in for is the service, not the job: it reads the YAML, copies each code snapshot, puts paths and values
into the command, runs that with bash, and goes by exit codes alone. Images are not used: commands run with what this
machine has, and a lightweight component's installation of kfp is left out, as the local engine does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from penstock.compile import commands, graph, launcher
from penstock.compile.errors import PenstockError
from penstock.compile.targets.azureml import emit, validate
from penstock.compile.targets.azureml.step import ARTIFACT_FILE, CONTROL_FILE, OUTPUTS_FILE

RUNS = "azureml-runs"
RECORD = "run.json"

_IN_COMMAND = re.compile(r"\$\{\{(inputs|outputs)\.(\w+)\}\}")
_BINDING = re.compile(r"\$\{\{parent\.(?:inputs\.(\w+)|jobs\.(\w+)\.outputs\.(\w+))\}\}")
_NOT_INHERITED = ("_KFP_RUNTIME", "PYTHONDONTWRITEBYTECODE")
_POLL = 0.5
_PATIENT = "trap : TERM\n"  # asked to end, bash waits for the step, which ends what it started


class State(StrEnum):
    """How a step or a job ended, in Azure's words."""

    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELED = "Canceled"
    NOT_STARTED = "NotStarted"  # a step that it needs failed


@dataclass(frozen=True)
class StepRecord:
    """A step of a job.

    Attributes:
        path: Path of the task that it runs; empty for one that the conversion added.
        folder: Its folder, with log.txt and outputs/.
    """

    name: str
    path: str
    state: State
    folder: str
    seconds: float = 0.0
    exit_code: int | None = None


@dataclass(frozen=True)
class Artifact:
    """What a task left; `location` is where it is on this machine, empty where it is elsewhere or only metadata."""

    name: str
    type: Mapping[str, str]
    metadata: Mapping[str, Any]
    location: str


@dataclass(frozen=True)
class Task:
    """What a task of the pipeline came to, as its step says.

    Attributes:
        state: SUCCEEDED, FAILED, SKIPPED, CANCELLED; ABSENT for an iteration that the loop did not have.
    """

    state: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)
    error: str | None = None
    exit_code: int | None = None


@dataclass(frozen=True)
class Record:
    """A job that has ended.

    Attributes:
        tasks: Tasks by path, as far as their steps started.
        outputs: Parameters that the pipeline gives.
        artifacts: Artifacts that the pipeline gives, by output.
    """

    id: str
    pipeline: str
    state: State
    folder: str
    seconds: float
    steps: tuple[StepRecord, ...]
    tasks: Mapping[str, Task]
    outputs: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, tuple[Artifact, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as run.json holds it."""
        return dataclasses.asdict(self)


def run(
    job: Path,
    *,
    root: Path,
    jobs: int,
    inputs: Mapping[str, str] | None = None,
    run_id: str | None = None,
    timeout: float | None = None,
    stop: launcher.Stop | None = None,
    tell: Callable[[StepRecord], None] | None = None,
) -> Record:
    """Run a converted job and return its record, which run.json in its folder holds as well.

    Args:
        job: Its job.yml.
        root: Folder of runs; the job's is root/azureml-runs/ID.
        jobs: Steps that may run at the same time, 1 or more.
        inputs: Texts of inputs in place of those in job.yml.
        run_id: Name of the run; the pipeline's name and the time where it is not given.
        timeout: Seconds after which what still runs is ended.
        stop: Ends the run.
        tell: Told of every step that has ended.

    Raises:
        PenstockError: the job cannot be run here. Nothing has run then.
    """
    return _Job(job, root, jobs, inputs or {}, run_id, timeout, stop or launcher.Stop(), tell).run()


class _Job:
    def __init__(
        self,
        path: Path,
        root: Path,
        jobs: int,
        inputs: Mapping[str, str],
        run_id: str | None,
        timeout: float | None,
        stop: launcher.Stop,
        tell: Callable[[StepRecord], None] | None,
    ) -> None:
        self.path, self.jobs, self.stop, self.tell = path, jobs, stop, tell or (lambda record: None)
        self.deadline = time.monotonic() + timeout if timeout else None
        if path.name != emit.JOB or not path.is_file():
            raise PenstockError(f"{path}: is no converted job; give the {emit.JOB} that penstock convert wrote")
        if not shutil.which("bash"):
            raise PenstockError("bash, with which Azure ML runs commands, is not here; install it")
        self.home = path.parent.absolute()
        files = validate.read(self.home)
        if problems := validate.check(files):
            raise PenstockError(f"{path}: is not sound: {'; '.join(problems)}")
        self.job = validate.load(files[emit.JOB])
        self.pipeline = validate.load(files[emit.PIPELINE])
        self.nodes: dict[str, Any] = self.pipeline["jobs"]
        self.components = {name: validate.load(files[f"components/{name}.yml"]) for name in self.nodes}
        self.plans = {name: json.loads(files[f"code/{name}/{emit.STEP}"]) for name in self.nodes}
        self.refuse()
        self.inputs = self.given(inputs)
        name = self.pipeline["name"]
        self.id = run_id or f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(2).hex()}"
        self.folder = Path(os.path.abspath(root)) / RUNS / self.id

    def refuse(self) -> None:
        """Refuse what this machine cannot do as Azure would.

        Raises:
            PenstockError: there is something; all of it is said at once.
        """
        problems = []
        for plan in self.plans.values():
            if plan["mode"] != "task":
                continue
            task = plan["task"]
            body = graph.Container("", "", tuple(task["command"]), tuple(task["args"]))
            installed = commands.packages(commands.start_installs(body.command)) or commands.own_installs(body)
            if installed:
                problems.append(f"task {plan['path']} installs {', '.join(installed)}, into this Python")
            if commands.is_containerized_python(body):
                problems.append(f"task {plan['path']} has its code in its image")
        if problems:
            raise PenstockError(f"{self.path}: cannot run in processes: {'; '.join(dict.fromkeys(problems))}")

    def given(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """Return the values of the pipeline's inputs.

        Raises:
            PenstockError: one is missing, unknown, or data that are not here.
        """
        ports = self.pipeline.get("inputs", {})
        if unknown := sorted({*texts} - {*ports}):
            raise PenstockError(f"{self.path}: there is no input {unknown[0]}; there are {', '.join(ports) or 'none'}")
        found: dict[str, Any] = {}
        for name, port in ports.items():
            value = self.job.get("inputs", {}).get(name, port.get("default"))
            if isinstance(value, Mapping):
                value = value["path"]
            value = texts.get(name, value)
            if value is None:
                raise PenstockError(f"{self.path}: input {name} is not given; give it as -p {name}=VALUE")
            if port["type"] in ("uri_file", "uri_folder"):
                value = self.data(name, str(value))
            found[name] = value
        return found

    def data(self, name: str, uri: str) -> str:
        if "://" in uri or uri.startswith("azureml:"):
            raise PenstockError(f"{self.path}: input {name} is {uri}, which is not here; give a path as -p {name}=PATH")
        there = self.home / uri
        if not there.exists():
            raise PenstockError(f"{self.path}: input {name}: {there} is not there")
        return str(there)

    def run(self) -> Record:
        begin = time.monotonic()
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise PenstockError(f"{self.folder}: cannot be made: {error}") from error
        done = self.carry_out()
        states = {record.state for record in done.values()}
        state = State.COMPLETED
        if self.stop.requested():
            state = State.CANCELED
        elif states & {State.FAILED, State.NOT_STARTED}:
            state = State.FAILED
        steps = tuple(done[name] for name in self.nodes)
        outputs, artifacts = self.outputs(done)
        tasks = self.tasks(done)
        seconds = round(time.monotonic() - begin, 3)
        record = Record(
            self.id, self.pipeline["name"], state, str(self.folder), seconds, steps, tasks, outputs, artifacts
        )
        (self.folder / RECORD).write_text(json.dumps(record.to_json(), indent=1), encoding="utf-8")
        return record

    def carry_out(self) -> dict[str, StepRecord]:
        before = {
            name: {match[2] for binding in node.get("inputs", {}).values() if (match := _BINDING.match(binding))}
            - {None}
            for name, node in self.nodes.items()
        }
        done: dict[str, StepRecord] = {}
        running: dict[Future[StepRecord], str] = {}
        go_on = self.job["settings"]["continue_on_step_failure"]
        with ThreadPoolExecutor(self.jobs, thread_name_prefix="step") as pool:
            try:
                waiting = dict(before)
                while waiting or running:
                    failed = any(record.state is State.FAILED for record in done.values())
                    halted = self.stop.requested() or (failed and not go_on)
                    for name in [name for name, others in waiting.items() if halted or others <= done.keys()]:
                        others = waiting.pop(name)
                        if halted or any(done[each].state is not State.COMPLETED for each in others):
                            done[name] = self.record(name, State.NOT_STARTED)
                            self.tell(done[name])
                            continue
                        running[pool.submit(self.step, name)] = name
                    if not running:
                        continue
                    ended, _ = wait(running, timeout=_POLL, return_when=FIRST_COMPLETED)
                    for future in ended:
                        done[running.pop(future)] = future.result()
                        self.tell(future.result())
                    if self.deadline and time.monotonic() > self.deadline and not self.stop.requested():
                        self.stop.request()
            except BaseException:
                self.stop.request()
                raise
        return done

    def record(self, name: str, state: State, seconds: float = 0.0, exit_code: int | None = None) -> StepRecord:
        path = self.plans[name].get("path", "")
        return StepRecord(name, path, state, str(self.folder / "steps" / name), seconds, exit_code)

    def step(self, name: str) -> StepRecord:
        """Run a step as Azure does: its snapshot as working folder, its command with bash."""
        begin = time.monotonic()
        folder = self.folder / "steps" / name
        code = folder / "code"
        shutil.copytree(self.home / "code" / name, code)
        self.leave_installation_out(name, code)
        values = {("inputs", port): self.bound(binding) for port, binding in self.nodes[name].get("inputs", {}).items()}
        for port in self.components[name]["outputs"]:
            place = self.place(name, port)
            place.mkdir(parents=True)
            values["outputs", port] = str(place)
        command = _IN_COMMAND.sub(lambda match: _text(values[match[1], match[2]]), self.components[name]["command"])
        env = {key: value for key, value in os.environ.items() if key not in _NOT_INHERITED}
        env["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), env.get("PATH", os.defpath)])
        env |= {"AZUREML_ROOT_RUN_ID": self.id, "AZUREML_RUN_ID": f"{self.id}.{name}", "PYTHONUNBUFFERED": "1"}
        try:
            exit_code = launcher.run_process(
                ["bash", "-c", _PATIENT + command], [], env, code, folder / "log.txt", stop=self.stop
            )
        except launcher.Stopped:
            return self.record(name, State.CANCELED, round(time.monotonic() - begin, 3))
        state = State.FAILED if exit_code else State.COMPLETED
        return self.record(name, state, round(time.monotonic() - begin, 3), exit_code)

    def leave_installation_out(self, name: str, code: Path) -> None:
        """Stand in for the image, which a lightweight component's command installs kfp into."""
        plan = self.plans[name]
        if plan["mode"] == "task":
            task = {**plan["task"], "command": commands.without_install(tuple(plan["task"]["command"]))}
            (code / emit.STEP).write_text(json.dumps({**plan, "task": task}), encoding="utf-8")

    def place(self, name: str, port: str) -> Path:
        return self.folder / "steps" / name / "outputs" / port

    def bound(self, binding: str) -> Any:
        match = _BINDING.fullmatch(binding)
        assert match is not None
        return self.inputs[match[1]] if match[1] else str(self.place(match[2], match[3]))

    def tasks(self, done: Mapping[str, StepRecord]) -> dict[str, Task]:
        found = {}
        for name, plan in self.plans.items():
            file = self.place(name, emit.CONTROL) / CONTROL_FILE
            if plan["mode"] == "task" and file.is_file():
                said = json.loads(file.read_text(encoding="utf-8"))
                ports = {port: key for key, port in plan["outputs"].items()}
                artifacts = {port: self.artifact(self.place(name, ports[port])) for port in said["artifacts"]}
                found[plan["path"]] = Task(
                    said["state"], said["parameters"], artifacts, said["error"], said["exit_code"]
                )
        return dict(sorted(found.items()))

    def artifact(self, folder: Path) -> Artifact:
        said = json.loads((folder / ARTIFACT_FILE).read_text(encoding="utf-8"))
        location = folder / said["path"]
        there = str(location) if not said["uri"] and location.exists() else ""
        return Artifact(said["name"], said["type"], said["metadata"], there)

    def outputs(self, done: Mapping[str, StepRecord]) -> tuple[dict[str, Any], dict[str, tuple[Artifact, ...]]]:
        """Return the parameters and artifacts that the pipeline gives."""
        parameters: dict[str, Any] = {}
        artifacts: dict[str, tuple[Artifact, ...]] = {}
        for name, node in self.nodes.items():
            if done[name].state is not State.COMPLETED:
                continue
            for port, binding in node.get("outputs", {}).items():
                output = binding.rpartition(".")[2].rstrip("}")
                if port != emit.CONTROL and self.plans[name]["mode"] == "task":
                    folder = self.place(name, port)
                    with contextlib.suppress(KeyError):  # of a step that was skipped
                        artifacts[output] = (self.artifact(folder),)
            file = self.place(name, emit.CONTROL) / OUTPUTS_FILE
            if self.plans[name]["mode"] == "outputs" and file.is_file():
                said = json.loads(file.read_text(encoding="utf-8"))
                parameters |= said["parameters"]
                ports = {port: key for key, port in self.plans[name]["outputs"].items()}
                for port, items in said["artifacts"].items():
                    places = [self.place(name, ports[port]) / item["path"] for item in items]
                    artifacts[port] = tuple(
                        Artifact(item["name"], item["type"], item["metadata"], str(place) if place.exists() else "")
                        for item, place in zip(items, places, strict=True)
                    )
        return parameters, artifacts


def _text(value: Any) -> str:
    """Return a value as Azure puts it into a command."""
    return str(value)
