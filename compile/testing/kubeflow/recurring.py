"""Recurring runs of Kubeflow Pipelines."""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.compile.errors import PenstockError
from penstock.testing.cron import Cron
from penstock.testing.kubeflow.experiments import Experiments
from penstock.testing.kubeflow.lists import listed
from penstock.testing.kubeflow.runs import Runs
from penstock.testing.server import ApiError, Request, Route
from penstock.testing.times import now

_ROOT = "/apis/v2beta1/recurringruns"
_ONE = f"{_ROOT}/{{recurring}}"
_FIELDS = ("recurring_run_id", "display_name", "created_at", "updated_at", "status", "experiment_id", "namespace")
_OWN = (
    "display_name", "description", "pipeline_spec", "pipeline_version_reference", "runtime_config", "service_account",
    "max_concurrency", "trigger", "mode", "no_catchup", "namespace", "plugins_input",
)  # fmt: skip
_STATUS = {"ENABLE": "ENABLED", "DISABLE": "DISABLED"}
_ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
_MOST_AT_ONCE = 10
# What values of parameters may hold, and Kubeflow fills in when a run is due.
_MACRO = re.compile(r"\[\[(ScheduledTime|CurrentTime|Index)(?:\.([^\]]+))?\]\]")
_FORMATS = {"2006": "%Y", "01": "%m", "02": "%d", "15": "%H", "04": "%M", "05": "%S"}  # as Go writes them


