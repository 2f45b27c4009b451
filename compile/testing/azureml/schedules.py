"""Schedules of Azure ML."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.compile.errors import PenstockError
from penstock.testing.azureml.jobs import Jobs
from penstock.testing.azureml.resources import (
    Kept,
    Scope,
    check_name,
    listed,
    operation,
    properties_of,
)
from penstock.testing.cron import Cron
from penstock.testing.server import Answer, ApiError, Request, Route
from penstock.testing.times import now

_FREQUENCIES = ("Minute", "Hour", "Day", "Week", "Month")
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?")


class Schedules:
    """All schedules.

    Args:
        clock: Returns the time.
    """

    def __init__(self, scope: Scope, jobs: Jobs, clock: Callable[[], datetime.datetime]) -> None:
        self._scope = scope
        self._jobs = jobs
        self._clock = clock
        self._kept: dict[str, Kept] = {}
        self._fired: dict[str, int] = {}

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        one = "/schedules/{name}"
        return self._scope.within(
            [
                Route("GET", "/schedules", self._list),
                Route("PUT", one, self._put),
                Route("GET", one, lambda request, name: self._resource(name)),
                Route("DELETE", one, self._delete),
                Route("POST", f"{one}/trigger", self._trigger),
            ]
        )

    def fire(self, name: str) -> str:
        """Create the job that a schedule wants, and return its name.

        Raises:
            PenstockError: there is no such schedule, or it is disabled.
        """
        if name not in self._kept:
            raise PenstockError(f"there is no schedule {name}; there are {', '.join(self._kept) or 'none'}")
        if not self._kept[name].given["isEnabled"]:
            raise PenstockError(f"schedule {name} is disabled; enable it first")
        return self._start(name)

    def _start(self, name: str) -> str:
        number = self._fired[name] = self._fired.get(name, 0) + 1
        given = self._definition(self._kept[name].given)
        job = f"{name}-{self._clock():%Y%m%d-%H%M%S}-{number}"
        tags = {**(given.get("tags") or {}), "azureml.schedule": name}
        self._jobs.create(job, {**given, "tags": tags}, name)
        return job

    def _definition(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the properties of the job that a schedule creates."""
        wanted: dict[str, Any] = dict(given["action"]["jobDefinition"])
        source = wanted.pop("sourceJobId", None)
        if source and not wanted.get("jobs") and not wanted.get("componentId"):
            base = self._jobs.given(source.rpartition("/")[2])
            return {**base, **{key: value for key, value in wanted.items() if value not in (None, "", {}, [])}}
        return wanted

    def _resource(self, name: str) -> dict[str, Any]:
        if name not in self._kept:
            raise ApiError(404, f"Schedule {name} not found.")
        return self._kept[name].resource(provisioningState="Succeeded")

    def _put(self, request: Request, name: str) -> Any:
        check_name(name, "Schedule")
        given = properties_of(request)
        _check_trigger(given.get("trigger") or {})
        action = given.get("action") or {}
        if action.get("actionType") != "CreateJob":
            raise ApiError(400, f"action: the stand-in has CreateJob alone, not {action.get('actionType')}.")
        if not isinstance(action.get("jobDefinition"), Mapping):
            raise ApiError(400, "action: the jobDefinition is required.")
        self._jobs.check(self._definition(given))
        given["isEnabled"] = bool(given.get("isEnabled", True))
        there = self._kept.get(name)
        if there is None:
            self._kept[name] = Kept(f"{self._scope.id}/schedules/{name}", "schedules", name, given)
        else:
            there.given, there.modified = given, now()
        return Answer(self._resource(name), 200 if there else 201)

    def _list(self, request: Request) -> Any:
        view = request.query.get("listViewType", "EnabledOnly")
        found = [
            self._resource(name)
            for name, kept in self._kept.items()
            if view == "All" or kept.given["isEnabled"] == (view == "EnabledOnly")
        ]
        return listed(found, request)

    def _delete(self, request: Request, name: str) -> Any:
        resource = self._resource(name)
        if resource["properties"]["isEnabled"]:
            raise ApiError(400, f"Schedule {name} is enabled; disable it before you delete it.")
        del self._kept[name]
        return operation(self._scope, request, "ds", name)

    def _trigger(self, request: Request, name: str) -> Any:
        self._resource(name)
        return {"scheduleActionType": "CreateJob", "submissionId": self._start(name)}


def _check_trigger(trigger: Mapping[str, Any]) -> None:
    kind = trigger.get("triggerType")
    if kind == "Cron":
        try:
            Cron.parse(str(trigger.get("expression") or ""))
        except ValueError as error:
            raise ApiError(400, f"trigger.expression: {error}") from error
    elif kind == "Recurrence":
        if str(trigger.get("frequency")).capitalize() not in _FREQUENCIES:
            raise ApiError(
                400, f"trigger.frequency: {trigger.get('frequency')!r} is none of {', '.join(_FREQUENCIES)}."
            )
        if int(trigger.get("interval") or 0) < 1:
            raise ApiError(400, f"trigger.interval: at least 1, not {trigger.get('interval')}.")
    else:
        raise ApiError(400, f"trigger.triggerType: {kind!r} is none of Cron, Recurrence.")
    for side in ("startTime", "endTime"):
        if trigger.get(side) and not _ISO.fullmatch(str(trigger[side])):
            raise ApiError(400, f"trigger.{side}: {trigger[side]!r} is no time such as 2026-01-31T09:00:00.")
