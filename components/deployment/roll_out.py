"""The work of `roll_out`: traffic moves to a version step by step, as long as a gate holds, and back if it does not.

What a rollout is about to do is written down at the endpoint before it does it, with who it is and when it last was
alive. So a second one is refused, one that was killed is taken up by the next from any moment on, and traffic that is
neither what it had set nor what it was about to set was changed by someone else, and is left alone.
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from penstock.components._shared.errors import UserError
from penstock.components.deployment import gate as gates
from penstock.components.deployment import measure, render
from penstock.components.deployment.backends import connect
from penstock.components.deployment.demands import (
    COMPONENT,
    STRATEGIES,
    Demands,
    Step,
    conditions_of,
    hold_of,
    labels_of,
    plan_of,
)
from penstock.components.deployment.deploy import existing
from penstock.components.deployment.endpoint import (
    Backend,
    Changed,
    Endpoint,
    Note,
    Reading,
    Unreachable,
    check_endpoint_name,
)
from penstock.components.deployment.owner import HEARTBEAT, is_dead, now, owner

FORMAT = "penstock.rollout/1"
UNFINISHED = ("resume", "roll_back")
ON_ROLLBACK = ("fail", "report")

LOOK = 1.0  # seconds between two looks at a step, at most
LATE_LOOKS = 40  # looks in the time that a platform takes to count a request
LOG_LAG = 20.0  # seconds for what was answered to be in the request logs, at most
UNREACHABLE = 3  # looks in a row at which the version did not answer


@dataclass(frozen=True)
class RolledOut:
    """How a rollout ended.

    Attributes:
        outcome: "promoted", "rolled_back", or "unchanged".
        previous: Version that had most of the traffic before; empty: none.
        metrics: The new version's in the last step.
    """

    promoted: bool
    outcome: str
    previous: str
    reason: str
    metrics: Mapping[str, float]


class _Interfered(Exception):
    """Someone else has changed traffic or taken the rollout over; the message says which."""


class _Failed(Exception):
    """The new version is not to have the traffic; the message says why."""


class _Stopped(BaseException):
    """A signal asked for the end; the message says which."""


def roll_out(
    history: str | os.PathLike[str],
    report: str | os.PathLike[str],
    *,
    endpoint: str,
    version: str,
    strategy: str = "canary",
    steps: Sequence[float] = (),
    hold: Mapping[str, float] | None = None,
    gate: Sequence[str] = (),
    labels: str | os.PathLike[str] | None = None,
    target: str = "",
    unfinished: str = "resume",
    on_rollback: str = "fail",
    remove_idle: bool = False,
    platform: str = "local",
    options: Mapping[str, Any] | None = None,
) -> RolledOut:
    """Move an endpoint's traffic to a version, or leave it where it was.

    Args:
        history: File to write: every step as JSON.
        report: File to write: the same as a page.
        version: Version that deploy returned.
        strategy: Row of demands.STRATEGIES.
        steps: Per cent, ascending, 100 last; empty: the strategy's.
        hold: `seconds`, `requests` and `least` of a step, as demands.HOLD has them.
        gate: Conditions; see gate.py.
        labels: Dataset of request_id, row and target.
        target: Column of it.
        unfinished: What becomes of a rollout that was killed: "resume" or "roll_back".
        on_rollback: "fail" or "report".
        remove_idle: Whether the version that has no traffic in the end is undeployed.
        platform: Row of the table in backends.
        options: What the platform needs besides.

    Raises:
        UserError: An argument is wrong, another rollout goes on, someone else changed the endpoint, or the version was
            rolled back and on_rollback is "fail".
        SystemExit: A signal ended it; traffic is what it was before.
    """
    check_endpoint_name(endpoint, COMPONENT)
    for argument, value, known in (
        ("strategy", strategy, tuple(STRATEGIES)),
        ("unfinished", unfinished, UNFINISHED),
        ("on_rollback", on_rollback, ON_ROLLBACK),
    ):
        if value not in known:
            raise UserError(COMPONENT, argument, f"{value!r} is unknown", f"Choose one of {', '.join(known)}")
    backend = connect(platform, options or {}, COMPONENT)
    plan = plan_of(strategy, steps)
    if any(step.shadow for step in plan) and not backend.shadows:
        raise UserError(COMPONENT, "strategy", f"{platform} cannot shadow", "Choose canary or blue_green")
    demands = Demands(
        plan,
        hold_of(hold or {}),
        conditions_of(gate, backend, strategy, bool(labels)),
        labels_of(labels, target) if labels is not None else None,
        target,
    )
    found = existing(backend, endpoint, COMPONENT)
    if version not in found.versions:
        known_versions = ", ".join(found.versions) or "none"
        raise UserError(COMPONENT, "version", f"{endpoint} has no version {version!r}", f"It has {known_versions}")
    about = {"endpoint": endpoint, "platform": platform, "version": version, "strategy": strategy}
    rollout = _Rollout(backend, endpoint, version, demands, about)
    try:
        with _listening(rollout):
            rollout.run(unfinished)
    finally:
        # A rollout that was refused has moved nothing, and has nothing to tell.
        if rollout.told:
            document = rollout.document()
            path = Path(history)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
            )
            render.rollout(document).write(report)
    if rollout.stopped:
        raise SystemExit(128 + rollout.stopped)
    if rollout.error:
        raise rollout.error
    if remove_idle:
        rollout.remove_idle()
    if rollout.outcome == "rolled_back" and on_rollback == "fail":
        raise UserError(
            COMPONENT,
            "version",
            f"{version} was rolled back, {_told(rollout.before)} again: {rollout.reason}",
            "Look at the report, and deploy a better one",
        )
    return RolledOut(
        rollout.outcome in ("promoted", "unchanged"),
        rollout.outcome,
        rollout.current,
        rollout.reason,
        rollout.last_metrics(),
    )


@dataclass
class _Look:
    """What is known of a step while it goes on.

    Attributes:
        since: When it began.
        before: Readings at its beginning, by "new" and "current".
        window: What happened since, likewise.
        unreachable: Looks in a row at which the new version did not answer.
        problem: Why it did not.
        silent: Looks in a row at which the current version did not.
        points: Numbers over time, for the plots.
    """

    since: datetime.datetime
    before: dict[str, Reading]
    window: dict[str, Reading] = field(default_factory=dict)
    unreachable: int = 0
    problem: str = ""
    silent: int = 0
    points: list[dict[str, float]] = field(default_factory=list)


class _Rollout:
    """One rollout, from its claim on the endpoint to its end.

    Attributes:
        told: Whether there is something to tell.
        outcome: "" while it goes on.
        stopped: Number of the signal that asked for the end; 0: none did.
        returns: Whether it is on its way back, or at its end: no signal is to cut that short.
        error: What went wrong besides.
        before: Traffic that a rollback goes back to.
        current: Version with the most of that.
    """

    def __init__(
        self, backend: Backend, endpoint: str, version: str, demands: Demands, about: Mapping[str, Any]
    ) -> None:
        self._backend, self._endpoint, self._version, self._demands = backend, endpoint, version, demands
        self._about = dict(about)
        self._owner = owner()
        self._note = Note(None, "")
        self._claim: dict[str, Any] = {}
        self._beaten = 0.0
        self._seen: Endpoint | None = None
        self._known: dict[str, float] = {}  # the current version's metrics, when it last answered enough
        self._last_window: Reading | None = None  # and its predictions
        self._started = now()
        self.told = False
        self.outcome = self.reason = ""
        self.stopped = 0
        self.returns = False
        self.error: UserError | None = None
        self.before: dict[str, int] = {}
        self.current = ""
        self.steps: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def run(self, unfinished: str) -> None:
        """Go all the way, or back."""
        try:
            first = self._begin(unfinished)
            if first is None:
                return
            has = self.before.get(self._version, 0)
            for place in range(first, len(self._demands.plan)):
                # A version that has traffic already loses none of it on the way, and needs no shadow's copies.
                if not has or not self._demands.plan[place].judged or self._demands.plan[place].share > has:
                    self._step(place)
            self.returns = True
            self._end("promoted", self._verdict())
        except _Failed as failure:
            self._roll_back(str(failure))
        except (_Interfered, Changed) as change:
            self._abandon(str(change))
        except _Stopped as stop:
            self._roll_back(str(stop))
        except BaseException as error:
            if self._claim:
                self._roll_back(f"the rollout failed: {error or type(error).__name__}")
            raise

    def document(self) -> dict[str, Any]:
        """Return the history."""
        after = self._backend.get(self._endpoint)
        return {
            "format": FORMAT,
            **self._about,
            "current_version": self.current,
            "plan": [asdict(step) for step in self._demands.plan],
            "hold": dict(self._demands.hold),
            "gate": [condition.text for condition in self._demands.conditions],
            "started": self._started,
            "ended": now(),
            "before": self.before,
            "after": dict(after.traffic) if after else {},
            "outcome": self.outcome or "failed",
            "reason": self.reason,
            "notes": self.notes,
            "steps": self.steps,
        }

    def last_metrics(self) -> dict[str, float]:
        """Return the new version's metrics in the last step."""
        return dict(self.steps[-1]["new"]) if self.steps else {}

    def remove_idle(self) -> None:
        """Undeploy what has no traffic in the end."""
        found = existing(self._backend, self._endpoint, COMPONENT)
        for version in {self._version, *self.before}:
            if version in found.versions and not found.traffic.get(version) and version != found.shadow:
                self._backend.remove(self._endpoint, version)

    # How it begins: with a claim that one of many gets.

    def _begin(self, unfinished: str) -> int | None:
        """Claim the endpoint and return the step to begin with; None where nothing is left to do."""
        left = self._take()
        found = existing(self._backend, self._endpoint, COMPONENT)
        self._seen = found
        self.told = True
        if left:
            resumed = self._take_up(left, found, unfinished)
            if resumed is not False:
                return resumed
            found = self._seen = existing(self._backend, self._endpoint, COMPONENT)
        self.before = dict(found.traffic)
        others = {name: share for name, share in found.traffic.items() if name != self._version}
        self.current = max(others, key=lambda name: others[name], default="")
        self._claim |= {
            "before": self.before,
            "shadow": found.shadow,
            "settled": _place(found),
            "intended": _place(found),
        }
        if not self.current:
            if not found.traffic:
                self._move({self._version: 100}, "")
            self._end("unchanged", f"{self._version} is the only version with traffic")
            return None
        if has := self.before.get(self._version):
            self.notes.append(f"{self._version} has {has} % of the traffic already, and goes on from there")
        return 0

    def _take(self) -> dict[str, Any] | None:
        """Write down that the endpoint is ours, and return what a rollout that was killed left."""
        for _ in range(5):
            note = self._backend.note(self._endpoint)
            left = note.document if note.document and note.document.get("state") == "running" else None
            if left and not is_dead(left):
                raise UserError(
                    COMPONENT,
                    "endpoint",
                    f"another rollout of {self._endpoint} goes on, to {left['version']}, by {left['owner']['who']},"
                    f" alive at {left['heartbeat']}",
                    "Run the step again when that one is done",
                )
            self._claim = dict(left) if left else {}
            self._claim |= {"owner": self._owner, "heartbeat": now(), "state": "running"}
            if not left:
                found = existing(self._backend, self._endpoint, COMPONENT)
                at = _place(found)
                self._claim |= {**self._about, "before": dict(found.traffic), "shadow": found.shadow}
                self._claim |= {"settled": at, "intended": at, "plan": self._plan(), "step": 0, "history": []}
            try:
                self._note = self._backend.write_note(self._endpoint, self._claim, note.generation)
            except Changed:
                self._claim = {}
                continue
            self._beaten = time.monotonic()
            return left
        raise UserError(
            COMPONENT,
            "endpoint",
            f"others claim {self._endpoint} all the time",
            "Run the step again when they are done",
        )

    def _take_up(self, left: Mapping[str, Any], found: Endpoint, unfinished: str) -> int | bool | None:
        """Go on with what another left: return the step, None where all is done, False where all is to be begun."""
        whose = f"the rollout to {left['version']} that {left['owner']['who']} left at step {left['step'] + 1}"
        if _place(found) not in (left["settled"], left["intended"]):
            self.notes.append(f"{whose} was given up: someone has changed the traffic since")
        elif left["version"] == self._version and unfinished == "roll_back":
            self.before, self.current = dict(left["before"]), _most(left["before"], self._version)
            self.notes.append(f"{whose} was taken up to roll it back")
            self.steps = list(left["history"])
            self._roll_back("it was left half-way")
            return None
        elif left["version"] == self._version and left["plan"] == self._plan():
            self.before, self.current = dict(left["before"]), _most(left["before"], self._version)
            self.steps = list(left["history"])
            if self.steps:
                self._known = dict(self.steps[-1]["current"])
            self.notes.append(f"{whose} was resumed")
            return int(left["step"])
        else:
            self.notes.append(f"{whose} was rolled back first")
            self._seen = self._backend.set_traffic(self._endpoint, left["before"], left["shadow"], found.generation)
        self._claim |= {**self._about, "plan": self._plan(), "step": 0, "history": []}
        return False

    def _plan(self) -> list[list[Any]]:
        return [[step.share, step.shadow, step.judged] for step in self._demands.plan]

    # What it does at each step.

    def _step(self, place: int) -> None:
        step = self._demands.plan[place]
        self._claim["step"] = place
        shadow = self._version if step.shadow else ""
        share = step.share if step.judged else max(step.share, self.before.get(self._version, 0))
        self._move(_shares(self.before, self._version, share), shadow)
        began, look, lost = time.monotonic(), self._first_look(), ""
        while True:
            self._pause(max(min(LOOK, self._demands.hold["seconds"] / 20), self._backend.lag / LATE_LOOKS))
            self._look(look, time.monotonic() - began)
            if look.unreachable >= UNREACHABLE:
                problem = f"it does not answer: {look.problem}"
                self._record(step, look, began, (), problem)
                raise _Failed(f"at {step.name} {problem}")
            if step.judged and (lost := self._lost(look)):
                break
            if self._is_over(step, look, time.monotonic() - began):
                break
        self._judge(step, look, began, lost)

    def _is_over(self, step: Step, look: _Look, seconds: float) -> bool:
        """Return whether all that a step is judged by is there, or is not to be waited for any more.

        Where a platform counts late, what is there is a part of what happened, and not the same part of each metric.
        """
        hold, lag = self._demands.hold, self._backend.lag
        if seconds >= hold["seconds"] + lag:
            return True
        wanted = look.window.get("new" if step.judged else "current", Reading())
        enough = measure.requests(wanted) >= hold["requests"]
        if not lag or not enough:
            return enough
        if self._compares():
            current = look.window.get("current", Reading())
            if measure.requests(current) < max(1.0, hold["least"]) or self._missing(current):
                return False
        return not self._missing(wanted)

    def _compares(self) -> bool:
        """Return whether the gate compares with the current version, and that gets requests."""
        assert self._seen
        return any(each.factor for each in self._demands.conditions) and bool(self._seen.traffic.get(self.current))

    def _is_unknown(self, new: Reading, current: Mapping[str, float]) -> bool:
        """Return whether nothing is known of the current version for no other reason than that it comes late."""
        return bool(self._backend.lag) and self._compares() and measure.requests(new) > 0 and not current

    def _missing(self, window: Reading) -> set[str]:
        """Return the metrics of the gate that a version has by itself and that are not told of it yet."""
        own = {name for name in self._demands.metrics & measure.METRICS.keys() if measure.METRICS[name].of}
        return own - measure.values(window).keys()

    def _first_look(self) -> _Look:
        now = datetime.datetime.now(datetime.UTC)
        before = {}
        for _ in range(UNREACHABLE):
            try:
                before["new"] = self._backend.reading(self._endpoint, self._version, now)
                break
            except Unreachable as error:
                problem = str(error)
                self._pause(0.2)
        else:
            raise _Failed(f"it does not answer: {problem}")
        try:
            before["current"] = self._backend.reading(self._endpoint, self.current, now)
        except Unreachable:
            before["current"] = Reading()
        return _Look(now, before)

    def _look(self, look: _Look, seconds: float) -> None:
        """See how the step does, and that the endpoint is still ours."""
        assert self._seen
        found = self._backend.get(self._endpoint)
        if found is None or found.generation != self._seen.generation:
            raise _Interfered(f"someone has changed the traffic of {self._endpoint} during the rollout")
        for name, version in (("new", self._version), ("current", self.current)):
            try:
                counted = self._backend.reading(self._endpoint, version, look.since)
            except Unreachable as error:
                if name == "new":
                    look.unreachable += 1
                    look.problem = str(error)
                else:
                    look.silent += 1
                    if look.silent == UNREACHABLE:
                        self.notes.append(f"{version}, the version before, does not answer: {error}")
                continue
            if name == "new":
                look.unreachable = 0
            else:
                look.silent = 0
            look.window[name] = measure.between(look.before[name], counted)
        point = {"seconds": seconds}
        for name, window in look.window.items():
            point[f"{name}_requests"] = measure.requests(window)
            point[f"{name}_errors"] = sum(count for status, count in window.requests.items() if status >= 500)
        look.points.append(point)

    def _lost(self, look: _Look) -> str:
        """Return which condition on errors cannot hold any more, however the step goes on."""
        window = look.window.get("new", Reading())
        requests = max(measure.requests(window), self._demands.hold["requests"])
        current = self._current_values(look)
        for condition in self._demands.conditions:
            low = {"error_rate": 500, "refusal_rate": 400}.get(condition.metric)
            if low is None:
                continue
            bad = sum(count for status, count in window.requests.items() if low <= status < low + 100)
            if bad and gates.is_lost(condition, bad, requests, current.get(condition.metric)):
                return f"{condition.text} cannot hold any more after {bad:g} of {measure.requests(window):g} requests"
        return ""

    def _current_values(self, look: _Look) -> dict[str, float]:
        """Return the current version's metrics: of this step, or of the last in which it answered enough."""
        window = look.window.get("current", Reading())
        if measure.requests(window) >= max(1.0, self._demands.hold["least"]):
            return measure.values(window)
        return self._known

    def _judge(self, step: Step, look: _Look, began: float, lost: str) -> None:
        new_window, current_window = (look.window.get(name, Reading()) for name in ("new", "current"))
        new, current = measure.values(new_window), self._current_values(look)
        skipped: dict[str, str] = {}
        other = current_window if measure.requests(current_window) else self._last_window
        distance = measure.prediction_distance(new_window, other) if other else None
        if distance is not None:
            new["prediction_distance"] = distance
        elif measure.requests(new_window):
            skipped["prediction_distance"] = "the current version predicts nothing"
        if self._demands.needs_answers and not lost:
            self._read_answers(step, look, new, current, skipped)
        if not step.shadow:
            skipped["agreement"] = "no request goes to both versions"
        enough = measure.requests(new_window) >= self._demands.hold["least"]
        if enough and not measure.requests(new_window):  # the endpoint may be idle
            skipped |= dict.fromkeys((*measure.METRICS, *measure.QUALITY), "there were no requests")
        findings = gates.judge(self._demands.conditions, new, current, skipped) if step.judged else ()
        if measure.requests(current_window) >= max(1.0, self._demands.hold["least"]):
            self._known, self._last_window = current, current_window
        problem = lost
        if step.judged and not problem and not enough:
            held, least, lag = self._demands.hold["seconds"], self._demands.hold["least"], self._backend.lag
            waited = f" and {lag:g} s more to be counted" if lag else ""
            problem = f"{measure.requests(new_window):g} requests in {held:g} s{waited} are fewer than {least:g}"
        if step.judged and not problem and self._is_unknown(new_window, current):
            problem = f"nothing was counted of {self.current}, which the gate compares with"
        if not problem and any(finding.holds is False for finding in findings):
            problem = gates.summary(findings)
        self._record(step, look, began, findings, problem, new, current)
        if problem:
            raise _Failed(f"at {step.name}: {problem}")

    def _read_answers(
        self,
        step: Step,
        look: _Look,
        new: dict[str, float],
        current: dict[str, float],
        skipped: dict[str, str],
    ) -> None:
        """Add what the request logs tell."""
        try:
            ours = self._answers(self._version, look.window.get("new", Reading()), look.since)
            theirs = self._answers(self.current, look.window.get("current", Reading()), look.since)
            if step.shadow and (alike := measure.agreement(theirs, ours)[0]) is not None:
                new["agreement"] = alike
            if self._demands.labels is not None:
                for values, answers in ((new, ours), (current, theirs)):
                    values |= measure.quality(answers, self._demands.labels, self._demands.target)
        except (Unreachable, ValueError) as error:
            raise _Failed(f"at {step.name} its answers cannot be measured: {error}") from None
        if self._demands.labels is not None and not new.keys() & set(measure.QUALITY):
            skipped |= dict.fromkeys(measure.QUALITY, "no answer of this step has a label")

    def _answers(self, version: str, window: Reading, since: datetime.datetime) -> Any:
        """Return what a version answered since then, once all that it has counted is written down."""
        end = time.monotonic() + LOG_LAG
        while True:
            found = self._backend.answers(self._endpoint, version, since)
            if found.num_rows >= window.requests.get(200, 0.0) or time.monotonic() > end:
                return found
            self._pause(LOOK)

    def _record(
        self,
        step: Step,
        look: _Look,
        began: float,
        findings: Sequence[gates.Finding],
        problem: str,
        new: Mapping[str, float] | None = None,
        current: Mapping[str, float] | None = None,
    ) -> None:
        assert self._seen
        told = {
            "step": step.name,
            "share": step.share,
            "traffic": dict(self._seen.traffic),
            "shadow": self._seen.shadow,
            "started": look.since.isoformat(timespec="milliseconds"),
            "seconds": round(time.monotonic() - began, 3),
            "new": dict(new or measure.values(look.window.get("new", Reading()))),
            "current": dict(current or {}),
            "findings": [asdict(finding) for finding in findings],
            "passed": not problem,
            "problem": problem,
        }
        self.steps.append({**told, "points": look.points})
        self._claim["history"] = [*self._claim.get("history", []), told]

    def _verdict(self) -> str:
        findings = [finding for step in self.steps[-1:] for finding in step["findings"]]
        return gates.summary([gates.Finding(**finding) for finding in findings])

    # How traffic moves.

    def _move(self, traffic: Mapping[str, int], shadow: str) -> None:
        """Write down what is about to happen, and let it happen."""
        assert self._seen
        self._claim["intended"] = [dict(traffic), shadow]
        self._write()
        try:
            self._seen = self._backend.set_traffic(self._endpoint, traffic, shadow, self._seen.generation)
        except Changed:
            raise _Interfered(f"someone has changed the traffic of {self._endpoint} during the rollout") from None
        self._claim["settled"] = [dict(traffic), shadow]

    def _write(self) -> None:
        self._claim["heartbeat"] = now()
        try:
            self._note = self._backend.write_note(self._endpoint, self._claim, self._note.generation)
        except Changed:
            raise _Interfered(f"another has taken the rollout of {self._endpoint} over") from None
        self._beaten = time.monotonic()

    def _pause(self, seconds: float) -> None:
        time.sleep(seconds)
        if time.monotonic() - self._beaten > HEARTBEAT:
            self._write()

    def _roll_back(self, reason: str) -> None:
        """Set traffic back to what it was before, unless someone else has changed it."""
        self.returns, self.reason = True, reason
        if not self._claim:
            return
        try:
            self._reclaim()
            found = existing(self._backend, self._endpoint, COMPONENT)
            back = [dict(self._claim["before"]), self._claim["shadow"]]
            if _place(found) != back:
                if _place(found) not in (self._claim["settled"], self._claim["intended"]):
                    raise _Interfered(f"someone has changed the traffic of {self._endpoint} during the rollout")
                self._claim["intended"] = back
                self._seen = self._backend.set_traffic(self._endpoint, back[0], back[1], found.generation)
            self._end("rolled_back", reason)
        except (_Interfered, Changed) as change:
            self._abandon(f"{change}; besides, {reason}")
        except UserError as error:  # a version that had traffic is gone, or the platform does not answer
            self._abandon(f"traffic cannot be set back: {error.problem}; besides, {reason}")

    def _reclaim(self) -> None:
        """Find out whether the endpoint is still ours, where a writing may have been cut short."""
        note = self._backend.note(self._endpoint)
        if not note.document or note.document.get("owner", {}).get("id") != self._owner["id"]:
            raise _Interfered(f"another has taken the rollout of {self._endpoint} over")
        self._note = note

    def _abandon(self, problem: str) -> None:
        self.outcome, self.reason = "abandoned", problem
        found = self._backend.get(self._endpoint)
        self.error = UserError(
            COMPONENT,
            "endpoint",
            f"{problem}; traffic is left as it is: {_told(found.traffic) if found else 'the endpoint is gone'}",
            "See who it was, and roll out again",
        )
        try:
            self._reclaim()
            self._end("abandoned", problem)
        except (_Interfered, Changed):
            pass  # the note is another's

    def _end(self, outcome: str, reason: str) -> None:
        self.outcome, self.reason = outcome, reason
        self._claim["state"], self._claim["reason"] = outcome, reason
        self._write()


