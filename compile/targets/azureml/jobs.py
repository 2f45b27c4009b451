"""From a submission to the files of the job that is sent: its name, tags, identity. Nothing here talks to Azure."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import zoneinfo
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penstock.compile import graph, parameters, scheduling
from penstock.compile.documents import Documents
from penstock.compile.errors import PenstockError
from penstock.compile.findings import Finding
from penstock.compile.submission import Schedule, Settings, Submission
from penstock.compile.targets.azureml import convert, emit, validate, zones
from penstock.compile.targets.azureml import options as options_of
from penstock.compile.targets.azureml.plan import identifier
from penstock.compile.targets.azureml.step import parameter_value
from penstock.compile.yaml_writer import to_yaml

_CREDENTIALS = "it takes Azure's own: az login, or AZURE_CLIENT_ID and AZURE_TENANT_ID with one of their secrets"
_ADDRESS = "its address follows from the cloud, see AZUREML_CURRENT_CLOUD, and --workspace"
REFUSED = {
    "project": "it has workspaces in place of projects, see --workspace",
    "location": "a workspace has its own",
    "endpoint": _ADDRESS,
    "host": _ADDRESS,
    "namespace": "it has workspaces in place of namespaces, see --workspace",
    "token": _CREDENTIALS,
    "cookies": _CREDENTIALS,
    "ca_cert": "Azure's libraries read REQUESTS_CA_BUNDLE",
    "service_account": "it has identities in place of accounts, see --identity",
    "network": "the network of a run is the workspace's own, or its compute's",
    "encryption_key": "what encrypts artifacts is the workspace's own store",
    "pipeline_root": "artifacts go to a datastore, see `datastore` in the file of --options",
    "max_runs": "its schedules go on until --end",
    "max_concurrent": "its schedules begin a job whether another one is at work or not",
    "catch_up": "it makes up for no missed jobs",
}

SHA256_TAG = "penstock.spec_sha256"
"""Tag of jobs: SHA-256 of what they were made of."""
REQUEST_PROPERTY = "penstock.request"
"""Property of jobs and schedules: by it a second attempt knows its own."""
ENVIRONMENTS, COMPONENTS = "environments", "components"
REGISTRABLE = (ENVIRONMENTS, COMPONENTS)

_IDENTITIES = ("managed", "user_identity", "aml_token")
_RESERVED = "penstock."
_TAGS, _TAG_KEY, _TAG_VALUE = 50, 100, 1000
_TITLE_ROOM = 256
_NAME_ROOM = 128
_SCHEDULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
_VERSION = 16  # digits of a SHA-256 that make a version
_ASSET_ROOM = 255
_INPUT = re.compile(r"\$\{\{parent\.inputs\.(\w+)\}\}")
_DATA = ("uri_file", "uri_folder", "mltable", "mlflow_model", "custom_model")
_TYPES = {"integer": graph.Type.INTEGER, "number": graph.Type.DOUBLE, "boolean": graph.Type.BOOLEAN}


@dataclass(frozen=True)
class Asset:
    """Something that is to be there under a name and a version that its content decides.

    Attributes:
        content: Of an environment the image; of a component the path of its file.
    """

    name: str
    version: str
    content: str

    @property
    def reference(self) -> str:
        """How YAML names it."""
        return f"azureml:{self.name}:{self.version}"


@dataclass(frozen=True)
class Job:
    """What is sent.

    Attributes:
        files: Of the job, by path.
        environments, components: What is to be there before, in this order.
        warnings: What the conversion warns of.
    """

    files: Mapping[str, bytes]
    environments: tuple[Asset, ...] = ()
    components: tuple[Asset, ...] = ()
    warnings: tuple[Finding, ...] = ()


def run_id(submission: Submission) -> str:
    """Return the name of the job: the same for the same spec and idempotency key."""
    tail = f"-{submission.sha256[:12]}-{submission.token}"
    return submission.slug[: _NAME_ROOM - len(tail)].rstrip("-") + tail


def refusals(submission: Submission, schedule: Schedule | None = None) -> Iterator[str]:
    """Yield what Azure ML would refuse of a submission, beside what is wrong with its spec."""
    settings = submission.settings
    if submission.files:
        yield from validate.check(submission.files)
        if settings.options:
            yield "--options are for the conversion of a spec, and this is a converted job: convert the spec with them"
    if not 1 <= len(submission.name) <= _TITLE_ROOM:
        yield f"its name has {len(submission.name)} characters, and Azure ML takes {_TITLE_ROOM}; give a shorter --name"
    kind, _, client = (settings.identity or "aml_token").partition(":")
    if kind not in _IDENTITIES or (client and kind != "managed"):
        yield f"--identity {settings.identity}: there are managed, managed:CLIENT_ID, user_identity and aml_token"
    for what in settings.register:
        if what not in REGISTRABLE:
            yield f"--register {what}: there are {' and '.join(REGISTRABLE)}"
    yield from _wrong_tags(settings.labels)
    if schedule:
        yield from _wrong_schedule(schedule)


def job(submission: Submission, request: str, name: str | None = None) -> Job:
    """Return the job, converted where it is not yet.

    Args:
        request: What it can be known by later.
        name: Of the job; None: the service gives it one, as to the jobs of a schedule.
    """
    warnings: tuple[Finding, ...] = ()
    if submission.files:
        files = _with_inputs(submission)
    else:
        options = options_of.parse(submission.settings.options)
        done = convert.convert(submission.pipeline, submission.values, options, documents=submission.documents)
        if done.refused:  # which whoever submits has asked before
            raise PenstockError(f"{submission.pipeline.name} cannot run on azureml: {done.findings[0]}")
        files, warnings = dict(done.files), done.findings
    files[emit.JOB] = _yaml(_job_document(validate.load(files[emit.JOB]), submission, request, name))
    return _registered(Job(files, warnings=warnings), submission)


def trigger(schedule: Schedule) -> dict[str, Any]:
    """Return when the jobs of a schedule begin, as YAML of Azure ML says it."""
    zone = scheduling.zone(schedule.cron)
    found: dict[str, Any] = {"time_zone": zones.WINDOWS[zone] if zone else zones.UTC}
    for side, time in (("start_time", schedule.start), ("end_time", schedule.end)):
        if time:
            found[side] = _local(time, zone)
    if schedule.every:
        number, unit = schedule.every.split()
        return {"type": "recurrence", "frequency": unit.rstrip("s"), "interval": int(number), **found}
    return {"type": "cron", "expression": schedule.cron.partition(" ")[2] if zone else schedule.cron, **found}


def own_form(
    path: Path, texts: Mapping[str, str], file: Path | None, key: str, name: str | None, settings: Settings
) -> Submission | None:
    """Return a submission of a converted job, which is a folder with a job.yml; None where a path leads elsewhere.

    Raises:
        PenstockError: it cannot be read, or the parameters do not fit.
    """
    folder = path if path.is_dir() else path.parent
    if not (folder / emit.JOB).is_file() or (path != folder and path.name != emit.JOB):
        return None
    files = {
        each.relative_to(folder).as_posix(): each.read_bytes()
        for each in sorted(folder.rglob("*"))
        if each.is_file() and each.name != convert.MARK and "__pycache__" not in each.parts
    }
    if problems := validate.check(files):
        raise PenstockError(f"{path}: is no converted job: {'; '.join(problems)}")
    pipeline = _pipeline(files)
    values = parameters.from_file(pipeline, file) if file else {}
    values |= parameters.from_text(pipeline, texts)
    content = "".join(f"{hashlib.sha256(each).hexdigest()}  {name}\n" for name, each in files.items()).encode()
    sha256 = hashlib.sha256(content).hexdigest()
    complete = parameters.complete(pipeline, values)
    return Submission(content, sha256, Documents({}), pipeline, complete, name or pipeline.name, key, settings, files)


def _pipeline(files: Mapping[str, bytes]) -> graph.Pipeline:
    """Return what stands for a converted job's pipeline: its name and inputs."""
    document, given = validate.load(files[emit.PIPELINE]), validate.load(files[emit.JOB]).get("inputs") or {}
    kinds = _kinds(document, files)
    found: dict[str, graph.Parameter] = {}
    data: dict[str, graph.ArtifactPort] = {}
    for name, port in (document.get("inputs") or {}).items():
        if port["type"] in _DATA:
            data[name] = graph.ArtifactPort(name, graph.ArtifactType("system.Artifact"), optional=name in given)
            continue
        kind = kinds.get(name) or _TYPES.get(port["type"], graph.Type.STRING)
        value = given.get(name, port.get("default"))
        if isinstance(value, str):
            value = parameter_value(value, kind.value)
        there = name in given or "default" in port
        found[name] = graph.Parameter(name, kind, value, optional=there)
    root = graph.Component("root", graph.Ports(found, data), graph.Ports(), graph.Dag({}))
    return graph.Pipeline(document["name"], root, display_name=document.get("display_name", ""))


