"""The work of `predict_batch`: rows stream from part files through a model into a dataset."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.components._shared import beam, disk
from penstock.components._shared.dataset import Dataset, open_dataset, require_columns
from penstock.components._shared.errors import UserError, on_behalf_of
from penstock.components._shared.model import TabularModel, load_model
from penstock.components._shared.parts import gathering
from penstock.components._shared.sealed import new_folder
from penstock.components.prediction import backends
from penstock.components.prediction.scoring import COMPONENT, PLACE, Scoring
from penstock.components.prediction.units import by_units
from penstock.components.prediction.written import Written, columns_of

ALL = "*"
HERE = "local"


@dataclass(frozen=True)
class Predicted:
    """How many rows were predicted, and how many the model could not read."""

    rows: int
    bad_rows: int


def predict(
    model: str | os.PathLike[str],
    dataset: str | os.PathLike[str],
    predictions: str | os.PathLike[str],
    rejects: str | os.PathLike[str],
    *,
    keep: Sequence[str] = (),
    max_bad_rows: int = 0,
    platform: str = "local",
    options: Mapping[str, Any] | None = None,
    max_seconds: float = 86_400.0,
    run_id: str = "",
    engine: str = beam.LOCAL,
    beam_options: Mapping[str, Any] = beam.DIRECT,
    uris: Sequence[str] = ("", "", "", ""),
) -> Predicted:
    """Predict the rows of a dataset, in order and batch by batch, so that memory does not grow with them.

    Args:
        model: Model folder.
        dataset: Folder of the rows.
        predictions: Folder to write: dataset of the columns of `keep` and the predictions.
        rejects: Folder to write: dataset of the rows that the model cannot read.
        keep: Columns to keep; "*" for all. Empty: the place of the row, from 0, as `row`.
        max_bad_rows: Bad rows at most.
        platform: Where: "local", in this process; "vertex" or "azureml", as a job there.
        options: The platform's own.
        max_seconds: That a job may take.
        run_id: Of the run, by which a restarted step knows its job.
        engine: With the platform "local": "local", or "beam", which predicts row groups by themselves; see units.
        beam_options: Of Beam, the runner among them.
        uris: Where Beam's workers find model, dataset, predictions and rejects, if they are on other machines.

    Raises:
        UserError: An input is wrong, the platform cannot do it, the model cannot read a column at all, or there are
            more bad rows. Then neither folder is left.
    """
    backend, given = backends.backend(platform), dict(options or {})
    _check_options(platform, backend.options, given)
    on_beam = beam.chosen(COMPONENT, engine, beam_options)
    if on_beam and platform != HERE:
        raise UserError(COMPONENT, "engine", f"with 'beam', no job of {platform} predicts", "Choose one of the two")
    loaded = load_model(model, COMPONENT, "model")
    rows = open_dataset(dataset, COMPONENT, "dataset")
    require_columns(rows, list(loaded.features), COMPONENT, "model")
    kept = _kept(rows, keep, loaded)
    schema = _schema(rows, kept, loaded)
    scoring = Scoring(loaded, Path(model), rows, kept, max_bad_rows, max_seconds, run_id, given)
    if refused := backend.cannot(scoring):
        raise UserError(
            COMPONENT, "platform", f"{platform} cannot do {', '.join(refused)}", "Change it, or take another platform"
        )
    if on_beam:
        named = (("model", model), ("dataset", dataset), ("predictions", predictions), ("rejects", rejects))
        places = [
            beam.place(on_beam, name, os.path.abspath(path), uri) for (name, path), uri in zip(named, uris, strict=True)
        ]
        with ExitStack() as stack:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-predict-"))
            stack.enter_context(on_behalf_of(COMPONENT))
            gathered = [
                stack.enter_context(gathering(*both)) for both in zip((predictions, rejects), places[2:], strict=True)
            ]
            spread = functools.partial(beam.spread, on_beam, folder=scratch)
            return Predicted(*by_units(scoring, schema, places[0], places[1], gathered, spread))
    with new_folder(rejects) as rejects_folder, new_folder(predictions) as folder:
        if not max_bad_rows:  # of bad rows, nothing is kept
            disk.require(
                {folder: disk.carried(rows, kept)},
                COMPONENT,
                "keep",
                "the columns to keep",
                "Keep fewer, or give the step a larger disk",
            )
        written = Written(folder, rejects_folder, schema, kept, loaded, max_bad_rows)
        for batch in backend.scored(scoring):
            written.add(batch)
        written.bad.finish()
        written.good.finish()
    return Predicted(written.good.digest.rows, written.bad.digest.rows)


def _check_options(platform: str, known: Mapping[str, str], given: Mapping[str, Any]) -> None:
    if unknown := sorted(given.keys() - known.keys()):
        raise UserError(
            COMPONENT,
            "options",
            f"{unknown[0]!r} is no option of the platform {platform}",
            f"It has {', '.join(known) or 'none'}",
        )


def _kept(rows: Dataset, keep: Sequence[str], model: TabularModel) -> list[str]:
    if ALL in keep:
        names = list(rows.schema)
    else:
        require_columns(rows, list(keep), COMPONENT, "keep")
        names = list(dict.fromkeys(keep)) or [PLACE]
    if taken := [name for name in names if name in columns_of(model)]:
        raise UserError(
            COMPONENT,
            "keep",
            f"{', '.join(taken)} would be a column twice",
            "Rename it in ingest's query, or leave it out",
        )
    return names


def _schema(rows: Dataset, kept: Sequence[str], model: TabularModel) -> pa.Schema:
    fields = [pa.field(PLACE, pa.int64())]
    if list(kept) != [PLACE] or PLACE in rows.schema:
        own = pq.read_schema(rows.files[0]).remove_metadata() if rows.files else pa.schema([])
        fields = [own.field(name) for name in kept]
    label = pa.array(list(model.classes)).type if model.classes else pa.float64()
    first, *probabilities = columns_of(model)
    return pa.schema([*fields, pa.field(first, label), *(pa.field(name, pa.float64()) for name in probabilities)])
