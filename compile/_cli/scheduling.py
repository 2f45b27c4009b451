"""Makes, shows and ends schedules on a platform."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from penstock.compile import scheduling, submission
from penstock.compile._cli.output import console, print_json, table
from penstock.compile._cli.submitting import What, prepared_for
from penstock.compile.submission import Place, Platform, RemoteSchedule, Schedule

_SAID = {
    scheduling.Outcome.MADE: "made",
    scheduling.Outcome.UNCHANGED: "there already, and the same: nothing was changed",
    scheduling.Outcome.REPLACED: "put in place of another one",
}


def schedule_and_show(
    what: What, target: str, where: Place, options: Mapping[str, Any], replace: bool, as_json: bool
) -> None:
    """Make a schedule, if need be, and show it."""
    names = ("max_runs", "max_concurrent", "catch_up", "paused")
    cron = scheduling.checked_cron(options["cron"]) if options["cron"] else ""
    every = scheduling.checked_every(options["every"])
    start, end = (scheduling.checked_time(options[name], name) for name in ("start", "end"))
    prepared, _ = prepared_for(what, target)
    wanted = Schedule(prepared.name, cron, start, end, every=every, **{name: options[name] for name in names})
    submission.refuse_unsound(prepared, target, wanted)
    platform = submission.target(target).connect(where)
    made, outcome = scheduling.ensure(platform, prepared, wanted, replace)
    if as_json:
        print_json({"target": target, "sha256": prepared.sha256, "outcome": outcome, "schedule": made.to_json()})
        return
    click.echo(f"sha256    {prepared.sha256}")
    click.echo(f"schedule  {made.name} ({made.id}), {made.state.lower()}: {_SAID[outcome]}")
    click.echo(f"url       {made.url}")


def list_and_show(target: str, where: Place, as_json: bool) -> None:
    """Show the schedules of a platform."""
    found = submission.target(target).connect(where).schedules()
    if as_json:
        print_json([each.to_json() for each in found])
    else:
        rows = [[each.name, each.state.lower(), each.cron, each.next_run, each.id] for each in found]
        console().print(table(["name", "state", "cron", "next run", "id"], rows))


def change_and_show(
    name: str, target: str, where: Place, change: Callable[[Platform, RemoteSchedule], None], done: str
) -> None:
    """Change a schedule, and say so."""
    platform = submission.target(target).connect(where)
    found = scheduling.one(platform, name)
    change(platform, found)
    click.echo(f"schedule {found.name} ({found.id}) is {done}")
