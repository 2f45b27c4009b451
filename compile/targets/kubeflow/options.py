"""What Kubeflow Pipelines does not have, and how runs of it are known again."""

from __future__ import annotations

import re
from collections.abc import Iterator

from penstock.compile import scheduling
from penstock.compile.submission import Schedule, Submission

_NO_WORKSPACE = "it has no workspaces; --host and --namespace say where"
REFUSED = {
    "project": "it has namespaces in place of projects, see --namespace",
    "location": "its address is all there is, see --host",
    "endpoint": "its address is --host",
    "label": "runs of its API have no labels; --name and --experiment are what lists can be filtered by",
    "network": "the network of a run is the cluster's own",
    "encryption_key": "what encrypts artifacts is the cluster's own store",
    "max_runs": "its recurring runs go on until --end",
    "subscription": _NO_WORKSPACE,
    "resource_group": _NO_WORKSPACE,
    "workspace": _NO_WORKSPACE,
    "options": "a compiled spec goes there as it is; they are for conversions",
    "identity": "it has accounts in place of identities, see --service-account",
    "register": "a spec has its images and components in itself",
    "every": "it has cron expressions, see --cron",
}

_NAME_ROOM = 255
_MOST_AT_ONCE = 10
_TOKEN = "penstock-run"  # noqa: S105 - it names a run
_REQUEST = "penstock-request"


def run_id(submission: Submission) -> str:
    """Return the id of the run: empty, for Kubeflow gives it."""
    return ""


def refusals(submission: Submission, schedule: Schedule | None = None) -> Iterator[str]:
    """Yield what Kubeflow would refuse of a submission, beside what is wrong with its spec."""
    if not 1 <= len(submission.name) <= _NAME_ROOM:
        yield f"its name has {len(submission.name)} characters, and Kubeflow takes {_NAME_ROOM}; give a shorter --name"
    if submission.documents.wrapper == "PipelineJob":
        yield "its file is a PipelineJob of Vertex AI, whose settings Kubeflow does not read; compile the pipeline anew"
    if submission.artifacts:
        names = ", ".join(submission.artifacts)
        yield f"{names}: runs take no artifacts there; import them in the pipeline, by the URI that a parameter gives"
    if schedule and (zone := scheduling.zone(schedule.cron)):
        yield f"--cron TZ={zone}: schedules go by the cluster's zone, UTC unless its CRON_SCHEDULE_TIMEZONE is set"
    if schedule and (schedule.max_concurrent or 1) > _MOST_AT_ONCE:
        yield f"--max-concurrent {schedule.max_concurrent}: it takes {_MOST_AT_ONCE} at most"


def token(submission: Submission) -> str:
    """Return the text by which a run that a submission has begun is found among all."""
    return f"{_TOKEN}={submission.token};"


def description(submission: Submission) -> str:
    """Return the description of a run: what it was made of, as people and a second attempt read it."""
    return f"{token(submission)} {_REQUEST}={submission.request}; spec sha256={submission.sha256}"


def schedule_description(submission: Submission, schedule: Schedule) -> str:
    """Return the description of a recurring run; its runs have the same."""
    return f"{_REQUEST}={schedule.request(submission)}; spec sha256={submission.sha256}"


def request(text: str | None) -> str:
    """Return what a description says that it was made of; empty where it was not written here."""
    found = re.search(rf"{_REQUEST}=([0-9a-f]{{64}});", text or "")
    return found[1] if found else ""
