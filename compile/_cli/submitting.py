"""Sends a pipeline to a platform, follows it there, and ends it where that is asked for."""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
import signal
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import yaml

from penstock.compile import following, submission
from penstock.compile._cli.output import print_json
from penstock.compile._cli.running import Stopped, signals_raised, split
from penstock.compile._cli.sources import find_source
from penstock.compile.errors import PenstockError
from penstock.compile.submission import Place, Platform, RemoteRun, RunState, Settings, Submission, TaskStatus

# Seconds, together less than the ten after which whoever sent SIGTERM sends SIGKILL.
_LATE = 3.0  # a run may take to be there whose answer was not waited for
_CANCEL = 6.0


@dataclass(frozen=True)
class What:
    """The pipeline, and how it is to run.

    Attributes:
        source: Name, FILE.py:function or file of a spec.
        given: Parameters, NAME=VALUE.
        file: File of parameters.
        caching: Whether tasks may take over outputs of earlier runs; None: as the spec says.
    """

    source: str
    given: Sequence[str] = ()
    file: Path | None = None
    name: str | None = None
    key: str | None = None
    caching: bool | None = None
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True)
class How:
    """What to do beside sending it."""

    wait: bool = False
    watch: bool = False
    timeout: float | None = None
    cancel_on_exit: bool = False
    dry_run: bool = False
    as_json: bool = False


def what(source: str, options: Mapping[str, Any]) -> What:
    """Return the pipeline that a command names, and how it is to run by the command's options."""
    return What(source, settings=settings(options), **_picked(What, options))


def how(options: Mapping[str, Any]) -> How:
    """Return what to do beside sending it, among the options of a command."""
    return How(**_picked(How, options))


def settings(options: Mapping[str, Any]) -> Settings:
    """Return the settings among the options of a command."""
    labels = split(options["label"], "--label", "team=search")
    told = _document(options["options"]) if options["options"] else {}
    return Settings(**{**_picked(Settings, options), "labels": labels, "options": told})


def place(options: Mapping[str, Any]) -> Place:
    """Return the place among the options of a command."""
    return Place(**_picked(Place, options))


