"""What is sent to a platform, what comes back, and the table of platforms; the platforms themselves are in targets/."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, cast

from penstock.compile import from_kfp, graph, parameters, rewrites
from penstock.compile.documents import Documents, NotAPipeline, unwrap
from penstock.compile.errors import PenstockError
from penstock.compile.findings import Finding, errors

TARGETS: Mapping[str, str] = {
    "kubeflow": "penstock.compile.targets.kubeflow",
    "vertex": "penstock.compile.targets.vertex",
    "azureml": "penstock.compile.targets.azureml",
}
"""Platforms that runs can be sent to, and their modules, which are imported when they are needed."""


class RunState(StrEnum):
    """How far a run, or a task of one, is."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"

    @property
    def over(self) -> bool:
        """Whether nothing comes after it."""
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.SKIPPED)


@dataclass(frozen=True)
class TaskStatus:
    """A task of a run on a platform.

    Attributes:
        id: Of the platform, unique in the run.
        path: Names of the tasks around it and its own, joined with dots, as far as the platform tells them.
    """

    id: str
    path: str
    state: RunState
    error: str = ""


@dataclass(frozen=True)
class RemoteRun:
    """A run on a platform.

    Attributes:
        id: By which the platform knows it.
        url: Page of the platform's console.
        adopted: Whether it was there already when it was to be made: an earlier attempt had got through.
    """

    id: str
    name: str
    url: str
    state: RunState
    error: str = ""
    tasks: tuple[TaskStatus, ...] = ()
    adopted: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Place:
    """Where runs are sent to. Secrets are named, not given: `env:NAME` or `file:PATH`.

    Attributes:
        endpoint: Address of Vertex AI's API, where it is not Google's own.
        token: Bearer token of Kubeflow.
        cookies: Cookies of Kubeflow.
        subscription, resource_group, workspace: Of Azure ML.
    """

    project: str | None = None
    location: str | None = None
    endpoint: str | None = None
    host: str | None = None
    namespace: str | None = None
    token: str | None = None
    cookies: str | None = None
    ca_cert: str | None = None
    subscription: str | None = None
    resource_group: str | None = None
    workspace: str | None = None


@dataclass(frozen=True)
class Settings:
    """How a run is to be on a platform; what is None is the platform's own choice.

    Attributes:
        identity: Whom Azure ML's tasks run as.
        options: What a conversion is told, as its file has it.
        register: What of a converted pipeline is to be there under names of its own: "environments", "components".
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    service_account: str | None = None
    network: str | None = None
    encryption_key: str | None = None
    experiment: str | None = None
    pipeline_root: str | None = None
    identity: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    register: tuple[str, ...] = ()

    def request(self) -> dict[str, Any]:
        """Return what makes a difference to a run, as JSON; of what came later, that which is given."""
        found = dataclasses.asdict(self)
        return {name: value for name, value in found.items() if value or name not in _LATER}


_LATER = ("identity", "options", "register", "every")  # requests that do without are what they were before


@dataclass(frozen=True)
class Submission:
    """A spec and all that a run of it needs.

    Attributes:
        content: The very bytes that are sent.
        sha256: Of the content.
        documents: What they hold, as it is written.
        pipeline: What they hold.
        values: Values of all its inputs; URIs or ids for artifacts.
        name: What the run is called on the platform's pages.
        key: Whoever submits the same spec with the same key again gets the run that is there.
        files: Of what was converted to the platform's own form before, by path; the content is then the list of them
            with their SHA-256.
    """

    content: bytes
    sha256: str
    documents: Documents
    pipeline: graph.Pipeline
    values: Mapping[str, Any]
    name: str
    key: str
    settings: Settings = Settings()
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def token(self) -> str:
        """Stands for the spec and the key: 16 hexadecimal digits."""
        return _digest(self.sha256, self.key)[:16]

    @property
    def request(self) -> str:
        """Stands for all that makes a difference to the run: SHA-256 in hexadecimal."""
        return _digest(self.sha256, dict(self.values), self.settings.request())

    @property
    def slug(self) -> str:
        """Name of the pipeline in lower-case letters, digits and hyphens; begins with a letter."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.pipeline.name.lower()).strip("-")
        return plain if plain[:1].isalpha() else f"run-{plain}".rstrip("-")

    @property
    def parameters(self) -> dict[str, Any]:
        """Values of the parameters alone."""
        return {name: value for name, value in self.values.items() if name in self.pipeline.inputs.parameters}

    @property
    def artifacts(self) -> dict[str, str]:
        """Values of the artifact inputs alone."""
        return {name: value for name, value in self.values.items() if name in self.pipeline.inputs.artifacts}

    def to_json(self) -> dict[str, Any]:
        """Return what would be sent, but for the spec itself, as JSON."""
        return {
            "name": self.name,
            "pipeline": self.pipeline.name,
            "sha256": self.sha256,
            "bytes": len(self.content),
            "key": self.key,
            "parameters": self.parameters,
            "artifacts": self.artifacts,
            **dataclasses.asdict(self.settings),
        }


