"""A loaded model with all that an answer needs: from the bytes of a request to the bytes of its answer."""

from __future__ import annotations

import datetime
import json
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from penstock.components._shared.errors import UserError
from penstock.components._shared.model import TabularModel, load_model
from penstock.components._shared.sealed import MANIFEST
from penstock.components._shared.tabular import label_text
from penstock.components.deployment.serving import buckets, payloads
from penstock.components.deployment.serving.metrics import Metrics
from penstock.components.deployment.serving.payloads import Answer, Protocol, Rows
from penstock.components.deployment.serving.refusal import Refusal
from penstock.components.deployment.serving.request_log import Entry, RequestLog
from penstock.components.deployment.serving.settings import COMPONENT, Settings
from penstock.components.deployment.serving.signature import Signature

EXAMPLE = "serving_input_example.json"

_to_json = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True)
class Served:
    """A model that is ready to predict.

    Attributes:
        version: Its version in routes, log and metrics.
        example: The body of a request that MLflow made of its first training rows.
    """

    name: str
    version: str
    model: TabularModel
    signature: Signature
    example: bytes

    @property
    def example_rows(self) -> tuple[dict[str, Any], ...]:
        """The rows of the example, by column."""
        split = json.loads(self.example)["dataframe_split"]
        return tuple(dict(zip(split["columns"], row, strict=True)) for row in split["data"])

    def predict(self, rows: Rows) -> dict[str, np.ndarray]:
        """Return the columns of the signature's outputs, as the model's own `python_function` has them.

        Raises:
            Refusal: The model cannot read the rows, or predicts what JSON cannot say.
        """
        predicted = self.model.predict_matrix(self.signature.matrix(rows.columns, rows.count))
        if not np.isfinite(predicted).all():
            raise Refusal(500, "model", "the model predicts values that are not finite")
        names = [name for name, _ in self.signature.outputs]
        if not self.model.classes:
            return {names[0]: predicted}
        labels = np.array(self.model.classes)[predicted.argmax(axis=1)]
        return {names[0]: labels, **{name: predicted[:, place] for place, name in enumerate(names[1:])}}


class Answering:
    """Answers requests with a model: what runs in the threads that predict.

    Args:
        log: Where answered requests go; None: nowhere.
        sample: Share of them that goes there.
    """

    def __init__(self, served: Served, metrics: Metrics, log: RequestLog | None, sample: float) -> None:
        self.served, self._metrics, self._log, self._sample = served, metrics, log, sample
        metrics.watch([name for name, kind in served.signature.outputs if kind == "double"], served.model.task)

    def answer(self, protocol: Protocol, content_type: str, body: bytes, request_id: str) -> bytes:
        """Return the body of the answer to a request.

        Raises:
            Refusal: The request is malformed, or the model cannot read its rows.
        """
        served = self.served
        rows = payloads.read(protocol, content_type, body, served.signature)
        predicted = served.predict(rows)
        columns = {name: values.tolist() for name, values in predicted.items()}
        written = protocol.write(Answer(rows, columns, served.signature, served.name, served.version, request_id))
        self._metrics.rows.inc(rows.count)
        labels = [label_text(label) for label in columns["prediction"]] if served.model.classes else []
        self._metrics.observe(
            {name: predicted[name] for name, kind in served.signature.outputs if kind == "double"}, labels
        )
        if self._log and rows.count and (self._sample >= 1 or random.random() < self._sample):  # noqa: S311  no secret
            now = datetime.datetime.now(datetime.UTC)
            self._log.add(Entry(now, rows.id or request_id, rows.count, rows.columns, columns, len(body)))
        return _to_json(written).encode()


def load(settings: Settings) -> Served:
    """Fetch, verify and load the model, and predict its own example.

    Raises:
        UserError: It cannot be had, is damaged, or cannot predict its own example.
    """
    if not buckets.is_bucket(settings.model):
        return _load(Path(settings.model).expanduser(), settings)
    with tempfile.TemporaryDirectory(prefix="penstock-model-") as folder:
        buckets.fetch(settings.model, Path(folder))
        return _load(Path(folder), settings)


def _load(place: Path, settings: Settings) -> Served:
    folder = find_model(place)
    model = load_model(folder, COMPONENT, "model")
    version = settings.model_version or model_id(folder)[:12]
    served = Served(settings.model_name, version, model, Signature.of(model, folder), (folder / EXAMPLE).read_bytes())
    try:
        served.predict(payloads.read(payloads.PROTOCOLS["mlflow"], payloads.JSON, served.example, served.signature))
    except Refusal as error:
        raise UserError(
            COMPONENT, "model", f"{folder} cannot predict its own example: {error}", "Train it again"
        ) from error
    return served


def find_model(place: Path) -> Path:
    """Return the folder with a manifest: this one, or the only one right below it.

    Raises:
        UserError: There is none, or more than one.
    """
    if (place / MANIFEST).is_file():
        return place
    try:
        below = sorted(path for path in place.iterdir() if (path / MANIFEST).is_file())
    except OSError as error:
        raise UserError(COMPONENT, "model", f"{place} cannot be read: {error.strerror}", _REMEDY) from None
    if len(below) != 1:
        found = f"{len(below)} models: {', '.join(path.name for path in below[:5])}" if below else "no model"
        raise UserError(COMPONENT, "model", f"{place} holds {found}", _REMEDY)
    return below[0]


_REMEDY = "Name a model folder that `train` wrote, by PENSTOCK_MODEL or as the argument"


def model_id(folder: Path) -> str:
    """Return the id that MLmodel gives a model: the same for the same model."""
    return str(yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["model_uuid"])
