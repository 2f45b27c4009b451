"""Schedules of Vertex AI: pipeline jobs that begin by the clock."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.compile.errors import PenstockError
from penstock.testing.cron import Cron
from penstock.testing.server import ApiError, Request, Route
from penstock.testing.times import now, stamp
from penstock.testing.vertex.pipeline_jobs import TERMINAL, PipelineJobs
from penstock.testing.vertex.resources import ROOT, Collection, Operations, checked, parent

_ONE = f"{ROOT}/schedules/{{schedule}}"
_FIELDS = (
    "displayName", "cron", "startTime", "endTime", "maxRunCount", "createPipelineJobRequest", "maxConcurrentRunCount",
    "maxConcurrentActiveRunCount", "allowQueueing",
)  # fmt: skip
_OUTPUT_ONLY = (
    "state", "nextRunTime", "lastPauseTime", "lastResumeTime", "catchUp", "startedRunCount", "lastScheduledRunResponse",
)  # fmt: skip


class Schedules:
    """The schedules of all projects.

    Args:
        clock: Returns the time.
    """

    def __init__(self, operations: Operations, jobs: PipelineJobs, clock: Callable[[], datetime.datetime]) -> None:
        self.kept = Collection("schedules")
        self._operations = operations
        self._jobs = jobs
        self._clock = clock
        self._seen: dict[str, datetime.datetime] = {}
        self._queues: dict[str, list[datetime.datetime]] = {}

    def routes(self) -> Sequence[Route]:
        """Return whom requests go to."""
        return [
            Route("POST", f"{ROOT}/schedules", self._create),
            Route("GET", f"{ROOT}/schedules", self._list),
            Route("GET", _ONE, lambda request, **names: self._current(_name(**names))),
            Route("PATCH", _ONE, self._patch),
            Route("DELETE", _ONE, self._delete),
            Route("POST", f"{_ONE}:pause", self._pause),
            Route("POST", f"{_ONE}:resume", self._resume),
        ]

    def fire(self, name: str, at: datetime.datetime | None = None) -> dict[str, Any] | None:
        """Create the job that is due, and return it; None where as many are at work as may be.

        Args:
            name: Name of the schedule, or its id.
            at: When it is due; now where it is not given.

        Raises:
            PenstockError: there is no such schedule, or it is not active.
        """
        found = [each for each in self.kept.all() if name in (each["name"], each["name"].rpartition("/")[2])]
        if not found:
            known = ", ".join(each["name"] for each in self.kept.all())
            raise PenstockError(f"there is no schedule {name}; there are {known or 'none'}")
        schedule = self._current(found[0]["name"])
        if schedule["state"] != "ACTIVE":
            raise PenstockError(f"schedule {schedule['name']} is {schedule['state']}; only an ACTIVE one starts jobs")
        due = at or self._clock()
        if self._full(schedule):
            if schedule.get("allowQueueing"):
                self._queues.setdefault(schedule["name"], []).append(due)
            return None
        return self._start(schedule, due)

    def advance(self, until: datetime.datetime) -> list[dict[str, Any]]:
        """Create all jobs that are due by then, and return them, in their order."""
        made = []
        while True:
            due = [
                (time, each["name"])
                for each in map(self._current, [each["name"] for each in self.kept.all()])
                if each["state"] == "ACTIVE" and (time := self._next(each)) and time <= until
            ]
            if not due:
                break
            time, name = min(due)
            self._seen[name] = time
            if job := self.fire(name, time):
                made.append(job)
        for name in self._seen:
            self._seen[name] = max(self._seen[name], until)
        return made

    def _start(self, schedule: dict[str, Any], due: datetime.datetime) -> dict[str, Any]:
        wanted = schedule["createPipelineJobRequest"]
        within = schedule["name"].partition("/schedules/")[0]
        job = self._jobs.create(within, wanted["pipelineJob"], "", schedule["name"])
        started = int(schedule["startedRunCount"]) + 1
        schedule["startedRunCount"] = str(started)
        schedule["lastScheduledRunResponse"] = {"scheduledRunTime": stamp(due), "runResponse": "OK"}
        schedule["updateTime"] = now()
        if "maxRunCount" in schedule and started >= int(schedule["maxRunCount"]):
            schedule["state"] = "COMPLETED"
        return job

    def _full(self, schedule: Mapping[str, Any]) -> bool:
        working = [job for job in self._jobs.current(schedule["name"]) if job["state"] not in TERMINAL]
        return len(working) >= int(schedule["maxConcurrentRunCount"])

    def _current(self, name: str) -> dict[str, Any]:
        """Return a schedule as it is now, after what was waiting has been started as far as there is room."""
        schedule = self.kept.get(name)
        queue = self._queues.get(name, [])
        while queue and schedule["state"] == "ACTIVE" and not self._full(schedule):
            self._start(schedule, queue.pop(0))
        following = self._next(schedule) if schedule["state"] == "ACTIVE" else None
        if following is None and schedule["state"] == "ACTIVE":
            schedule["state"] = "COMPLETED"
        schedule.pop("nextRunTime", None)
        if following:
            schedule["nextRunTime"] = stamp(following)
        return schedule

    def _next(self, schedule: Mapping[str, Any]) -> datetime.datetime | None:
        seen = self._seen[schedule["name"]]
        start = datetime.datetime.fromisoformat(schedule["startTime"])
        end = schedule.get("endTime")
        due = Cron.parse(schedule["cron"]).next(max(seen, start - datetime.timedelta(seconds=1)))
        return None if due is None or (end and due > datetime.datetime.fromisoformat(end)) else due

    def _create(self, request: Request, version: str, project: str, location: str) -> Any:
        given = _checked(request.json())
        wanted = given.get("createPipelineJobRequest")
        if not isinstance(wanted, Mapping) or "pipelineJob" not in wanted:
            raise ApiError(400, "create_pipeline_job_request: with a pipeline_job is required.")
        self._jobs.check(parent(project, location), wanted["pipelineJob"])
        created = now()
        schedule = {
            "startTime": created,
            **given,
            "name": f"{parent(project, location)}/schedules/{secrets.randbelow(10**18) + 10**18}",
            "createTime": created,
            "updateTime": created,
            "state": "ACTIVE",
            "startedRunCount": "0",
        }
        self._seen[schedule["name"]] = self._clock()
        self.kept.add(schedule)
        return self._current(schedule["name"])

    def _list(self, request: Request, version: str, project: str, location: str) -> Any:
        found = [self._current(each["name"]) for each in self.kept.all()]
        return self.kept.listed(request, parent(project, location), found)

    def _patch(self, request: Request, **names: str) -> Any:
        schedule, body = self.kept.get(_name(**names)), request.json()
        changed = _checked({**{key: schedule[key] for key in _FIELDS if key in schedule}, **body})
        schedule.update(changed)
        schedule["updateTime"] = now()
        return self._current(schedule["name"])

    def _delete(self, request: Request, **names: str) -> Any:
        name = _name(**names)
        self.kept.remove(name)
        self._seen.pop(name)
        return self._operations.start(name, {})

    def _pause(self, request: Request, **names: str) -> Any:
        schedule = self._current(_name(**names))
        if schedule["state"] != "ACTIVE":
            raise ApiError(400, f"The schedule {schedule['name']} is in state {schedule['state']}, not ACTIVE.")
        schedule.update(state="PAUSED", lastPauseTime=now(), updateTime=now())
        self._queues.pop(schedule["name"], None)
        return {}

    def _resume(self, request: Request, **names: str) -> Any:
        schedule = self._current(_name(**names))
        if schedule["state"] != "PAUSED":
            raise ApiError(400, f"The schedule {schedule['name']} is in state {schedule['state']}, not PAUSED.")
        catches_up = bool((request.body or {}).get("catchUp"))
        schedule.update(state="ACTIVE", lastResumeTime=now(), updateTime=now(), catchUp=catches_up)
        if not catches_up:
            self._seen[schedule["name"]] = self._clock()
        return {}


def _checked(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a client wants of a schedule.

    Raises:
        ApiError: it is not one that Vertex AI takes.
    """
    given = checked(body, "schedule", _FIELDS, _OUTPUT_ONLY)
    if not given.get("displayName"):
        raise ApiError(400, "display_name: is required.")
    try:
        Cron.parse(given.get("cron", ""))
    except ValueError as error:
        raise ApiError(400, f"cron: {error}") from error
    for name in ("maxConcurrentRunCount", "maxRunCount"):
        if name in given and int(given[name]) < 1:
            raise ApiError(400, f"{name}: has to be positive, not {given[name]}.")
    if "maxConcurrentRunCount" not in given:
        raise ApiError(400, "max_concurrent_run_count: is required.")
    return given


def _name(version: str, project: str, location: str, schedule: str) -> str:
    return f"{parent(project, location)}/schedules/{schedule}"