@dataclass(frozen=True)
class Schedule:
    """When runs are begun.

    Attributes:
        name: Of the schedule; there is one of that name.
        cron: Minute, hour, day of the month, month, day of the week; empty where `every` says when.
        every: A number and minutes, hours, days, weeks or months, such as "2 weeks"; empty where `cron` says when.
        start: ISO 8601 with a time zone; before it nothing runs.
        end: The same; after it nothing runs.
        catch_up: Whether runs that were missed are made up for.
    """

    name: str
    cron: str
    start: str | None = None
    end: str | None = None
    max_runs: int | None = None
    max_concurrent: int | None = None
    catch_up: bool | None = None
    paused: bool = False
    every: str = ""

    def request(self, submission: Submission) -> str:
        """Return what stands for the schedule and all its runs: SHA-256 in hexadecimal; paused or not is the same."""
        own = {**dataclasses.asdict(self), "paused": None}
        return _digest(submission.request, {name: value for name, value in own.items() if value or name not in _LATER})


@dataclass(frozen=True)
class RemoteSchedule:
    """A schedule on a platform.

    Attributes:
        state: ACTIVE, PAUSED or COMPLETED.
        request: What it was made of; empty: it was not made by Penstock.
        next_run: ISO 8601, where the platform tells.
    """

    id: str
    name: str
    cron: str
    state: str
    url: str
    request: str = ""
    next_run: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return dataclasses.asdict(self)


class Platform(Protocol):
    """A platform that runs can be sent to. Every call has a deadline and outlasts passing faults."""

    def submit(self, submission: Submission) -> RemoteRun:
        """Begin a run, and return it; where an earlier attempt has begun it, return that one."""

    def find(self, submission: Submission, seconds: float | None = None) -> RemoteRun | None:
        """Return the run that a submission has begun, if it did; asked for as many seconds at most, where given."""

    def get(self, run_id: str, seconds: float | None = None) -> RemoteRun:
        """Return a run as it is now; asked for as many seconds at most, where given."""

    def cancel(self, run_id: str, seconds: float) -> None:
        """Ask for the end of a run, for as many seconds at most; one that is over already stays as it is."""

    def schedules(self, name: str | None = None) -> Sequence[RemoteSchedule]:
        """Return the schedules, or those of a name."""

    def create_schedule(self, submission: Submission, schedule: Schedule) -> RemoteSchedule:
        """Make a schedule, and return it; where an earlier attempt has made it, return that one."""

    def pause_schedule(self, schedule_id: str) -> None:
        """Begin no run from now on."""

    def resume_schedule(self, schedule_id: str, catch_up: bool | None) -> None:
        """Begin runs again."""

    def delete_schedule(self, schedule_id: str) -> None:
        """Remove a schedule; its runs stay."""


class Target(Protocol):
    """What the module of a platform offers."""

    REFUSED: Mapping[str, str]
    """Options that the platform does not have, and why."""

    def connect(self, place: Place) -> Platform:
        """Return the platform; nothing is asked of it yet."""

    def refusals(self, submission: Submission, schedule: Schedule | None = None) -> Iterator[str]:
        """Yield what the platform would refuse of a submission or schedule, beside what is wrong with the spec."""

    def run_id(self, submission: Submission) -> str:
        """Return the id that the run will have; empty where the platform gives it."""

    # Where a platform has a form of its own that specs are converted to, its module also has
    #     own_form(path, texts, file, key, name, settings) -> Submission | None
    # for what was converted before; None where a path leads to something else.


def target(name: str) -> Target:
    """Return the module of a platform.

    Raises:
        PenstockError: there is no such platform.
    """
    if name not in TARGETS:
        raise PenstockError(f"there is no target {name}; there are {', '.join(TARGETS)}")
    return cast(Target, importlib.import_module(TARGETS[name]))


def check_options(name: str, given: Mapping[str, Any]) -> None:
    """Refuse options that a platform does not have.

    Args:
        name: Of the platform.
        given: Values by the names of the options; None, empty or False: not given.

    Raises:
        PenstockError: one of them is not there; names all, and why.
    """
    refused = [
        f"--{option.replace('_', '-')}: {reason}"
        for option, reason in target(name).REFUSED.items()
        if given.get(option) not in (None, (), {}, "", False)
    ]
    if refused:
        raise PenstockError(f"{name} does not take {'; '.join(refused)}")