class RecurringRuns:
    """All recurring runs.

    Args:
        clock: Returns the time.
    """

    def __init__(self, runs: Runs, experiments: Experiments, clock: Callable[[], datetime.datetime]) -> None:
        self._runs = runs
        self._experiments = experiments
        self._clock = clock
        self._kept: dict[str, dict[str, Any]] = {}
        self._fired: dict[str, int] = {}
        self._seen: dict[str, datetime.datetime] = {}

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        return [
            Route("POST", _ROOT, self._create),
            Route("GET", _ROOT, self._list),
            Route("GET", _ONE, lambda request, recurring: self._get(recurring)),
            Route("DELETE", _ONE, self._delete),
            Route("POST", f"{_ONE}:enable", lambda request, recurring: self._set(recurring, "ENABLE")),
            Route("POST", f"{_ONE}:disable", lambda request, recurring: self._set(recurring, "DISABLE")),
        ]

    def fire(self, recurring: str, at: datetime.datetime | None = None) -> dict[str, Any] | None:
        """Create the run that is due, and return it; None where as many are at work as may be.

        Args:
            recurring: Id of the recurring run.
            at: When it is due; now where it is not given.

        Raises:
            PenstockError: there is no such recurring run, or it is disabled.
        """
        if recurring not in self._kept:
            raise PenstockError(f"there is no recurring run {recurring}; there are {', '.join(self._kept) or 'none'}")
        kept, due = self._kept[recurring], at or self._clock()
        if kept["mode"] != "ENABLE":
            raise PenstockError(f"recurring run {kept['display_name']} is disabled; enable it first")
        working = [run for run in self._runs.current(recurring) if run["state"] not in _ENDED]
        if len(working) >= int(kept["max_concurrency"]):
            return None
        number = self._fired[recurring] = self._fired[recurring] + 1
        body = {name: kept[name] for name in _OWN if name in kept and name not in ("mode", "trigger")}
        config = dict(body.get("runtime_config") or {})
        config["parameters"] = {
            name: _filled(value, due, self._clock(), number) for name, value in (config.get("parameters") or {}).items()
        }
        body |= {
            "display_name": f"{kept['display_name']}-{number}-{int(due.timestamp())}",
            "runtime_config": config,
            "experiment_id": kept["experiment_id"],
        }
        return self._runs.create(body, recurring, due)

    def advance(self, until: datetime.datetime) -> list[dict[str, Any]]:
        """Create all runs that are due by then, and return them, in their order."""
        made = []
        while True:
            due = [
                (time, key)
                for key in self._kept
                if self._kept[key]["mode"] == "ENABLE" and (time := self._next(key)) and time <= until
            ]
            if not due:
                break
            time, key = min(due)
            self._seen[key] = time
            if run := self.fire(key, time):
                made.append(run)
        for key in self._kept:
            self._seen[key] = max(self._seen[key], until)
        return made

    def _next(self, recurring: str) -> datetime.datetime | None:
        trigger, seen = self._kept[recurring]["trigger"], self._seen[recurring]
        schedule = trigger.get("cron_schedule") or trigger.get("periodic_schedule")
        start, end = _time(schedule.get("start_time")), _time(schedule.get("end_time"))
        after = max(seen, start - datetime.timedelta(seconds=1)) if start else seen
        if "cron" in schedule:
            due = Cron.parse(schedule["cron"], seconds=True).next(after)
        else:
            due = after + datetime.timedelta(seconds=int(schedule["interval_second"]))
        return None if due is None or (end and due > end) else due

    def _get(self, recurring: str) -> dict[str, Any]:
        if recurring not in self._kept:
            raise ApiError(404, f"Recurring run {recurring} not found")
        return self._kept[recurring]

    def _create(self, request: Request) -> Any:
        body = request.json()
        if not (body.get("display_name") or "").strip():
            raise ApiError(400, "Invalid input error: Recurring run's name cannot be empty")
        _, pipeline = self._runs.source(body)
        given = {name: body[name] for name in _OWN if body.get(name) is not None}
        given["trigger"] = _trigger(body.get("trigger") or {})
        most = int(given.get("max_concurrency") or 0)
        if not 1 <= most <= _MOST_AT_ONCE:
            raise ApiError(400, f"Invalid input error: max_concurrency: from 1 to {_MOST_AT_ONCE}, not {most}")
        config = given.get("runtime_config") or {}
        if not any(_MACRO.search(str(value)) for value in (config.get("parameters") or {}).values()):
            self._runs.values(given, pipeline)
        stamp, mode = now(), given.get("mode", "DISABLE")
        recurring = {
            **given,
            "recurring_run_id": str(uuid.uuid4()),
            "experiment_id": self._experiments.get(body.get("experiment_id") or self._experiments.default)[
                "experiment_id"
            ],
            "mode": mode,
            "status": _STATUS.get(mode, "STATUS_UNSPECIFIED"),
            "created_at": stamp,
            "updated_at": stamp,
            "max_concurrency": str(most),
        }
        key = recurring["recurring_run_id"]
        self._kept[key], self._fired[key], self._seen[key] = recurring, 0, self._clock()
        return recurring

    def _list(self, request: Request) -> Any:
        experiment = request.query.get("experiment_id", "")
        found = [each for each in self._kept.values() if not experiment or each["experiment_id"] == experiment]
        return listed("recurringRuns", found, request, _FIELDS)

    def _delete(self, request: Request, recurring: str) -> Any:
        self._get(recurring)
        del self._kept[recurring]
        return {}

    def _set(self, recurring: str, mode: str) -> Any:
        kept = self._get(recurring)
        kept.update(mode=mode, status=_STATUS[mode], updated_at=now())
        if mode == "ENABLE" and kept.get("no_catchup"):
            self._seen[recurring] = max(self._seen[recurring], self._clock())
        return {}


def _trigger(trigger: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trigger without what is not given.

    Raises:
        ApiError: it says nothing that there is.
    """
    found = {
        kind: {name: value for name, value in trigger[kind].items() if value is not None}
        for kind in ("cron_schedule", "periodic_schedule")
        if trigger.get(kind)
    }
    if len(found) != 1:
        raise ApiError(400, "Invalid input error: a trigger needs either a cron_schedule or a periodic_schedule")
    [schedule] = found.values()
    if "cron_schedule" in found:
        try:
            Cron.parse(schedule.get("cron", ""), seconds=True)
        except ValueError as error:
            raise ApiError(400, f"Schedule cron is not a supported format: {error}") from error
    elif int(schedule.get("interval_second", 0)) < 1:
        raise ApiError(400, f"Found invalid period schedule interval {schedule.get('interval_second', 0)}")
    return found


def _filled(value: Any, due: datetime.datetime, clock: datetime.datetime, number: int) -> Any:
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        if match[1] == "Index":
            return str(number)
        layout = match[2] or "20060102150405"
        pattern = re.sub("|".join(_FORMATS), lambda part: _FORMATS[part[0]], layout)
        return (due if match[1] == "ScheduledTime" else clock).strftime(pattern)

    return _MACRO.sub(fill, value)


def _time(text: str | None) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(text) if text else None