def _kinds(pipeline: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, graph.Type]:
    """Return the types that KFP has for the inputs of a job, which has them as text, where a step takes them."""
    found = {}
    for name, node in pipeline["jobs"].items():
        taken = json.loads(files[f"code/{name}/{emit.STEP}"])["parameters"]
        for port, binding in (node.get("inputs") or {}).items():
            if port in taken and (match := _INPUT.fullmatch(str(binding))):
                found[match[1]] = graph.Type(taken[port]["type"])
    return found


def _with_inputs(submission: Submission) -> dict[str, bytes]:
    """Return the files of a converted job, with the inputs in it that are given now."""
    files = dict(submission.files)
    document = validate.load(files[emit.JOB])
    kinds = validate.load(files[emit.PIPELINE]).get("inputs") or {}
    inputs = dict(document.get("inputs") or {})
    for name, value in submission.parameters.items():
        port = submission.pipeline.inputs.parameters[name]
        if value != port.default:
            inputs[name] = emit.encoded(value, port.type, kinds[name]["type"])
    for name, uri in submission.artifacts.items():
        inputs[name] = {"type": kinds[name]["type"], "path": uri}
    if inputs:
        document["inputs"] = inputs
    files[emit.JOB] = _yaml(document)
    return files


def _job_document(document: dict[str, Any], submission: Submission, request: str, name: str | None) -> dict[str, Any]:
    settings = submission.settings
    found = dict(document)
    if name:
        found["name"] = name
    if submission.name != submission.pipeline.name:
        found["display_name"] = submission.name
    if settings.experiment:
        found["experiment_name"] = settings.experiment
    if settings.identity:
        kind, _, client = settings.identity.partition(":")
        found["identity"] = {"type": kind, **({"client_id": client} if client else {})}
    found["tags"] = {**(document.get("tags") or {}), **settings.labels, SHA256_TAG: submission.sha256}
    found["properties"] = {**(document.get("properties") or {}), REQUEST_PROPERTY: request}
    return found