def own_form(
    target_name: str,
    path: Path,
    texts: Mapping[str, str],
    file: Path | None,
    key: str,
    *,
    name: str | None = None,
    settings: Settings = Settings(),
) -> Submission | None:
    """Return what a path has in the form of a platform's own, prepared as `prepare` does; None where it has none.

    Raises:
        PenstockError: it cannot be read, or the parameters do not fit.
    """
    read = getattr(target(target_name), "own_form", None)
    return read(path, texts, file, key, name, settings) if read else None


def prepare(
    content: bytes,
    where: str,
    texts: Mapping[str, str],
    file: Path | None,
    key: str,
    *,
    name: str | None = None,
    given: Mapping[str, Any] | None = None,
    settings: Settings = Settings(),
    folder: Path | None = None,
) -> Submission:
    """Return what is to be submitted, its parameters complete and checked.

    Args:
        content: Bytes of a compiled spec.
        where: How errors call it.
        texts: Parameters as a command line has them.
        file: YAML or JSON file of parameters.
        key: Idempotency key.
        given: Parameters as JSON values.
        folder: In whose repository the commit is looked up that pipelines may ask for; the working directory.

    Raises:
        PenstockError: it holds no pipeline, or the parameters do not fit.
    """
    unwrapped = _unwrapped(content, where)
    pipeline = from_kfp.parse(content.decode(), where)
    sha256 = hashlib.sha256(content).hexdigest()
    values = parameters.from_file(pipeline, file) if file else {}
    values |= parameters.from_text(pipeline, texts)
    values |= given or {}
    # What a PipelineJob has in its runtimeConfig already counts as given.
    values = {**unwrapped.values, **values}
    values = parameters.with_lineage(pipeline, values, sha256, folder or Path.cwd())
    return Submission(
        content,
        sha256,
        unwrapped,
        pipeline,
        parameters.complete(pipeline, values),
        name or pipeline.name,
        key,
        settings,
    )


def with_caching(content: bytes, where: str, enabled: bool) -> bytes:
    """Return a spec with caching turned on or off for every task: other bytes, with a SHA-256 of their own.

    Raises:
        PenstockError: it holds no pipeline, or one that is wrapped in something.
    """
    from penstock.compile.yaml_writer import to_yaml

    documents = _unwrapped(content, where)
    if documents.wrapper:
        raise PenstockError(
            f"{where}: caching is changed in a spec alone, and this one is in a {documents.wrapper}; compile it again, "
            "or leave out --cache and --no-cache"
        )
    spec = rewrites.set_caching(dict(documents.spec), enabled)
    parts = [to_yaml(spec), *([to_yaml(dict(documents.platforms))] if documents.platforms else [])]
    return "---\n".join(parts).encode()


def refuse_unsound(submission: Submission, name: str, schedule: Schedule | None = None) -> None:
    """Refuse what a platform would refuse, or would run in another way than it is written.

    Raises:
        PenstockError: there is something; names the first, and how many there are.
    """
    spec = [] if submission.files else errors(findings(submission, name))
    found = [*map(str, spec), *target(name).refusals(submission, schedule)]
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise PenstockError(f"{submission.pipeline.name} cannot run on {name}: {found[0]}{more}")


def findings(submission: Submission, name: str) -> Sequence[Finding]:
    """Return what the linter has to say of a spec for a platform, with the values that it is to run with."""
    from penstock.compile.check import check

    return check(submission.content.decode(), name, submission.values, submission.settings.options)


def secret(reference: str | None, option: str) -> str | None:
    """Return the secret that `env:NAME` or `file:PATH` names; None for none.

    Raises:
        PenstockError: it is neither, or there is nothing.
    """
    import os

    if reference is None:
        return None
    kind, colon, name = reference.partition(":")
    if not colon or kind not in ("env", "file"):
        raise PenstockError(f"--{option}: say where the secret is, env:NAME or file:PATH; it is not given itself")
    if kind == "env":
        found = os.environ.get(name, "")
    else:
        try:
            found = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PenstockError(f"--{option} file:{name}: cannot be read: {type(error).__name__}") from error
    if not found.strip():
        raise PenstockError(f"--{option} {reference}: is empty")
    return found.strip()


def _unwrapped(content: bytes, where: str) -> Documents:
    try:
        return unwrap(content.decode())
    except (UnicodeDecodeError, NotAPipeline) as error:
        raise PenstockError(f"{where}: {error}") from error


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
