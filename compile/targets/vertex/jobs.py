"""From a submission to what Vertex AI is sent: the job, its id, its labels. Nothing here talks to it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from penstock.compile import graph
from penstock.compile.submission import Schedule, Submission

_CREDENTIALS = "it takes Google's own: GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth application-default login"
_NO_WORKSPACE = "it has projects in place of workspaces, see --project"
REFUSED = {
    "host": "its address follows from --location; another one is given by --endpoint",
    "namespace": "it has projects in place of namespaces, see --project",
    "token": _CREDENTIALS,
    "cookies": _CREDENTIALS,
    "ca_cert": "Google's libraries read REQUESTS_CA_BUNDLE",
    "catch_up": "it is asked when a schedule is resumed: penstock schedules resume --catch-up",
    "subscription": _NO_WORKSPACE,
    "resource_group": _NO_WORKSPACE,
    "workspace": _NO_WORKSPACE,
    "options": "a compiled spec goes there as it is; they are for conversions",
    "identity": "it has accounts in place of identities, see --service-account",
    "register": "a spec has its images and components in itself",
    "every": "it has cron expressions, see --cron",
}

SHA256_LABEL = "penstock-spec-sha256"
"""Label of jobs: the first 63 of the 64 hexadecimal digits, for a label has room for no more."""
REQUEST_LABEL = "penstock-request"
"""Label of jobs: by it a second attempt knows its own, and a schedule what it was made of."""
_RESERVED = "penstock-"
_LABEL_ROOM = 63
_LABELS = 64
_ID_ROOM = 127
_NAME_ROOM = 128
_ROOT = re.compile(r"gs://[^/\s]+(/\S*)?")
_KEY = re.compile(r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+")
_NETWORK = re.compile(r"projects/[^/]+/global/networks/[^/]+")
# Schema 2.0.0, which TFX and KFP before 2.0 wrote, types its values.
_OLD_VALUES = {graph.Type.INTEGER: ("intValue", str), graph.Type.DOUBLE: ("doubleValue", float)}


def run_id(submission: Submission) -> str:
    """Return the id of the job: the same for the same spec and idempotency key."""
    tail = f"-{submission.sha256[:12]}-{submission.token}"
    return submission.slug[: _ID_ROOM - len(tail)].rstrip("-") + tail


def pipeline_root(submission: Submission) -> str:
    """Return the folder in a bucket that the run writes into; empty where nothing names one."""
    own = submission.pipeline.default_root or submission.documents.runtime.get("gcsOutputDirectory", "")
    return submission.settings.pipeline_root or own


def refusals(submission: Submission, schedule: Schedule | None = None) -> Iterator[str]:
    """Yield what Vertex AI would refuse of a submission, beside what is wrong with its spec."""
    settings = submission.settings
    root = pipeline_root(submission)
    if not root:
        yield "it has no pipeline root; give --pipeline-root gs://BUCKET/FOLDER, which Vertex AI writes artifacts to"
    elif not _ROOT.fullmatch(root):
        yield f"its pipeline root {root} is no place in a bucket; give --pipeline-root gs://BUCKET/FOLDER"
    if settings.encryption_key and not _KEY.fullmatch(settings.encryption_key):
        yield (
            f"--encryption-key {settings.encryption_key} is not "
            "projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY"
        )
    if settings.network and not _NETWORK.fullmatch(settings.network):
        yield f"--network {settings.network} is not projects/NUMBER/global/networks/NAME"
    if not 1 <= len(submission.name) <= _NAME_ROOM:
        yield f"its name has {len(submission.name)} characters, and Vertex AI takes {_NAME_ROOM}; give a shorter --name"
    yield from _wrong_labels(settings.labels)


def job(submission: Submission, request: str) -> dict[str, Any]:
    """Return the PipelineJob, as its JSON.

    Args:
        request: What the job can be known by later.
    """
    settings = submission.settings
    found: dict[str, Any] = {
        "displayName": submission.name,
        "pipelineSpec": dict(submission.documents.spec),
        "runtimeConfig": _runtime(submission),
        "labels": {
            **settings.labels,
            SHA256_LABEL: submission.sha256[:_LABEL_ROOM],
            REQUEST_LABEL: request[:_LABEL_ROOM],
        },
    }
    if settings.service_account:
        found["serviceAccount"] = settings.service_account
    if settings.network:
        found["network"] = settings.network
    if settings.encryption_key:
        found["encryptionSpec"] = {"kmsKeyName": settings.encryption_key}
    return found


def schedule(submission: Submission, wanted: Schedule, parent: str) -> dict[str, Any]:
    """Return the Schedule, as its JSON.

    Args:
        parent: Location that the jobs run in.
    """
    found: dict[str, Any] = {
        "displayName": wanted.name,
        "cron": wanted.cron,
        "maxConcurrentRunCount": str(wanted.max_concurrent or 1),
        "createPipelineJobRequest": {"parent": parent, "pipelineJob": job(submission, wanted.request(submission))},
    }
    if wanted.start:
        found["startTime"] = wanted.start
    if wanted.end:
        found["endTime"] = wanted.end
    if wanted.max_runs:
        found["maxRunCount"] = str(wanted.max_runs)
    return found


def is_same(labels: Mapping[str, str], request: str) -> bool:
    """Return whether labels are those of a request."""
    return labels.get(REQUEST_LABEL) == request[:_LABEL_ROOM]


def _runtime(submission: Submission) -> dict[str, Any]:
    values = submission.parameters
    found: dict[str, Any] = {"gcsOutputDirectory": pipeline_root(submission)}
    if submission.pipeline.schema_version == "2.0.0":
        found["parameters"] = {name: _old_value(submission.pipeline, name, value) for name, value in values.items()}
    else:
        found["parameterValues"] = values
    if submission.artifacts:
        found["inputArtifacts"] = {name: {"artifactId": value} for name, value in submission.artifacts.items()}
    policy = submission.documents.runtime.get("failurePolicy")
    return {**found, "failurePolicy": policy} if policy else found


def _old_value(pipeline: graph.Pipeline, name: str, value: Any) -> dict[str, Any]:
    field, convert = _OLD_VALUES.get(pipeline.inputs.parameters[name].type, ("stringValue", _text))
    return {field: convert(value)}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _wrong_labels(labels: Mapping[str, str]) -> Iterator[str]:
    if len(labels) > _LABELS - 2:
        yield f"it has {len(labels)} labels, and Vertex AI takes {_LABELS}, two of which are taken"
    for key, value in labels.items():
        if key.startswith(_RESERVED):
            yield f"--label {key}: names that begin with {_RESERVED} are taken"
        elif not key or not key[0].isalpha() or not _fits(key):
            yield (
                f"--label {key}: a label's name begins with a letter and has at most {_LABEL_ROOM} lower-case letters, "
                "digits, - and _"
            )
        elif not _fits(value):
            yield f"--label {key}={value}: a value has at most {_LABEL_ROOM} lower-case letters, digits, - and _"


def _fits(text: str) -> bool:
    # Letters of other scripts than Latin have no case; Google takes them.
    return len(text) <= _LABEL_ROOM and all(
        letter in "-_" or letter.isdigit() or (letter.isalpha() and letter == letter.lower()) for letter in text
    )
