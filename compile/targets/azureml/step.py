"""Runs one task of a converted pipeline as a step of an Azure ML job.

It travels in the step's code snapshot beside launcher.py, which does the work: here is only what Azure ML lacks. Each
step knows the part of the pipeline that decides about it (step.json), reads how the steps before it ended from their
control folders, and finds out by itself whether it runs, and with what. So conditions, loops and exit handlers need
nothing of Azure but inputs and outputs.

The standard library only, Python 3.8 or later. A folder that a step did not write to breaks those after it, so every
output folder gets a file, whatever becomes of the step.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from penstock.compile import launcher

if TYPE_CHECKING:
    from typing import TypeAlias

CONTROL_FILE = "penstock-task.json"
ARTIFACT_FILE = "penstock-artifact.json"
OUTPUTS_FILE = "outputs.json"
COMMAND_FILE = "command.sh"
GATHERED_FILE = "penstock-tasks.json"
ESCAPE = "json:"  # begins the text of a parameter that is JSON whatever its type

RUNNING, SUCCEEDED, FAILED, SKIPPED, CANCELLED = "RUNNING", "SUCCEEDED", "FAILED", "SKIPPED", "CANCELLED"
ABSENT = "ABSENT"  # an iteration beyond the items that the loop has in this run

_HEART = {"mlflow_model": "MLmodel", "mltable": "MLTable"}  # the file that makes a folder one of the type
_GRACE = 5.0  # seconds that a command has to end in, of the ten or so that a step has
_LITERAL = re.compile(r"@@(\w+)@@")
_FINAL = {
    "kubeflow": {SUCCEEDED: "COMPLETE", CANCELLED: "CANCELED"},
    "vertex": {},
}

Reference: TypeAlias = "Sequence[str]"  # ("task", path, port), ("import", path) or ("pipeline", name)


@dataclass(frozen=True)
class Begun:
    """What was decided about a part of the pipeline before it ran.

    Attributes:
        items: What each iteration of a loop is given.
        count: How many iterations a loop has.
    """

    state: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Sequence[Reference]] = field(default_factory=dict)
    error: str | None = None
    items: Sequence[Any] = ()
    count: int = 0


@dataclass(frozen=True)
class Ended:
    """How a part of the pipeline ended, and what it gave."""

    state: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Sequence[Reference]] = field(default_factory=dict)
    error: str | None = None
    exit_code: int | None = None


class World:
    """The part of a pipeline that one step has to know, evaluated as far as it asks.

    Args:
        step: The step, as step.json holds it.
        parameters: The pipeline's parameters that the step is given.
        artifacts: Names of the pipeline's artifacts that the step is given.
        controls: What the steps before it wrote, by path.
        names: Values of the system placeholders.
    """

    def __init__(
        self,
        step: Mapping[str, Any],
        parameters: Mapping[str, Any],
        artifacts: Iterable[str],
        controls: Mapping[str, Mapping[str, Any]],
        names: Mapping[str, str],
    ) -> None:
        self.step, self.units = step, step["units"]
        self.controls, self.names = controls, names
        self.root = Begun(RUNNING, parameters, {name: [("pipeline", name)] for name in artifacts})
        self.failures: dict[str, str] = {}
        self.imported: dict[str, launcher.Artifact] = {}
        self._begun: dict[str, Begun] = {"": self.root}
        self._ended: dict[str, Ended] = {}

    def begin(self, path: str) -> Begun:
        """Return what was decided about a part before it ran."""
        if path not in self._begun:
            unit = self.units[path]
            own = path in self.step["chain"] or unit.get("computed")
            self._begun[path] = self._decided(path, unit) if own else self._said(path)
        return self._begun[path]

    def ended(self, path: str) -> Ended:
        """Return how a part ended."""
        if path not in self._ended:
            self._ended[path] = self._end(path, self.units[path])
        return self._ended[path]

    def scopes(self) -> dict[str, Any]:
        """Return what was decided about the parts around the step, for those after it."""
        found = {}
        for path in self.step["chain"]:
            begun = self.begin(path)
            found[path] = {"state": begun.state, "error": begun.error, "count": begun.count}
        return found

    def _said(self, path: str) -> Begun:
        """Return what a step inside another part said was decided about that part."""
        for control in self.controls.values():
            if path in control["scopes"]:
                said = control["scopes"][path]
                return Begun(said["state"], error=said["error"], count=said["count"])
        raise launcher.TaskError(f"nothing tells how {path} began; this is a bug of the conversion")

    def _decided(self, path: str, unit: Mapping[str, Any]) -> Begun:
        outer = self.begin(unit["loop_of"] if "loop_of" in unit else unit["scope"])
        if outer.state != RUNNING:
            return Begun(CANCELLED if outer.state == FAILED else outer.state, error=outer.error)
        if "loop_of" in unit:
            if unit["iteration"] >= outer.count:
                return Begun(ABSENT, error=f"its loop has {outer.count} items")
            return Begun(RUNNING, *outer.items[unit["iteration"]])
        try:
            return self._allowed(unit) or self._resolved(path, unit, outer)
        except (launcher.TaskError, launcher.ConditionError) as error:
            self.failures[path] = str(error)
            return Begun(FAILED, error=str(error))

    def _allowed(self, unit: Mapping[str, Any]) -> Begun | None:
        """Return why a task does not run after those before it; None where it may."""
        before = [(name, self.ended(_inside(unit["scope"], name))) for name in unit["depends_on"]]
        if unit.get("whatever"):
            return None
        for name, other in before:
            if other.state in (FAILED, CANCELLED):
                return Begun(CANCELLED, error=f"not run: {_inside(unit['scope'], name)} {other.state.lower()}")
        return Begun(SKIPPED) if any(other.state == SKIPPED for _, other in before) else None

    def _resolved(self, path: str, unit: Mapping[str, Any], outer: Begun) -> Begun:
        """Return a task with what it is given. An input whose producer gave nothing is left out."""
        constants: dict[str, Any] = {}
        found: dict[str, Any] = {}
        artifacts: dict[str, Sequence[Reference]] = {}
        for name, given in unit["inputs"].items():
            is_artifact = name in unit["artifact_inputs"]
            value = self._value(unit, given, outer, is_artifact)
            if given["from"] == "constant":
                constants[name] = value
            elif value is not None and is_artifact:
                artifacts[name] = value
            elif value is not None:
                found[name] = value
        names = task_names(self.names, path, unit["name"])
        name = ""
        try:
            for name, value in constants.items():
                found[name] = launcher.fill(value, {"inputs": {"parameterValues": found}}, names)
            for name, given in unit["inputs"].items():
                if given.get("selector") and name in found:
                    found[name] = launcher.select(found[name], given["selector"])
        except (launcher.TaskError, ValueError) as error:
            raise launcher.TaskError(f"{unit['name']}: input {name!r}: {error}") from error
        task = task_of(unit["ports"])
        parameters = launcher.bind(task, found)
        condition = unit.get("condition")
        if condition and not launcher.condition_holds(condition, parameters):
            return Begun(SKIPPED, parameters, artifacts, error=f"the condition {condition} is false")
        if "loop" not in unit:
            if unit["kind"] == "import":
                self._import(path, unit, parameters, names)
            return Begun(RUNNING, parameters, artifacts)
        items = list(_iterations(unit, task, parameters, artifacts))
        if len(items) > unit["bound"]:
            raise launcher.TaskError(
                f"{unit['name']}: its loop has {len(items)} items, and the job was converted for at most "
                f"{unit['bound']}; convert it again, with max_iterations or with the parameters of this run"
            )
        return Begun(RUNNING, parameters, artifacts, items=items, count=len(items))

    def _value(self, unit: Mapping[str, Any], given: Mapping[str, Any], outer: Begun, is_artifact: bool) -> Any:
        kind = given["from"]
        if kind == "constant":
            return given["value"]
        if kind == "scope":
            return (outer.artifacts if is_artifact else outer.parameters).get(given["name"])
        if kind == "pipeline":
            return self.root.parameters.get(given["name"])
        ended = self.ended(_inside(unit["scope"], given["task"]))
        if kind == "status":
            return self._final_status(given["task"], ended)
        return (ended.artifacts if is_artifact else ended.parameters).get(given["port"])

    def _final_status(self, name: str, ended: Ended) -> dict[str, Any]:
        error = {"code": ended.exit_code or 1, "message": ended.error or ""} if ended.state == FAILED else {}
        return {
            "state": _FINAL[self.step["final_status"]].get(ended.state, ended.state),
            "pipelineTaskName": name,
            "pipelineJobResourceName": self.names["pipeline_job_resource_name"],
            "error": error,
        }

    def _import(
        self, path: str, unit: Mapping[str, Any], parameters: Mapping[str, Any], names: Mapping[str, str]
    ) -> None:
        source, given = unit["import"], {"inputs": {"parameterValues": parameters}}
        uri = parameters.get(source["parameter"]) if source["parameter"] else source["uri"]
        uri = launcher.fill(uri, given, names)
        if uri != source["converted"]:
            raise launcher.TaskError(
                f"{unit['name']}: imports {uri!r}, and the job was converted for {source['converted']!r}; convert it "
                "again with the parameters of this run"
            )
        metadata = launcher.fill(dict(source["metadata"]), given, names)
        self.imported[path] = launcher.Artifact(source["port"], source["type"], uri, metadata)

    def _end(self, path: str, unit: Mapping[str, Any]) -> Ended:
        if unit["kind"] == "task" and "loop" not in unit:
            control = self.controls[path]
            artifacts = {port: [("task", path, port)] for port in control["artifacts"]}
            return Ended(control["state"], control["parameters"], artifacts, control["error"], control["exit_code"])
        begun = self.begin(path)
        if begun.state != RUNNING:
            return Ended(begun.state, error=begun.error)
        if "loop" in unit:
            return self._end_loop(path, unit, begun.count)
        if unit["kind"] == "import":
            return Ended(SUCCEEDED, {}, {unit["import"]["port"]: [("import", path)]})
        children = {name: self.ended(_inside(path, name)) for name in unit["children"]}
        state, error, exit_code = _together(children.values())
        if state != SUCCEEDED:
            return Ended(state, error=error, exit_code=exit_code)
        return Ended(state, *outputs_of(unit, children))

    def _end_loop(self, path: str, unit: Mapping[str, Any], count: int) -> Ended:
        iterations = [self.ended(_inside(path, str(index))) for index in range(count)]
        state, error, exit_code = _together(iterations)
        if state != SUCCEEDED:
            return Ended(state, error=error, exit_code=exit_code)
        parameters = {}
        for name in unit["output_parameters"]:
            found = [one.parameters[name] for one in iterations if name in one.parameters]
            parameters[name] = [value for part in found for value in part] if name in unit["flat"] else found
        artifacts = {
            name: [item for one in iterations for item in one.artifacts.get(name, ())]
            for name in unit["output_artifacts"]
        }
        return Ended(state, parameters, artifacts)


def outputs_of(unit: Mapping[str, Any], children: Mapping[str, Ended]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the outputs of a scope: of several sources of one output, the first that ran gives it."""
    parameters, artifacts = {}, {}
    for name, sources in unit["outputs"].items():
        for task, port in sources:
            if port in children[task].parameters:
                parameters[name] = children[task].parameters[port]
                break
            if port in children[task].artifacts:
                artifacts[name] = children[task].artifacts[port]
                break
    return parameters, artifacts


