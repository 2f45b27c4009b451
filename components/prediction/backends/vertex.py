"""Predictions by one BatchPredictionJob of Vertex AI, on a version of a model that is registered there.

The job asks the model's serving container, so a row is read there as a request is: a missing value in a column that
missed none in training, and a fraction in a column of whole numbers, make a bad row.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from google.cloud.aiplatform import utils

from penstock.components._shared.clouds import vertex
from penstock.components._shared.clouds.calls import Calls
from penstock.components._shared.errors import UserError
from penstock.components.prediction import remote
from penstock.components.prediction.remote import KEY, LABEL, Instances
from penstock.components.prediction.scoring import COMPONENT, Backend, Problems, Scored, Scoring

MODEL = re.compile(r"projects/[^/]+/locations/[^/]+/models/[^/@]+@[^/@]+")
LARGEST = 2**53 - 1  # of whole numbers in JSON
OPTIONS = {
    **vertex.OPTIONS,
    "model": "Registered version: projects/P/locations/L/models/M@VERSION.",
    "staging_bucket": "gs:// folder that rows and predictions go through.",
    "machine_type": "Machine that predicts; n1-standard-4 without it.",
    "machines": "Machines at first; 1 without it.",
    "max_machines": "Machines at most; as many as at first without it.",
    "batch_size": "Rows a request to the model; Vertex AI's own choice without it.",
    "service_account": "Account that the model runs as.",
    "encryption_key": "Key of Cloud KMS that the job is encrypted with.",
}


def cannot(scoring: Scoring) -> list[str]:
    """Return what Vertex AI cannot be told."""
    options, found = scoring.options, []
    if not MODEL.fullmatch(str(options.get("model", ""))):
        found.append("a scoring without the option model, projects/P/locations/L/models/M@VERSION")
    if not str(options.get("staging_bucket", "")).startswith("gs://"):
        found.append("a scoring without the option staging_bucket, a gs:// folder")
    for name in ("machines", "max_machines", "batch_size"):
        if name in options and not (str(options[name]).isdecimal() and int(options[name]) > 0):
            found.append(f"{name} {options[name]!r}, which is no number above 0")
    if KEY in scoring.model.features:
        found.append(f"a model that reads a column {KEY}")
    if not scoring.run_id:
        found.append("a scoring without a run_id, by which a restarted step knows its job")
    return found


def strange(scoring: Scoring, frame: pd.DataFrame) -> Problems:
    """Return the rows that the model can read and its server refuses."""
    problems: Problems = {}
    for name, kind, required in _signature(scoring.folder):
        values = frame[name] if name in frame.columns else pd.Series(np.nan, frame.index)
        if required:
            for row in np.flatnonzero(values.isna().to_numpy()):
                problems.setdefault(int(row), (name, "is missing, and the model's server wants one"))
        if kind == "long" and values.dtype.kind in "iuf":
            numbers = values.to_numpy(dtype=np.float64)
            whole = np.isnan(numbers) | ((numbers == np.floor(numbers)) & (np.abs(numbers) <= LARGEST))
            for row in np.flatnonzero(~whole):
                reason = f"is no whole number within {LARGEST:,}, and the model's server wants one"
                problems.setdefault(int(row), (name, reason))
    return problems


def _signature(folder: Path) -> list[tuple[str, str, bool]]:
    """Return name, MLflow's type and whether a value is required of each column that a model reads."""
    written = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["signature"]
    return [(each["name"], each["type"], each["required"]) for each in json.loads(written["inputs"])]


