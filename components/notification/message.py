"""What is told of a run, whoever reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LONGEST_REASON = 2000
_VERTEX = re.compile(r"projects/([^/]+)/locations/([^/]+)/pipelineJobs/([^/]+)")
_VERBS = {"SUCCEEDED": "passed", "COMPLETE": "passed", "FAILED": "failed", "CANCELLED": "was cancelled"}


@dataclass(frozen=True)
class Final:
    """How the tasks of an exit handler ended, as KFP's PipelineTaskFinalStatus says it.

    Attributes:
        state: "SUCCEEDED" ("COMPLETE" on Kubeflow), "FAILED" or "CANCELLED".
        task: The exit handler.
        job: Resource name of the run.
        code: Of the error, a google.rpc.Code; None without one.
        reason: Of the error; empty without one.
    """

    state: str
    task: str
    job: str
    code: int | None = None
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether all went well."""
        return _VERBS.get(self.state) == "passed"


@dataclass(frozen=True)
class Message:
    """A message.

    Attributes:
        headline: One line.
        reason: Why the run failed; empty where it did not.
        facts: Names and values, as text.
        url: Page of the run; empty where it is not known.
    """

    passed: bool
    headline: str
    reason: str
    facts: Mapping[str, str]
    url: str


def compose(final: Final, title: str, run_id: str, run_url: str, facts: Mapping[str, Any]) -> Message:
    """Return what to tell of a run."""
    vertex = _VERTEX.fullmatch(final.job)
    if run_url:
        url = run_url.replace("{run_id}", run_id)
    elif vertex:
        project, location, job = vertex.groups()
        console = "https://console.cloud.google.com/vertex-ai"
        url = f"{console}/locations/{location}/pipelines/runs/{job}?project={project}"
    else:
        url = ""
    # Where it failed stands in the reason, which names the task; the exit handler's own name says little.
    known = {"run": run_id or final.job, "part": final.task if title else "", **facts}
    verb = _VERBS.get(final.state, f"ended as {final.state}")
    code = f" (code {final.code})" if final.code else ""
    reason = "" if final.passed else (final.reason.strip() or "The platform gave no reason")
    if len(reason) > LONGEST_REASON:
        reason = reason[:LONGEST_REASON] + " …"
    return Message(
        passed=final.passed,
        headline=f"{title or final.task or 'A run'} {verb}{code}",
        reason=reason,
        facts={name: str(value) for name, value in known.items() if value not in ("", None)},
        url=url,
    )


def plain(message: Message) -> str:
    """Return a message as text, several lines."""
    lines = [
        message.headline,
        message.reason,
        *(f"{name}: {value}" for name, value in message.facts.items()),
        message.url,
    ]
    return "\n".join(line for line in lines if line)