def _registered(made: Job, submission: Submission) -> Job:
    """Return a job whose environments and components are there under names of their own, as far as that is asked."""
    wanted, files = submission.settings.register, dict(made.files)
    environments: dict[str, Asset] = {}
    components: list[Asset] = []
    steps = sorted(path for path in files if path.startswith("components/"))
    if ENVIRONMENTS in wanted:
        for path in steps:
            document = validate.load(files[path])
            image = document["environment"]["image"]
            asset = environments.setdefault(image, _environment(image))
            files[path] = _yaml({**document, "environment": asset.reference})
    if COMPONENTS in wanted:
        prefix = identifier(submission.pipeline.name)
        references = {}
        for path in steps:
            code = f"code/{Path(path).stem}/"
            parts = [path, *sorted(each for each in files if each.startswith(code))]
            asset = _component(f"{prefix}__{Path(path).stem}", path, parts, files)
            files[path] = _yaml(_named(validate.load(files[path]), asset))
            references[f"./{path}"] = asset.reference
            components.append(asset)
        document = validate.load(files[emit.PIPELINE])
        for node in document["jobs"].values():
            node["component"] = references[node["component"]]
        files[emit.PIPELINE] = _yaml(document)
        asset = _component(prefix, emit.PIPELINE, [emit.PIPELINE], files)
        files[emit.PIPELINE] = _yaml(_named(document, asset))
        components.append(asset)
        files[emit.JOB] = _yaml({**validate.load(files[emit.JOB]), "component": asset.reference})
    return replace(made, files=files, environments=tuple(environments.values()), components=tuple(components))


def _environment(image: str) -> Asset:
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", image.partition("@")[0].rpartition("/")[2].partition(":")[0]).strip("-_")
    return Asset(f"{name or 'image'}"[:_ASSET_ROOM], hashlib.sha256(image.encode()).hexdigest()[:_VERSION], image)


def _component(name: str, path: str, parts: list[str], files: Mapping[str, bytes]) -> Asset:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part}\n{len(files[part])}\n".encode() + files[part])
    if len(name) > _ASSET_ROOM:
        name = f"{name[: _ASSET_ROOM - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return Asset(name, digest.hexdigest()[:_VERSION], path)


def _named(document: Mapping[str, Any], asset: Asset) -> dict[str, Any]:
    return {**document, "name": asset.name, "version": asset.version}


def _wrong_tags(labels: Mapping[str, str]) -> Iterator[str]:
    if len(labels) > _TAGS - 1:
        yield f"it has {len(labels)} labels, and Azure ML takes {_TAGS} tags, one of which is taken"
    for key, value in labels.items():
        if key.startswith(_RESERVED):
            yield f"--label {key}: names that begin with {_RESERVED} are taken"
        elif not 1 <= len(key) <= _TAG_KEY or len(value) > _TAG_VALUE:
            yield f"--label {key[:_TAG_KEY]}: a tag's name has {_TAG_KEY} characters at most, its value {_TAG_VALUE}"


def _wrong_schedule(schedule: Schedule) -> Iterator[str]:
    if not _SCHEDULE.fullmatch(schedule.name):
        yield (
            f"the schedule's name {schedule.name!r} is none there: give a --name of letters, digits, - and _ that "
            "begins with a letter or a digit"
        )
    zone = scheduling.zone(schedule.cron)
    if zone and zone not in zones.WINDOWS:
        near = [each for each in zones.WINDOWS if each.partition("/")[0] == zone.partition("/")[0]]
        yield (
            f"--cron TZ={zone}: Azure ML goes by the zones of Windows, and none is known here for it; there are "
            f"{', '.join(near or zones.WINDOWS)}"
        )


def _local(time: str, zone: str) -> str:
    """Return a time in UTC as it is in a zone, without an offset, which Azure takes from the zone."""
    moment = datetime.datetime.fromisoformat(time)
    return moment.astimezone(zoneinfo.ZoneInfo(zone or "UTC")).strftime("%Y-%m-%dT%H:%M:%S")


def _yaml(document: Mapping[str, Any]) -> bytes:
    return to_yaml(dict(document)).encode()