def _shares(before: Mapping[str, int], version: str, share: int) -> dict[str, int]:
    """Return traffic in which a version has so much, and others what is left in the proportions that they had."""
    others = {name: part for name, part in before.items() if name != version}
    total, left = sum(others.values()), 100 - share
    exact = {name: left * part / total for name, part in others.items()}
    shares = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda name: shares[name] - exact[name])[: left - sum(shares.values())]:
        shares[name] += 1
    return {name: part for name, part in {**shares, version: share}.items() if part}


def _most(traffic: Mapping[str, int], besides: str) -> str:
    others = {name: share for name, share in traffic.items() if name != besides}
    return max(others, key=lambda name: others[name], default="")


def _place(endpoint: Endpoint) -> list[Any]:
    return [dict(endpoint.traffic), endpoint.shadow]


def _told(traffic: Mapping[str, int]) -> str:
    return (
        ", ".join(f"{version} has {share} %" for version, share in sorted(traffic.items())) or "no version has traffic"
    )


@contextmanager
def _listening(rollout: _Rollout) -> Iterator[None]:
    """Let a signal that asks for the end raise _Stopped, but on the way back, which is short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        rollout.stopped = rollout.stopped or number
        if not rollout.returns:
            rollout.returns = True
            raise _Stopped(f"stopped by {signal.Signals(number).name}")

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