def _picked(kind: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options of a command that a dataclass has fields for; the names are the same."""
    return {field.name: options[field.name] for field in dataclasses.fields(kind) if field.name in options}


def _document(path: Path) -> Mapping[str, Any]:
    """Return what the file of a conversion's options holds; whether that is right, the conversion says."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PenstockError(f"{path}: not YAML: {error}") from error
    if not isinstance(found, Mapping):
        raise PenstockError(f"{path}: is not a map of options")
    return found


def submit_and_show(what: What, target: str, where: Place, how: How) -> int:
    """Submit what the user named, show what becomes of it, and return the exit code."""
    prepared, file_sha256 = prepared_for(what, target)
    submission.refuse_unsound(prepared, target)
    module = submission.target(target)
    if how.dry_run:
        _print_plan(prepared, target, module.run_id(prepared), file_sha256, how.as_json)
        return 0
    if not how.as_json:
        _print_sha256(prepared.sha256, file_sha256)
    platform = module.connect(where)
    run: RemoteRun | None = None
    try:
        with signals_raised():
            run = platform.submit(prepared)
            if not how.as_json:
                _print_run(run)
            if how.wait or how.watch:
                run = _followed(platform, run, how)
    except Stopped as stop:
        return _stopped(stop, run, prepared, platform, _command(target, where), how)
    except following.StillRunning as late:
        if how.as_json:
            print_json(_answer(target, prepared, late.run))
        print(f"error: {late}; to end it: {_command(target, where)} {late.run.id}", file=sys.stderr)
        return 1
    if how.as_json:
        print_json(_answer(target, prepared, run))
    if not (how.wait or how.watch):
        return 0
    return _verdict(run)


def prepared_for(what: What, target: str) -> tuple[Submission, str]:
    """Return what is to be submitted, and the SHA-256 of the spec before caching was turned on or off.

    Raises:
        PenstockError: It is not there, or its parameters do not fit.
    """
    texts = split(what.given)
    # Without a key of the user's, one that the attempts of this command share, and no other command has.
    key = what.key or uuid.uuid4().hex
    own = submission.own_form(target, Path(what.source), texts, what.file, key, name=what.name, settings=what.settings)
    if own is not None:
        if what.caching is not None:
            raise PenstockError(
                f"{what.source}: caching is changed in a spec, and this is converted already; convert the spec anew, "
                "or leave out --cache and --no-cache"
            )
        return own, own.sha256
    source = find_source(what.source)
    if source.function is None:
        assert source.file is not None
        try:
            content, named = source.file.read_bytes(), str(source.file)
        except OSError as error:
            raise PenstockError(f"{source.file}: cannot be read: {error.strerror}") from error
    else:
        content, named = source.compiled().text.encode(), source.name
    file_sha256 = hashlib.sha256(content).hexdigest()
    if what.caching is not None:
        content = submission.with_caching(content, named, what.caching)
    prepared = submission.prepare(content, named, texts, what.file, key, name=what.name, settings=what.settings)
    return prepared, file_sha256


def cancel_and_show(run_id: str, target: str, where: Place, as_json: bool) -> int:
    """Cancel a run, show how it is then, and return the exit code."""
    platform = submission.target(target).connect(where)
    before = platform.get(run_id)
    run = before if before.state.over else following.cancel(platform, run_id)
    if as_json:
        print_json(run.to_json())
    elif before.state.over:
        click.echo(f"run {run.id} was over already: {run.state.lower()}")
    else:
        click.echo(f"run {run.id} is {run.state.lower()}")
    return 0


def _followed(platform: Platform, run: RemoteRun, how: How) -> RemoteRun:
    began, changes = time.monotonic(), following.Changes()

    def observe(now: RemoteRun) -> None:
        for task in changes(now):
            if how.watch:
                print(f"{time.monotonic() - began:8.1f} s  {_sentence(task)}", file=sys.stderr, flush=True)

    ended = following.follow(lambda: platform.get(run.id), observe, how.timeout)
    return dataclasses.replace(ended, adopted=run.adopted)


def _sentence(task: TaskStatus) -> str:
    return f"{task.path}: {task.state.lower()}{f': {task.error}' if task.error else ''}"


def _verdict(run: RemoteRun) -> int:
    if run.state is RunState.SUCCEEDED:
        return 0
    failed = [task for task in run.tasks if task.state is RunState.FAILED and task.error]
    for task in failed:
        print(f"error: {task.path}: {task.error}", file=sys.stderr)
    if run.error or not failed:
        print(f"error: run {run.id} {run.state.lower()}{f': {run.error}' if run.error else ''}", file=sys.stderr)
    print(f"see {run.url}", file=sys.stderr)
    return 1


def _stopped(
    stop: Stopped, run: RemoteRun | None, prepared: Submission, platform: Platform, command: str, how: How
) -> int:
    """Cancel the run, leave it, or ask, and say which."""
    code = 128 + stop.number
    said = f"stopped by {signal.Signals(stop.number).name}"
    if run is None and how.cancel_on_exit:
        run = _late(platform, prepared)
    if run is None:
        again = "" if how.cancel_on_exit else f"; if it has been begun, --idempotency-key {prepared.key} finds it"
        print(f"{said} before the run was known to be there{again}", file=sys.stderr)
        return code
    if how.cancel_on_exit or (stop.number == signal.SIGINT and _wants_it_cancelled(run)):
        try:
            run = following.cancel(platform, run.id, _CANCEL)
        except PenstockError as error:
            print(f"{said}; {error}; to end it: {command} {run.id}", file=sys.stderr)
            return code
        print(f"{said}; run {run.id} is {run.state.lower()}", file=sys.stderr)
    else:
        print(f"{said}; run {run.id} goes on: {run.url}; to end it: {command} {run.id}", file=sys.stderr)
    return code


def _late(platform: Platform, prepared: Submission) -> RemoteRun | None:
    """Return the run of an attempt whose answer was on its way."""
    end = time.monotonic() + _LATE
    while time.monotonic() < end:
        try:
            if run := platform.find(prepared, 1.0):
                return run
        except PenstockError as error:
            print(f"warning: {error}", file=sys.stderr)
        time.sleep(0.3)
    return None


def _wants_it_cancelled(run: RemoteRun) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    try:
        return click.confirm(f"\nCancel run {run.id}, too?", default=False, err=True)
    except click.Abort:  # Ctrl-C again
        return False


def _command(target: str, where: Place) -> str:
    """Return the command that cancels a run there, but for its id."""
    given = {name: value for name, value in vars(where).items() if value}
    options = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
    return shlex.join(["penstock", "cancel", "--target", target, *options])


def _print_sha256(sent: str, of_file: str) -> None:
    click.echo(f"sha256  {sent}")
    if sent != of_file:
        click.echo(f"        of the spec with caching changed; before, it is {of_file}")


def _print_run(run: RemoteRun) -> None:
    click.echo(f"run     {run.id}{' (an earlier attempt had begun it)' if run.adopted else ''}")
    click.echo(f"url     {run.url}")


def _print_plan(prepared: Submission, target: str, run_id: str, file_sha256: str, as_json: bool) -> None:
    plan = {"target": target, "run": run_id or None, **prepared.to_json(), "file_sha256": file_sha256}
    if as_json:
        print_json(plan)
        return
    _print_sha256(prepared.sha256, file_sha256)
    click.echo(f"would be sent to {target}: {len(prepared.content)} bytes")
    for name in ("run", "name", "parameters", "artifacts", *vars(prepared.settings)):
        if plan[name]:
            click.echo(f"{name:16}{plan[name]}")


def _answer(target: str, prepared: Submission, run: RemoteRun) -> dict[str, Any]:
    return {"target": target, "sha256": prepared.sha256, "key": prepared.key, "run": run.to_json()}
