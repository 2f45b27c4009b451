"""MLflow: a SQLite file or a tracking server.

A version's source is the model folder, uploaded as artifacts of an MLflow run that also holds parameters, metrics, the
schema and the statistics. The lineage lies on the version as tags whose names start with `penstock.`.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from pathlib import Path

from mlflow.artifacts import download_artifacts
from mlflow.entities import Metric, Param, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from penstock.components._shared.errors import UserError
from penstock.components._shared.mlflow_registry import Registry, open_registry
from penstock.components.registry.entry import ANY, Entry, Registered
from penstock.components.registry.mutex import hold

COMPONENT = "register"
LONGEST_VALUE = 5000  # characters of a tag or parameter that every MLflow release and store takes
BATCH = 100  # parameters that one request may carry
STATISTICS = "statistics"  # folder of an MLflow run


class MlflowBackend:
    """Registers in MLflow."""

    def add(self, entry: Entry, registry: str) -> Registered:
        """See Backend."""
        place = open_registry(registry, COMPONENT)
        at_start = place.aliases(entry.name).get(entry.alias, "")
        version = _find(place, entry)
        uploaded = None if version else _upload(place, entry)
        try:
            with hold(place, entry.name, entry.run_id):
                version = version or _find(place, entry)
                expected = _expected(entry, version, at_start)
                if version is None and uploaded is not None:
                    version = _create(place, entry, uploaded, expected)
                    uploaded = None
                assert version is not None
                return _move_alias(place, entry, version, expected)
        finally:
            if uploaded is not None:  # another attempt of this step was quicker
                with contextlib.suppress(MlflowException):
                    place.client.delete_run(uploaded)

    def move(self, name: str, version: str, alias: str, expected: str, registry: str, run_id: str) -> Registered:
        """See Backend."""
        place = open_registry(registry, "promote")
        at_start = place.aliases(name).get(alias, "")
        uri = f"models:/{name}/{version}"
        with hold(place, name, run_id):
            tags = _version(place, name, version).tags
            now = place.aliases(name).get(alias, "")
            if now == version:  # an earlier attempt of this step was here
                return Registered(version, uri, tags.get(_tag("replaces"), ""))
            wanted = at_start if expected == ANY else expected
            if now != wanted:
                raise UserError(
                    place.component,
                    "alias",
                    f"{alias} of {name} is now {_said(now)}, not {_said(wanted)}: it is left there",
                    "Evaluate against it and promote again",
                )
            with place.speaking():
                client = place.client
                client.set_model_version_tag(name, version, _tag("replaces"), wanted)
                client.set_registered_model_alias(name, alias, version)
                client.set_model_version_tag(name, version, _tag(f"alias.{alias}"), "set")
        return Registered(version, uri, wanted)

    def reference(self, name: str, alias: str, registry: str, statistics: Path) -> Registered:
        """See Backend."""
        place = open_registry(registry, "fetch_reference")
        version = place.aliases(name).get(alias, "")
        if not version:
            raise UserError(
                place.component,
                "model_name",
                f"{place.uri} has no {alias} of {name!r}",
                "Train and register one first, such as by the pipeline tabular_training",
            )
        run = _version(place, name, version).run_id
        with tempfile.TemporaryDirectory(prefix="penstock-reference-") as folder:
            with place.speaking():
                listed = place.client.list_artifacts(run, STATISTICS)
                files = [
                    download_artifacts(
                        run_id=run, artifact_path=each.path, dst_path=folder, tracking_uri=place.client.tracking_uri
                    )
                    for each in listed
                ]
            if len(files) != 1:
                raise UserError(
                    place.component,
                    "model_name",
                    f"version {version} of {name!r} was registered without the statistics of its training rows",
                    "Register a version with them; register takes the statistics that validate writes",
                )
            statistics.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files[0], statistics)
        return Registered(version, f"models:/{name}/{version}", "")


def _tag(name: str) -> str:
    return f"penstock.{name}"


def _version(place: Registry, name: str, version: str) -> ModelVersion:
    with place.speaking():
        try:
            return place.client.get_model_version(name, version)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    raise UserError(
        place.component,
        "version",
        f"{place.uri} has no version {version} of {name!r}",
        "Give one that register returned",
    )


def _find(place: Registry, entry: Entry) -> ModelVersion | None:
    """Return the version that an earlier attempt of the same step made."""
    with place.speaking():
        found = place.client.search_model_versions(
            f"name = '{entry.name}' AND tags.`{_tag('model_sha256')}` = '{entry.digest}'", max_results=1000
        )
    same = [version for version in found if version.tags.get(_tag("run_id"), "") == entry.run_id]
    return min(same, key=lambda version: int(version.version), default=None)


def _upload(place: Registry, entry: Entry) -> str:
    """Return the id of a new MLflow run that holds the model folder."""
    experiment = place.experiment()
    with place.speaking():
        client = place.client
        run: str = client.create_run(experiment, run_name=entry.name).info.run_id
        try:
            tags = [RunTag(name, value) for name, value in _tags(entry).items()]
            now = time.time_ns() // 1_000_000
            metrics = [Metric(name, value, now, 0) for name, value in entry.metrics.items()]
            client.log_batch(run, metrics=metrics, tags=tags)
            parameters = [Param(name, value[:LONGEST_VALUE]) for name, value in entry.parameters.items()]
            for first in range(0, len(parameters), BATCH):
                client.log_batch(run, params=parameters[first : first + BATCH])
            client.log_artifacts(run, str(entry.folder), "model")
            if entry.schema is not None:
                client.log_artifact(run, str(entry.schema), "schema")
            if entry.statistics is not None:
                client.log_artifact(run, str(entry.statistics), STATISTICS)
            client.set_terminated(run, "FINISHED")
        except BaseException:
            with contextlib.suppress(MlflowException):
                client.set_terminated(run, "FAILED")
            raise
    return run


def _expected(entry: Entry, version: ModelVersion | None, at_start: str) -> str:
    """Return the version that the alias has to point to: a retry holds to what the first attempt saw."""
    if entry.expected != ANY:
        return entry.expected
    if version is not None and entry.run_id:
        return str(version.tags.get(_tag("replaces"), at_start))
    return at_start


def _create(place: Registry, entry: Entry, run: str, expected: str) -> ModelVersion:
    with place.speaking():
        client = place.client
        try:
            client.create_registered_model(entry.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        tags = _tags(entry)
        if entry.alias:
            tags[_tag("replaces")] = expected
        source = f"{client.get_run(run).info.artifact_uri}/model"
        return client.create_model_version(entry.name, source, run, tags, description=entry.reason[:LONGEST_VALUE])


def _move_alias(place: Registry, entry: Entry, version: ModelVersion, expected: str) -> Registered:
    """Point the alias at `version` if it still points where it is expected to."""
    number = str(version.version)
    uri = f"models:/{entry.name}/{number}"
    if not entry.alias:
        return Registered(number, uri, "")
    state = _tag(f"alias.{entry.alias}")
    # What a run once did, its retry does not do again; without a run there is no telling a retry from a new wish.
    done = bool(entry.run_id) and version.tags.get(state) == "set"
    now = place.aliases(entry.name).get(entry.alias, "")
    with place.speaking():
        if now not in (number, expected) and not done:
            place.client.set_model_version_tag(
                entry.name, number, state, f"not set: another run had made it {_said(now)}"
            )
            raise UserError(
                COMPONENT,
                "alias",
                f"{entry.alias} of {entry.name} is now {_said(now)}, not {_said(expected)}: "
                f"this model is version {number}, without the alias",
                "Evaluate against it and register again",
            )
        if now != number and not done:
            place.client.set_registered_model_alias(entry.name, entry.alias, number)
        if not done:
            place.client.set_model_version_tag(entry.name, number, state, "set")
    return Registered(number, uri, expected)


def _said(version: str) -> str:
    return f"version {version}" if version else "no version"


def _tags(entry: Entry) -> dict[str, str]:
    tags = {_tag(name): value[:LONGEST_VALUE] for name, value in entry.lineage.items() if value}
    return tags | {_tag("run_id"): entry.run_id, _tag("reason"): entry.reason[:LONGEST_VALUE]}