class Vertex(vertex.LabelledJobs):
    """Vertex AI, for one scoring."""

    kind, message_type, label = "batch_prediction_job", "BatchPredictionJob", LABEL

    def __init__(self, scoring: Scoring, instances: Instances) -> None:
        super().__init__(scoring.options)
        self._scoring, self._instances = scoring, instances
        self._models = vertex.client(utils.ModelClientWithOverride)
        self._store = vertex.store()
        self._folder = f"{str(scoring.options['staging_bucket']).rstrip('/')}/{LABEL}/{instances.label}"
        self._calls = Calls(self, COMPONENT, "platform")

    def prepare(self) -> None:
        """Hold the registered model to the one that was given, and upload the rows."""
        self._check_model()
        for name in self._instances.files:
            place = f"{self._folder}/instances/{name}"
            self._calls(f"upload {place}", functools.partial(self._upload, self._instances.folder / name, place))

    def _upload(self, file: Path, uri: str, seconds: float) -> None:
        bucket, path = vertex.place(uri)
        blob = self._store.bucket(bucket).get_blob(path, timeout=seconds, retry=None)
        # An attempt that was killed may have put it there; the place says what it holds.
        if blob is None or blob.size != file.stat().st_size:
            self._store.bucket(bucket).blob(path).upload_from_filename(str(file), timeout=seconds, retry=None)

    def _check_model(self) -> None:
        wanted = str(self._scoring.options["model"])
        model = self._calls(
            f"ask for the model {wanted}",
            lambda seconds: self._models.get_model(name=wanted, timeout=seconds, retry=None),
        )
        own, source = self._scoring.folder / "MLmodel", str(model.artifact_uri).rstrip("/")
        bucket, path = vertex.place(f"{source}/{own.name}")
        there = self._calls(
            f"read {source}/{own.name}",
            lambda seconds: self._store.bucket(bucket).blob(path).download_as_bytes(timeout=seconds, retry=None),
        )
        if there != own.read_bytes():
            raise UserError(
                COMPONENT,
                "options",
                f"{wanted}, made of {source}, is another model than the one that was given",
                "Give the version that was made of it",
            )

    def results(self, name: str, folder: Path) -> Sequence[Path]:
        job = self._calls("ask for the job", lambda seconds: self.found(name, seconds))
        uri = str(job.output_info.gcs_output_directory)
        if not uri:
            raise self._calls.refusal(f"the job {name} does not say where its predictions are", "Look at it there")
        bucket, path = vertex.place(f"{uri.rstrip('/')}/")
        found = self._calls(
            f"list {uri}",
            lambda seconds: list(self._store.list_blobs(bucket, prefix=path, timeout=seconds, retry=None)),
        )
        fetched = []
        for number, blob in enumerate(found):
            if "prediction" in blob.name.rpartition("/")[2]:  # predictions and errors; nothing else is read
                fetched.append(folder / f"{number:05d}")
                self._calls(f"fetch {blob.name}", functools.partial(_fetch, blob, fetched[-1]))
        return fetched

    def message(self, label: str) -> dict[str, Any]:
        """Return the job, as the API takes it."""
        options = self._scoring.options
        machines = int(options.get("machines", 1))
        found: dict[str, Any] = {
            "display_name": f"penstock-batch-{label[:12]}",
            "labels": {LABEL: label},
            "model": str(options["model"]),
            "input_config": {
                "instances_format": "jsonl",
                "gcs_source": {"uris": [f"{self._folder}/instances/{name}" for name in self._instances.files]},
            },
            "instance_config": {"instance_type": "object", "key_field": KEY},
            "output_config": {
                "predictions_format": "jsonl",
                "gcs_destination": {"output_uri_prefix": f"{self._folder}/predictions"},
            },
            "dedicated_resources": {
                "machine_spec": {"machine_type": str(options.get("machine_type", "n1-standard-4"))},
                "starting_replica_count": machines,
                "max_replica_count": max(machines, int(options.get("max_machines", machines))),
            },
        }
        if "batch_size" in options:
            found["manual_batch_tuning_parameters"] = {"batch_size": int(options["batch_size"])}
        if options.get("service_account"):
            found["service_account"] = str(options["service_account"])
        if options.get("encryption_key"):
            found["encryption_spec"] = {"kms_key_name": str(options["encryption_key"])}
        return found


def _fetch(blob: Any, file: Path, seconds: float) -> None:
    blob.download_to_filename(str(file), timeout=seconds, retry=None)


def scored(scoring: Scoring) -> Iterator[Scored]:
    """Yield the batches with the predictions of the job."""
    return remote.scored(scoring, Vertex, strange)


BACKEND = Backend(options=OPTIONS, cannot=cannot, scored=scored)
