"""Runs a pipeline job on this machine the way Azure ML documents it: step by step, without Azure.

What it stands in for is the service, not the job: it takes the job's YAML, copies each code snapshot, puts paths and
values into the command, runs that with bash, in a container of the step's image or in a process, and goes by exit codes
alone. In processes a lightweight component's installation of kfp is left out, as the local engine does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from penstock.compile import commands, container_engine, launcher, local_paths
from penstock.compile.errors import PenstockError
from penstock.compile.targets.azureml import docker_options, emit, job
from penstock.compile.targets.azureml.containers import Containers
from penstock.compile.targets.azureml.job import Job, Node
from penstock.compile.targets.azureml.record import Artifact, Record, State, StepRecord, Task
from penstock.compile.targets.azureml.step import ARTIFACT_FILE, CONTROL_FILE, OUTPUTS_FILE

__all__ = ["RECORD", "RUNNERS", "RUNS", "Artifact", "Record", "State", "StepRecord", "Task", "is_contained", "run"]

RUNS = "azureml-runs"
RECORD = "run.json"
RUNNERS = ("auto", "subprocess", "docker")

_COMMAND = "command"  # mode of a step that runs a command of the pipeline with sh; those of other modes run step.py

_IN_COMMAND = re.compile(r"\$\{\{(inputs|outputs)\.(\w+)\}\}")
_NOT_INHERITED = ("_KFP_RUNTIME", "PYTHONDONTWRITEBYTECODE")
_POLL = 0.5
_GRACE = 8.0  # seconds between SIGTERM and SIGKILL; a step gives its command five
_PATIENT = "trap : TERM\n"  # asked to end, bash waits for the step, which ends what it started


def run(
    what: Path | Job,
    *,
    root: Path,
    jobs: int,
    runner: str = "subprocess",
    inputs: Mapping[str, str] | None = None,
    run_id: str | None = None,
    timeout: float | None = None,
    network: str = "",
    stop: launcher.Stop | None = None,
    observe: Callable[[Record], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Record:
    """Run a job and return its record, which run.json in its folder holds as well.

    It can be called from any thread. Whatever ends it early, `stop` or an exception such as Ctrl-C raises, ends its
    steps first, and leaves the record.

    Args:
        what: A job, or its job.yml or the folder of that.
        root: Folder of runs; the job's is root/azureml-runs/ID.
        jobs: Steps that may run at the same time, 1 or more.
        runner: What steps run in: "subprocess", "docker", or "auto": processes for lightweight Python components that
            install nothing and for the steps that the conversion adds, and containers for the others.
        inputs: Texts of inputs in place of those in job.yml.
        run_id: Name of the run; the pipeline's name and the time where it is not given.
        timeout: Seconds after which what still runs is ended.
        network: Network of containers, as the container engine names it: "none" for none. Empty: the engine's default.
        stop: Ends the run.
        observe: Told of every change, with the record so far.
        tell: Told, in lines of text, what goes on before the first step.

    Raises:
        PenstockError: the job cannot be run here. Nothing has run then.
    """
    found = what if isinstance(what, Job) else job.read(what, inputs)
    rehearsal = _Rehearsal(found, Path(os.path.abspath(root)), jobs, runner, run_id, stop or launcher.Stop(_GRACE))
    return rehearsal.run(timeout, network, observe or (lambda record: None), tell or (lambda line: None))


def is_contained(node: Node, runner: str) -> bool:
    """Return whether a step runs in a container."""
    if runner != "auto":
        return runner == "docker"
    body = node.body
    if body is None:
        return bool(node.plan.get("mode", _COMMAND) == _COMMAND)
    return not commands.is_lightweight(body) or bool(_installed(node)) or commands.is_containerized_python(body)


def _installed(node: Node) -> list[str]:
    """Return the packages that the task of a step installs when it starts."""
    body = node.body
    if body is None:
        return []
    return commands.packages(commands.start_installs(body.command)) or commands.own_installs(body)


class _Rehearsal:
    def __init__(self, job: Job, root: Path, jobs: int, runner: str, run_id: str | None, stop: launcher.Stop) -> None:
        if jobs < 1:
            raise PenstockError(f"--jobs {jobs}: at least one step has to run at a time")
        if runner not in RUNNERS:
            raise PenstockError(f"there is no runner {runner}; there are {', '.join(RUNNERS)}")
        self.job, self.jobs, self.stop = job, jobs, stop
        self.contained = {name: node for name, node in job.nodes.items() if is_contained(node, runner)}
        self.containers: Containers | None = None
        self.refuse()
        identity = run_id or f"{job.pipeline}-{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(2).hex()}"
        self.folder = root / RUNS / identity
        parameters = {name: value for name, value in job.inputs.items() if not isinstance(value, Path)}
        self.seen = local_paths.named(parameters, Path.cwd()) if self.contained else []
        self.begin = time.monotonic()
        self.record = Record(
            identity,
            job.pipeline,
            State.RUNNING,
            str(self.folder),
            _now(),
            0.0,
            tuple(self.unstarted(node) for node in job.nodes.values()),
            inputs={name: str(value) if isinstance(value, Path) else value for name, value in job.inputs.items()},
            warnings=tuple(f"{path} is shown to containers here; Azure does not have it" for path in self.seen),
        )

    def refuse(self) -> None:
        """Refuse what this machine cannot do as Azure would.

        Raises:
            PenstockError: there is something; all of it is said at once.
        """
        problems = []
        for name, node in self.job.nodes.items():
            if name in self.contained:
                try:
                    docker_options.parse(node.docker_args)
                    docker_options.size(node.shm_size or "0")
                except ValueError as error:
                    problems.append(f"step {name}: {error}")
                continue
            if installed := _installed(node):
                problems.append(f"task {node.path} installs {', '.join(installed)}, into this Python")
            if (body := node.body) and commands.is_containerized_python(body):
                problems.append(f"task {node.path} has its code in its image")
        if problems and not self.contained:
            problems[-1] += "; use --runner docker"
        if not self.contained and not shutil.which("bash"):
            problems.append("bash, with which Azure ML runs commands, is not here; install it")
        if self.contained and not problems and (reason := container_engine.available()):
            names = sorted(self.contained)
            listed = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
            problems.append(
                f"{listed} would run in containers, and {reason}; start it, or run the commands on this machine with "
                "--runner subprocess"
            )
        if problems:
            raise PenstockError(f"{self.job.where}: cannot run here: {'; '.join(dict.fromkeys(problems))}")

    def run(
        self,
        timeout: float | None,
        network: str,
        observe: Callable[[Record], None],
        tell: Callable[[str], None],
    ) -> Record:
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise PenstockError(f"{self.folder}: cannot be made: {error.strerror}") from error
        with contextlib.ExitStack() as stack:
            if self.contained:
                try:
                    containers = Containers(self.record.id, self.folder, network, self.seen)
                    self.containers = stack.enter_context(containers)
                    self.containers.prepare(list(self.contained.values()), tell)
                except BaseException:
                    self.folder.rmdir()  # it never began
                    raise
            try:
                self.carry_out(timeout, observe)
            finally:
                self.end()
                observe(self.record)
        return self.record

    def end(self) -> None:
        states = {step.state for step in self.record.steps}
        state = State.COMPLETED
        if self.stop.requested():
            state = State.CANCELED
        elif states & {State.FAILED, State.NOT_STARTED}:
            state = State.FAILED
        outputs, artifacts = self.outputs()
        self.record = dataclasses.replace(
            self.record, state=state, seconds=self.seconds(), outputs=outputs, artifacts=artifacts
        )
        (self.folder / RECORD).write_text(json.dumps(self.record.to_json(), indent=1), encoding="utf-8")

    def seconds(self) -> float:
        return round(time.monotonic() - self.begin, 3)

    # The order of steps

    def carry_out(self, timeout: float | None, observe: Callable[[Record], None]) -> None:
        waiting = {name: node.before for name, node in self.job.nodes.items()}
        done: dict[str, StepRecord] = {}
        running: dict[Future[StepRecord], str] = {}

        def note(*changed: StepRecord) -> None:
            records = {step.name: step for step in (*self.record.steps, *changed)}
            tasks = dict(self.record.tasks)
            for step in changed:
                if step.state is not State.RUNNING:
                    done[step.name] = step
                if step.path and (task := self.task(step)):
                    tasks[step.path] = task
            steps, sorted_tasks = tuple(records.values()), dict(sorted(tasks.items()))
            self.record = dataclasses.replace(self.record, steps=steps, tasks=sorted_tasks, seconds=self.seconds())
            observe(self.record)

        with ThreadPoolExecutor(self.jobs, thread_name_prefix="step") as pool:
            try:
                while waiting or running:
                    failed = any(step.state is State.FAILED for step in done.values())
                    halted = self.stop.requested() or (failed and not self.job.continue_on_step_failure)
                    for name in [name for name, others in waiting.items() if halted or others <= done.keys()]:
                        node = self.job.nodes[name]
                        if halted or any(done[other].state is not State.COMPLETED for other in waiting[name]):
                            del waiting[name]
                            note(self.unstarted(node))
                        elif len(running) < self.jobs:
                            del waiting[name]
                            started = dataclasses.replace(self.unstarted(node), state=State.RUNNING, started=_now())
                            note(started)
                            running[pool.submit(self.step, node, started)] = name
                    if not running:
                        continue
                    ended, _ = wait(running, timeout=_POLL, return_when=FIRST_COMPLETED)
                    for future in ended:
                        del running[future]
                        note(future.result())
                    if timeout and time.monotonic() > self.begin + timeout and not self.stop.requested():
                        self.record = dataclasses.replace(
                            self.record, error=f"took too long: ended after {timeout:g} s"
                        )
                        self.stop.request()
            except BaseException:
                self.stop.request()
                note(*(future.result() for future in running))
                raise

    def unstarted(self, node: Node) -> StepRecord:
        return StepRecord(
            node.name,
            node.path,
            State.NOT_STARTED,
            str(self.folder / "steps" / node.name),
            after=tuple(sorted(node.before)),
            compute=node.compute or self.job.compute,
            image=node.image,
            runner="container" if node.name in self.contained else "process",
        )

    # One step

    def step(self, node: Node, record: StepRecord) -> StepRecord:
        """Run a step as Azure does: its snapshot as working folder, its command with bash."""
        begin, folder = time.monotonic(), Path(record.folder)
        state, exit_code, reason = State.COMPLETED, None, None
        try:
            shutil.copytree(node.code, folder / "code", ignore=shutil.ignore_patterns("__pycache__"))
            for port in node.outputs:
                self.place(node.name, port).mkdir(parents=True)
            exit_code = (
                self.in_container(node, folder)
                if self.containers and node.name in self.contained
                else (self.in_process(node, folder))
            )
            _upload(folder / "outputs")
        except launcher.Stopped:
            state = State.CANCELED
        except launcher.TaskError as error:
            state, exit_code, reason = State.FAILED, error.exit_code, str(error)
        except OSError as error:
            state, reason = State.FAILED, f"{folder}: {error}"
        if exit_code:
            state = State.FAILED
        seconds = round(time.monotonic() - begin, 3)
        return dataclasses.replace(record, state=state, seconds=seconds, exit_code=exit_code, error=reason)

    def in_process(self, node: Node, folder: Path) -> int:
        self.leave_installation_out(node, folder / "code")
        env = {key: value for key, value in os.environ.items() if key not in _NOT_INHERITED}
        env["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), env.get("PATH", os.defpath)])
        line = ["bash", "-c", self.script(node, lambda port, path: str(path), lambda port: self.place(node.name, port))]
        env |= self.environment(node)
        return launcher.run_process(
            line, [], env, folder / "code", folder / "log.txt", stop=self.stop, timeout=node.timeout
        )

    def in_container(self, node: Node, folder: Path) -> int:
        assert self.containers is not None
        script = self.script(node, self.containers.input, self.containers.output)
        given = {port: self.bound(binding) for port, binding in node.inputs.items()}
        paths = {port: value for port, value in given.items() if isinstance(value, Path)}
        return self.containers.run(node, script, self.environment(node), paths, folder, stop=self.stop)

    def script(self, node: Node, read: Callable[[str, Path], str], written: Callable[[str], Any]) -> str:
        """Return the command of a step with paths and values in it.

        Args:
            read: Returns where the step sees an input that lies at a path of this machine.
            written: Returns where it sees an output.
        """

        def text(match: re.Match[str]) -> str:
            if match[1] == "outputs":
                return str(written(match[2]))
            value = self.bound(node.inputs[match[2]])
            return read(match[2], value) if isinstance(value, Path) else _text(value)

        return _PATIENT + _IN_COMMAND.sub(text, node.command)

    def environment(self, node: Node) -> dict[str, str]:
        own = {"AZUREML_ROOT_RUN_ID": self.record.id, "AZUREML_RUN_ID": f"{self.record.id}.{node.name}"}
        return {"PYTHONUNBUFFERED": "1", **node.env, **own}

    def leave_installation_out(self, node: Node, code: Path) -> None:
        """Stand in for the image, which a lightweight component's command installs kfp into."""
        if (body := node.body) is not None:
            task = {**node.plan["task"], "command": commands.without_install(body.command)}
            (code / emit.STEP).write_text(json.dumps({**node.plan, "task": task}), encoding="utf-8")

    def place(self, name: str, port: str) -> Path:
        return self.folder / "steps" / name / "outputs" / port

    def bound(self, binding: Any) -> Any:
        """Return what an input of a step is given; a Path for data."""
        source = self.job.source(binding)
        return self.place(*source) if isinstance(source, tuple) else source

    # What came of it

    def task(self, step: StepRecord) -> Task | None:
        """Return what a step that has ended says of its task; None where it says nothing."""
        if step.state in (State.RUNNING, State.NOT_STARTED):
            return None
        node = self.job.nodes[step.name]
        file = self.place(step.name, emit.CONTROL) / CONTROL_FILE
        if step.error:
            return Task("FAILED", error=step.error, exit_code=step.exit_code)
        if not file.is_file():
            return None
        said = json.loads(file.read_text(encoding="utf-8"))
        ports = {port: key for key, port in node.plan["outputs"].items()}
        artifacts = {port: self.artifact(self.place(step.name, ports[port])) for port in said["artifacts"]}
        return Task(said["state"], said["parameters"], artifacts, said["error"], said["exit_code"])

    def artifact(self, folder: Path) -> Artifact:
        said = json.loads((folder / ARTIFACT_FILE).read_text(encoding="utf-8"))
        location = folder / said["path"]
        there = str(location) if not said["uri"] and location.exists() else ""
        return Artifact(said["name"], said["type"], said["metadata"], there)

    def outputs(self) -> tuple[dict[str, Any], dict[str, tuple[Artifact, ...]]]:
        """Return the parameters and artifacts that the pipeline gives."""
        parameters: dict[str, Any] = {}
        artifacts: dict[str, tuple[Artifact, ...]] = {}
        for step in self.record.steps:
            if step.state is not State.COMPLETED:
                continue
            node = self.job.nodes[step.name]
            for port, binding in node.outputs.items():
                output = binding.rpartition(".")[2].rstrip("}")
                if binding and node.plan.get("mode") == "task" and port in node.plan["outputs"]:
                    with contextlib.suppress(KeyError):  # of a step that was skipped
                        artifacts[output] = (self.artifact(self.place(step.name, port)),)
            file = self.place(step.name, emit.CONTROL) / OUTPUTS_FILE
            if node.plan.get("mode") == "outputs" and file.is_file():
                said = json.loads(file.read_text(encoding="utf-8"))
                parameters |= said["parameters"]
                ports = {port: key for key, port in node.plan["outputs"].items()}
                for port, items in said["artifacts"].items():
                    places = [self.place(step.name, ports[port]) / item["path"] for item in items]
                    artifacts[port] = tuple(
                        Artifact(item["name"], item["type"], item["metadata"], str(place) if place.exists() else "")
                        for item, place in zip(items, places, strict=True)
                    )
        return parameters, artifacts


def _upload(outputs: Path) -> None:
    """Leave of outputs what a store of blobs has: files, and no folder without one; readable for every image's user."""
    for folder, _, _ in os.walk(outputs, topdown=False):
        path = Path(folder)
        if outputs not in (path, path.parent):
            with contextlib.suppress(OSError):  # there is something in it
                path.rmdir()
    for path in container_engine.entries(outputs):
        with contextlib.suppress(PermissionError):  # another user's, who made it so
            container_engine.permit(path)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _text(value: Any) -> str:
    """Return a value as Azure puts it into a command."""
    return str(value)