def task_of(task: Mapping[str, Any]) -> launcher.Task:
    """Return the launcher's task that a mapping was made of."""
    return launcher.Job.from_json({"task": task, "folder": "", "result": ""}).task


def task_names(names: Mapping[str, str], path: str, name: str) -> dict[str, str]:
    """Return the values of the system placeholders in one task."""
    own = uuid.uuid5(uuid.NAMESPACE_URL, f"{names['pipeline_job_name']}/{path}")
    return {**names, "pipeline_task_name": name, "pipeline_task_uuid": str(own)}


def _inside(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name


def _together(parts: Iterable[Ended]) -> tuple[str, str | None, int | None]:
    """Return how a group ended, with the first error: failed if any part of it failed, whatever came after."""
    found = list(parts)
    for state in (FAILED, CANCELLED):
        for part in found:
            if part.state == state:
                return state, part.error, part.exit_code
    return SUCCEEDED, None, None


def _iterations(
    unit: Mapping[str, Any],
    task: launcher.Task,
    parameters: Mapping[str, Any],
    artifacts: Mapping[str, Sequence[Reference]],
) -> Iterable[tuple[Mapping[str, Any], Mapping[str, Sequence[Reference]]]]:
    """Yield what each iteration of a loop is given."""
    loop = unit["loop"]
    if loop["kind"] == "artifact":
        for artifact in artifacts.get(loop["items"], ()):
            yield dict(parameters), {**artifacts, loop["item"]: [artifact]}
        return
    items = parameters.get(loop["items"]) if isinstance(loop["items"], str) else loop["items"]
    if isinstance(items, str):
        with contextlib.suppress(ValueError):
            items = json.loads(items)
    if not isinstance(items, list):
        raise launcher.TaskError(f"{unit['name']}: loops over {loop['items']}, which is not a list but {items!r}")
    for item in items:
        yield launcher.bind(task, {**parameters, loop["item"]: item}), artifacts


# What a step is given by Azure, and leaves


def read_literals(text: str) -> dict[str, str]:
    """Return the values that the command's lines `@@name@@value` hold; a value may have several lines."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.split("\n"):
        match = _LITERAL.match(line)
        if match and match.group(1) not in found:
            current = found.setdefault(match.group(1), [])
            line = line[match.end() :]
        current.append(line)
    if found:
        current.pop()  # what follows the last line's end
    return {name: "\n".join(lines) for name, lines in found.items()}


def parameter_value(text: str, kind: str) -> Any:
    """Return the value of a pipeline's parameter from how Azure puts it into a command.

    Raises:
        ValueError: the text is no such value.
    """
    if text.startswith(ESCAPE):
        value = json.loads(text[len(ESCAPE) :])
    elif kind == "STRING":
        value = text
    elif kind == "BOOLEAN":
        value = launcher.from_text(text, kind)
    elif kind == "NUMBER_DOUBLE":
        value = float(text)
    elif kind == "NUMBER_INTEGER":
        value = int(text) if re.fullmatch(r"\s*[-+]?\d+\s*", text) else float(text)
    else:
        value = json.loads(text)
    return value if value is None else launcher.check_value(value, kind)


def shell_script(
    line: Sequence[str],
    env: Mapping[str, str],
    places: Mapping[str, str],
    waits: Sequence[int],
    timeout: float | None,
    workdir: str,
    folders: Sequence[str],
) -> str:
    """Return what step.sh reads of a command: quoted words, and variables for paths that only it will know.

    Args:
        line: The command and its arguments.
        env: Its own environment variables.
        places: What stands in these texts for the path of an input or output of the command's step, by its name.
        waits: Seconds before each attempt.
        timeout: Seconds that an attempt may take; None: any.
        workdir: Its working folder; empty: a new one.
        folders: Folders that it expects.
    """
    names = {place: name for name, place in places.items()}
    marked = re.compile("|".join(map(re.escape, names)))

    def word(text: str) -> str:
        found, end = [], 0
        for match in marked.finditer(text):
            found += [text[end : match.start()], match.group()]
            end = match.end()
        found.append(text[end:])
        pieces = [f'"$penstock_{names[each]}"' if each in names else shlex.quote(each) for each in found if each]
        return "".join(pieces) or "''"

    if "\0" in "".join([*line, *env.values()]):
        raise ValueError("embedded null byte")
    if env and "=" in line[0]:
        raise ValueError("its name holds '=', and the task has environment variables")
    words = ["exec", *(["env", *(word(f"{name}={value}") for name, value in env.items())] if env else [])]
    lines = [
        *(f"mkdir -p {shlex.quote(folder)} || exit 70" for folder in folders),
        f"penstock_waits='{' '.join(map(str, waits))}'",
        f"penstock_timeout='{'' if timeout is None else format(timeout, 'g')}'",
        f"penstock_workdir={shlex.quote(workdir)}",
        "penstock_command() {",
        " ".join([*words, *map(word, line)]),
        "}",
    ]
    return "".join(f"{each}\n" for each in lines)


def waits_of(task: launcher.Task) -> list[int]:
    """Return whole seconds before each attempt of a task."""
    found, wait = [0], task.wait
    for _ in range(task.retries):
        found.append(math.ceil(min(wait, task.longest_wait)))
        wait = min(wait * task.factor, task.longest_wait)
    return found


def write_json(path: Path, value: Any) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_text(json.dumps(value, indent=1, sort_keys=True), encoding="utf-8")
    os.replace(half, path)


class Step:
    """A step at work.

    Args:
        step: The step, as step.json holds it.
        given: What Azure put into its command: paths of inputs and outputs, texts of parameters, by name.
        stop: Ends its command.
    """

    def __init__(self, step: Mapping[str, Any], given: Mapping[str, str], stop: launcher.Stop) -> None:
        self.step, self.given, self.stop = step, given, stop
        self.controls = {
            path: json.loads((Path(given[name]) / CONTROL_FILE).read_text(encoding="utf-8"))
            for name, path in step["controls"].items()
        }
        for name in step.get("gathered", ()):
            self.controls.update(json.loads((Path(given[name]) / GATHERED_FILE).read_text(encoding="utf-8")))
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        job = os.environ.get("AZUREML_ROOT_RUN_ID", step["pipeline"])
        self.names = {
            "pipeline_job_name": job,
            "pipeline_job_resource_name": job,
            "pipeline_job_uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, job)),
            "pipeline_job_create_time_utc": started,
            "pipeline_job_schedule_time_utc": started,
        }
        self.locations = {tuple(source): given[name] for name, source in step["artifacts"].items()}

    def world(self) -> World:
        """Return the part of the pipeline that the step knows.

        Raises:
            TaskError: a parameter of the pipeline has a value of another type.
        """
        parameters = {}
        for name, port in self.step["parameters"].items():
            try:
                value = parameter_value(self.given[name], port["type"])
            except ValueError as error:
                raise launcher.TaskError(f"the pipeline's parameter {port['name']}: {error}") from error
            if value is not None:
                parameters[port["name"]] = value
        artifacts = [source[1] for source in self.locations if source[0] == "pipeline"]
        return World(self.step, parameters, artifacts, self.controls, self.names)

    def run(self, stream: BinaryIO) -> int:
        """Carry the step out and return its exit code."""
        mode = {
            "task": self.run_task,
            "prepare": self.prepare,
            "gather": self.gather,
            "verdict": self.verdict,
            "outputs": self.write_outputs,
        }
        return mode[self.step["mode"]](stream)

    def run_task(self, stream: BinaryIO) -> int:
        """Run the task if the pipeline means it to run here; leave what came of it."""
        path = self.step["path"]
        outcome: dict[str, Any] = {"state": FAILED, "error": None, "exit_code": None}
        world = None
        try:
            world = self.world()
            begun = world.begin(path)
            if begun.state == RUNNING:
                outcome.update(self._launch(world, begun, stream))
            else:
                outcome.update(state=begun.state, error=begun.error)
        except launcher.TaskError as error:
            outcome.update(error=str(error), exit_code=error.exit_code)
        except launcher.Stopped:
            outcome.update(state=CANCELLED, error="stopped from outside")
        # What fails before it begins is told by the steps inside it, where there are any.
        failures = {
            each: error
            for each, error in (world.failures if world else {path: outcome["error"]}).items()
            if each in self.step["chain"] or not any(other.startswith(f"{each}.") for other in self.controls)
        }
        scopes = world.scopes() if world else {}
        return self._leave(outcome, failures, scopes)

    def prepare(self, stream: BinaryIO) -> int:
        """Leave the command of a task for the step after this one, which has no Python; nothing if it does not run.

        Why it does not is said by the task's own step, which is the one after that and evaluates the same.
        """
        folder, script, state = Path(self.given["control"]), None, FAILED
        with contextlib.suppress(launcher.TaskError):
            world = self.world()
            begun = world.begin(self.step["of"])
            state = begun.state
            if begun.state == RUNNING:
                script = self._script(world, begun)
        if script is not None:
            (folder / COMMAND_FILE).write_bytes(script)
        write_json(folder / CONTROL_FILE, {"state": state})
        print(f"penstock: {self.step['of']}: {'runs in the next step' if script else 'does not run'}", flush=True)
        return 0

    def _script(self, world: World, begun: Begun) -> bytes | None:
        """Return a task's command for sh; None where sh cannot run it, as no process could be started either."""
        task = task_of(self.step["task"])
        mark = hashlib.sha256(json.dumps(self.step, sort_keys=True).encode()).hexdigest()[:16]
        places = {name: f"@penstock-{mark}-{name}@" for name in ("control", *self.step["artifacts"])}
        there = {self.given[name]: places[name] for name in self.step["artifacts"]}
        artifacts: dict[str, list[launcher.Artifact]] = {}
        for port, references in begun.artifacts.items():
            artifacts[port] = []
            for reference in references:
                found, here = self._artifact(world, reference), self.locations[tuple(reference)]
                if found.uri == here or found.uri.startswith(here + os.sep):
                    found = replace(found, uri=there[here] + found.uri[len(here) :])
                artifacts[port].append(found)
        parameters = launcher.bind(task, begun.parameters)
        given = launcher.executor_input(task, parameters, artifacts, Path(places["control"]) / "outputs")
        names = task_names(self.names, self.step["of"], self.step["name"])
        command, args, env = launcher.command_line(task, given, names)
        try:
            return shell_script(
                [*command, *args],
                env,
                places,
                waits_of(task),
                task.timeout,
                self.step["workdir"],
                self.step["folders"],
            ).encode()
        except ValueError:
            return None

    def _launch(self, world: World, begun: Begun, stream: BinaryIO) -> dict[str, Any]:
        task = task_of(self.step["task"])
        if "made" in self.given:  # the step before has tried as often as it may be
            task = replace(task, retries=0)
        artifacts = {
            port: [self._artifact(world, reference) for reference in references]
            for port, references in begun.artifacts.items()
        }
        for folder in self.step["folders"] if "made" not in self.given else ():
            Path(folder).mkdir(parents=True, exist_ok=True)
        work = _own_folder()
        try:
            names = task_names(self.names, self.step["path"], self.step["name"])
            parameters = launcher.bind(task, begun.parameters)
            found = launcher.run(
                task, parameters, artifacts, work, names=names, stop=self.stop, stream=stream, runner=self._runner()
            )
            self._copy(found.artifacts)
            self._keep(found.artifacts, work / "outputs")
        finally:
            shutil.rmtree(str(work), ignore_errors=True)
        return {"state": SUCCEEDED, "parameters": found.parameters, "artifacts": sorted(found.artifacts)}

    def _runner(self) -> launcher.Runner:
        if "made" in self.given:
            return self._take
        workdir = self.step["workdir"]
        if not workdir:
            return launcher.run_process

        def run(command: Any, args: Any, env: Any, folder: Path, log: Path, **options: Any) -> int:
            return launcher.run_process(command, args, env, Path(workdir), log, **options)

        return run

    def _take(
        self, command: Any, args: Any, env: Any, folder: Path, log: Path, *, timeout: float | None, stream: BinaryIO,
        **options: Any,
    ) -> int:  # fmt: skip
        """Take what the command left in the step before this one, in place of running it."""
        made = Path(self.given["made"])
        if not (made / "code").is_file():
            if "\0" in "".join([*command, *args, *env.values()]):
                raise launcher.TaskError(f"the command {command[0]!r} cannot be started: embedded null byte", 126)
            raise launcher.TaskError("its command was not run in the step before this one, whose log says why")
        outputs = folder.parent / "outputs"
        if (made / "outputs").is_dir():
            shutil.copytree(str(made / "outputs"), str(outputs), symlinks=True, dirs_exist_ok=True)
        said = outputs / "executor_output.json"
        if said.is_file():
            there, here = (json.dumps(each)[1:-1] for each in (f"{(made / 'where').read_text()}/outputs", str(outputs)))
            said.write_text(said.read_text(encoding="utf-8").replace(there, here), encoding="utf-8")
        if (made / "log.txt").is_file():
            log.write_bytes((made / "log.txt").read_bytes())
            stream.write(log.read_bytes())
            stream.flush()
        code = int((made / "code").read_text())
        if (made / "late").is_file():
            raise launcher.TaskError(f"timed out after {timeout:g} s", -signal.SIGTERM)
        return code

    def _artifact(self, world: World, reference: Reference) -> launcher.Artifact:
        """Return an artifact as it is here."""
        location = self.locations[tuple(reference)]
        if reference[0] == "pipeline":
            return launcher.Artifact(reference[1], self.step["pipeline_artifacts"][reference[1]], location)
        if reference[0] == "import":
            known = asdict(world.imported[reference[1]])
            return launcher.Artifact(**{**known, "uri": location})
        said = json.loads((Path(location) / ARTIFACT_FILE).read_text(encoding="utf-8"))
        uri = said["uri"] or str(Path(location) / said["path"])
        return launcher.Artifact(said["name"], said["type"], uri, said["metadata"])

    def _copy(self, artifacts: Mapping[str, launcher.Artifact]) -> None:
        """Copy artifacts to where Azure takes their files from as something of its own.

        Raises:
            TaskError: one is not what it is to be.
        """
        for name, (port, kind) in self.step.get("copies", {}).items():
            if port not in artifacts:
                continue
            where, source = f"{self.step['name']}: output {port!r}", Path(artifacts[port].uri)
            if "://" in artifacts[port].uri or not source.exists():
                raise launcher.TaskError(f"{where}: the options ask for a {kind} of it, and it has no files")
            if kind == "uri_file" and source.is_dir():
                raise launcher.TaskError(f"{where}: the options ask for a file of it, and it is a folder")
            heart = _HEART.get(kind)
            if heart and not (source / heart).is_file():
                raise launcher.TaskError(f"{where}: the options ask for a {kind} of it, and there is no {heart} in it")
            target = Path(self.given[name])
            if source.is_dir():
                shutil.copytree(str(source), str(target), dirs_exist_ok=True)
            else:
                shutil.copy2(str(source), str(target / port if target.is_dir() else target))

    def _keep(self, artifacts: Mapping[str, launcher.Artifact], made: Path) -> None:
        """Move what a command wrote into the folders of its outputs, what it wrote beside them as well."""
        ports = {port: Path(self.given[name]) for name, port in self.step["outputs"].items()}
        # A component may name its artifact's file as it likes.
        own = {Path(os.path.relpath(one.uri, str(made))).parts[0]: port for port, one in artifacts.items()}
        for entry in sorted(made.iterdir()) if made.is_dir() else ():
            owners = [own[entry.name]] if entry.name in own else [port for port in ports if entry.name.startswith(port)]
            if not owners:
                print(f"penstock: {entry.name} is beside the outputs and belongs to none; it is not kept", flush=True)
                continue
            target = ports[max(owners, key=len)] / entry.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(str(entry), str(target))
        for port, artifact in artifacts.items():
            inside = artifact.uri.startswith(f"{made}{os.sep}")
            path, uri = port, ""
            if inside:
                path = os.path.relpath(artifact.uri, str(made))
            elif "://" in artifact.uri:
                uri = artifact.uri
            elif Path(artifact.uri).exists():
                source, target = Path(artifact.uri), ports[port] / port
                (shutil.copytree if source.is_dir() else shutil.copy2)(str(source), str(target))
            said = {"name": artifact.name, "type": artifact.type, "metadata": artifact.metadata}
            write_json(ports[port] / ARTIFACT_FILE, {"state": SUCCEEDED, "path": path, "uri": uri, **said})

    def _leave(self, outcome: Mapping[str, Any], failures: Mapping[str, Any], scopes: Mapping[str, Any]) -> int:
        """Write how the step ended, and return its exit code."""
        control = {"parameters": {}, "artifacts": [], **outcome, "task": self.step["path"]}
        for name in self.step["outputs"]:
            file = Path(self.given[name]) / ARTIFACT_FILE
            if not file.exists():
                write_json(file, {"state": control["state"]})
        for name in self.step.get("copies", {}):
            place = Path(self.given[name])
            if not place.exists() or (place.is_dir() and not next(place.iterdir(), None)):
                write_json(place / ARTIFACT_FILE if place.is_dir() else place, {"state": control["state"]})
        folder = Path(self.given["control"])
        for name, value in control["parameters"].items():
            (folder / "parameters").mkdir(parents=True, exist_ok=True)
            (folder / "parameters" / name).write_bytes(launcher.to_text(value).encode("utf-8"))
        write_json(folder / CONTROL_FILE, {**control, "failures": dict(failures), "scopes": dict(scopes)})
        state, error = control["state"], control["error"]
        print(f"penstock: {self.step['path']}: {state}{f': {error}' if error else ''}", flush=True)
        for failed in dict.fromkeys([*([error] if state == FAILED else []), *failures.values()]):
            print(f"error: {failed}", file=sys.stderr, flush=True)
        if state == CANCELLED and self.stop.requested():
            return 143
        if self.step["capture"] or (state != FAILED and not failures):
            return 0
        code = control["exit_code"]
        return code if code and 0 < code < 126 else launcher.OWN_EXIT_CODE

    def gather(self, stream: BinaryIO) -> int:
        """Leave how many steps ended in one file, for steps that have no room for so many inputs."""
        write_json(Path(self.given["control"]) / GATHERED_FILE, self.controls)
        return 0

    def verdict(self, stream: BinaryIO) -> int:
        """Fail where a step failed whose failure was kept, for those that run whatever came before them."""
        failed = {path: control["error"] for path, control in self.controls.items() if control["state"] == FAILED}
        for control in self.controls.values():
            failed.update(control["failures"])
        write_json(Path(self.given["control"]) / CONTROL_FILE, {"failed": failed})
        for path, error in sorted(failed.items()):
            print(f"error: task {path}: {error}", file=sys.stderr, flush=True)
        return 1 if failed else 0

    def write_outputs(self, stream: BinaryIO) -> int:
        """Leave the outputs of the pipeline that are no one step's artifact."""
        world = self.world()
        root = self.step["root"]
        children = {task: world.ended(task) for sources in root["outputs"].values() for task, _ in sources}
        parameters, artifacts = outputs_of(root, children)
        ports = {port: Path(self.given[name]) for name, port in self.step["outputs"].items()}
        listed: dict[str, Any] = {}
        for port, references in sorted(artifacts.items()):
            if port not in ports:
                continue
            listed[port] = []
            for index, reference in enumerate(references):
                artifact = self._artifact(world, reference)
                name = port if len(references) == 1 and not root["lists"].get(port) else f"{port}-{index}"
                if "://" not in artifact.uri and Path(artifact.uri).exists():
                    source, target = Path(artifact.uri), ports[port] / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    (shutil.copytree if source.is_dir() else shutil.copy2)(str(source), str(target))
                listed[port].append({**artifact.runtime(), "path": name})
        for port, folder in ports.items():
            write_json(folder / ARTIFACT_FILE, {"state": SUCCEEDED, "artifacts": listed.get(port, [])})
        write_json(Path(self.given["control"]) / OUTPUTS_FILE, {"parameters": parameters, "artifacts": listed})
        return 0


def _own_folder() -> Path:
    """Return a new folder to work in: in the step's own, where disks are large, if it can be written to."""
    here = str(Path.cwd()) if os.access(str(Path.cwd()), os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix=".penstock-", dir=here))


def main() -> int:
    """Run the step that step.json beside this file holds, with what standard input says, and return the exit code."""
    step = json.loads((Path(__file__).absolute().parent / "step.json").read_text(encoding="utf-8"))
    given = read_literals(sys.stdin.read())
    stop = launcher.Stop(_GRACE)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: threading.Thread(target=stop.request).start())
    return Step(step, given, stop).run(sys.stdout.buffer)


if __name__ == "__main__":
    sys.exit(main())
