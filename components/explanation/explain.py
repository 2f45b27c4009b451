"""The work of `explain`: a model's predictions are attributed to its columns, in one pass over the rows."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.components._shared import memory
from penstock.components._shared.dataset import Dataset, frame_of, open_dataset, require_columns, write_dataset
from penstock.components._shared.errors import UserError
from penstock.components._shared.labels import labels_of
from penstock.components._shared.model import TabularModel, load_model
from penstock.components._shared.slices import cut
from penstock.components._shared.tabular import label_text
from penstock.components.explanation import chosen, dependence, document, importance, render, vertex
from penstock.components.explanation.explainers import Attributed, Explainer, Subject, choose, of_classes
from penstock.components.explanation.sample import Sample, batches, draw, weights_of
from penstock.components.explanation.summary import Additivity, Grouping, Sums, codes_of, overall

COMPONENT = "explain"
BATCH = 32_768  # rows explained at a time, and read
VALUES = 1 << 22  # attributions held at a time: fewer rows of a model of many classes
BACKGROUND = 10_000  # rows of background at most
POINTS = 600  # rows in the plot of all rows
LOGGED = 50  # features whose attribution is logged as a metric
BYTES_OF_ROW, BYTES_OF_SLICE, BYTES_OF_CUT = 8, 2, 20  # that is explained: its number, its slices, and while it is cut


@dataclass(frozen=True)
class Explained:
    """What `explain` found.

    Attributes:
        metrics: Rows, the check of additivity, and the mean absolute attribution of the most important features.
        additive: Whether the attributions of every row add up to its prediction.
        method: Method that was used.
        rows: Rows that were explained.
    """

    metrics: dict[str, float]
    additive: bool
    method: str
    rows: int


@dataclass(frozen=True)
class Asked:
    """What the user asked for, once it is known to make sense."""

    keys: tuple[str, ...]
    weight_column: str
    metric: str
    sample_rows: int
    repeats: int
    dependence_features: int
    seed: int


def explain(
    model: str | os.PathLike[str],
    dataset: str | os.PathLike[str],
    attributions: str | os.PathLike[str],
    explanation: str | os.PathLike[str],
    vertex_attributions: str | os.PathLike[str],
    report: str | os.PathLike[str],
    *,
    background: str | os.PathLike[str] | None = None,
    method: str = "auto",
    keys: Sequence[str] = (),
    slices: Sequence[str] = (),
    local: Sequence[str] = ("highest 3", "lowest 3"),
    weight_column: str = "",
    metric: str = "auto",
    max_rows: int = 100_000,
    sample_rows: int = 5_000,
    repeats: int = 5,
    dependence_features: int = 6,
    max_evaluations: int = 10_000_000,
    tolerance: float = 0.0,
    seed: int = 0,
) -> Explained:
    """Return what columns add to a model's predictions, written to `attributions` row by row.

    Args:
        model: Model folder.
        dataset: Dataset of the rows.
        attributions: Dataset to write: row (number), keys, class (of a multiclass model), prediction, output (what the
            attributions add up to), base_value, and attribution_<feature> of each feature.
        explanation: Where everything else goes, as JSON; see document.py.
        vertex_attributions: Where the averages go in Vertex AI's form; see vertex.py.
        report: Where the page goes.
        background: Dataset of rows that stand for not knowing a column; None: `dataset`.
        method: Row of the table of methods, or "auto"; see explainers.
        keys: Columns to keep beside the attributions.
        slices: Columns to average by value; see slices.py.
        local: Rows to show one by one; see chosen.py.
        weight_column: Column of row weights.
        metric: Of the permutation importance; see importance.py.
        max_rows: Rows to explain; 0: all.
        sample_rows: Rows that importance and dependence are measured on, 1 or more.
        repeats: Permutations of each column; 0: none.
        dependence_features: Features whose partial dependence is measured.
        max_evaluations: Predictions that a method may ask for.
        tolerance: Relative gap that additivity puts up with; 0: the method's own.
        seed: Of everything random.

    Raises:
        UserError: An argument is wrong, or the rows do not fit the model.
    """
    for argument, value, least in (
        ("max_rows", max_rows, 0),
        ("sample_rows", sample_rows, 1),
        ("repeats", repeats, 0),
        ("dependence_features", dependence_features, 0),
        ("max_evaluations", max_evaluations, 1),
        ("seed", seed, 0),
    ):
        _in_range(argument, value, least)
    if isinstance(tolerance, bool) or not math.isfinite(tolerance) or tolerance < 0:
        raise UserError(COMPONENT, "tolerance", f"{tolerance!r} is not 0 or more", "Give for example 0.001, or 0")
    loaded = load_model(model, COMPONENT, "model")
    rows = _open(dataset, loaded, "dataset")
    _check_keys(keys, rows, loaded)
    require_columns(rows, list(slices), COMPONENT, "slices")
    require_columns(rows, [weight_column] if weight_column else [], COMPONENT, "weight_column")
    chosen_metric = importance.choose(loaded.task, metric)
    choices = chosen.parse(local, rows)
    asked = Asked(
        tuple(dict.fromkeys(keys)), weight_column, chosen_metric, sample_rows, repeats, dependence_features, seed
    )

    subject = Subject(
        folder=Path(model),
        model=loaded,
        background=lambda: _background(background, rows, loaded, asked),
        max_evaluations=max_evaluations,
        rows=rows.rows,
        seed=seed,
    )
    name, explainer = choose(subject, method)
    most, why = _most(rows, explainer, max_rows)
    _require_memory(min(rows.rows, most), sample_rows, len(set(slices)), len(loaded.features))
    sample = draw(rows, most, seed, why)
    outputs = len(loaded.classes) if loaded.task == "multiclass" else 1
    features = len(loaded.encoded)
    groups = [_group(sample, column, outputs, features) for column in dict.fromkeys(slices)]
    walk = _Walk(loaded, explainer, sample, asked, groups, choices, tolerance or explainer.tolerance)
    write_dataset(attributions, walk.schema, walk.batches())
    total = walk.sums.averages(0)
    assert total is not None
    order = np.argsort(-overall(total.absolute), kind="stable")
    measured = _measure(loaded, sample, asked, order)
    found = {
        "format": document.FORMAT,
        "task": loaded.task,
        "target": loaded.target,
        "classes": list(loaded.classes),
        "explained_class": loaded.classes[1] if loaded.task == "binary" else None,
        "model": loaded.facts,
        "dataset": {"fingerprint": rows.fingerprint, "rows": rows.rows},
        "sample": {
            "rows": len(sample),
            "why": sample.why,
            "seed": seed,
            "importance_rows": measured["rows"],
        },
        "method": {"name": name, "about": explainer.about, "explains": explainer.explains},
        "background": {"rows": explainer.background_rows, "of": "background" if background else "dataset"}
        if explainer.background_rows
        else None,
        "weight_column": weight_column,
        "additivity": {
            "holds": walk.additivity.holds,
            "tolerance": walk.additivity.tolerance,
            "largest_gap": walk.additivity.largest_gap,
            "failed_rows": walk.additivity.failed_rows,
        },
        "outputs": [
            {"class": label, "base_value": float(walk.base[place]), "mean_output": float(total.outputs[place])}
            for place, label in enumerate(walk.labels)
        ],
        "features": _features(loaded, total.absolute, total.signed, order),
        "importance": measured["importance"],
        "importance_note": measured["note"],
        "dependence": measured["dependence"],
        "slices": {group.column: _slices(group, loaded) for group in groups},
        "local": _local(loaded, explainer, rows, asked, choices, walk),
    }
    mean = {entry["name"]: entry["mean_absolute"] for entry in found["features"]}
    classes = [label_text(label) for label in loaded.classes] if loaded.task == "multiclass" else []
    by_class = [(label, {entry["name"]: entry["by_class"][label] for entry in found["features"]}) for label in classes]
    render.page(found, walk.points()).write(report)
    document.write(vertex.attributions(mean, by_class), vertex_attributions)
    document.write(found, explanation)
    metrics = {
        "rows": len(sample),
        "dataset_rows": rows.rows,
        "additivity_failed_rows": walk.additivity.failed_rows,
        "additivity_largest_gap": walk.additivity.largest_gap,
        **{f"mean_absolute_{feature}": value for feature, value in list(mean.items())[:LOGGED]},
    }
    return Explained({key: float(value) for key, value in metrics.items()}, walk.additivity.holds, name, len(sample))


class _Walk:
    """One pass over the rows, which explains them and keeps sums, extremes, and the rows of one plot."""

    def __init__(
        self,
        model: TabularModel,
        explainer: Explainer,
        sample: Sample,
        asked: Asked,
        groups: Sequence[Grouping],
        choices: Sequence[chosen.Choice],
        tolerance: float,
    ) -> None:
        self._model, self._explainer, self._sample, self._asked, self._groups = model, explainer, sample, asked, groups
        self.labels: list[Any] = list(model.classes) if model.task == "multiclass" else [None]
        self.sums = Sums(1, len(self.labels), len(model.encoded))
        self.additivity = Additivity(tolerance)
        self.base = np.zeros(len(self.labels))
        self.extremes = {choice.text: chosen.Extremes(choice) for choice in choices if choice.end in chosen.BY_SCORE}
        self._drawn = sample.thinned(POINTS, asked.seed)
        self._points: list[tuple[np.ndarray, np.ndarray]] = []
        # Types as they are in the files, which the names of the manifest do not always say.
        first = next(sample.batches(asked.keys, 1))[1].schema if asked.keys else pa.schema([])
        self.schema = pa.schema(
            [
                pa.field("row", pa.int64()),
                *(pa.field(name, _plain(first.field(name).type)) for name in asked.keys),
                *([pa.field("class", pa.array(model.classes).type)] if model.task == "multiclass" else []),
                *(pa.field(name, pa.float64()) for name in ("prediction", "output", "base_value")),
                *(pa.field(attribution_of(name), pa.float64()) for name in model.encoded_names),
            ]
        )

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the attributions."""
        model, asked = self._model, self._asked
        columns = [*model.features, *asked.keys, *([asked.weight_column] if asked.weight_column else [])]
        size = max(1, min(BATCH, VALUES // (len(self.labels) * len(model.encoded))))
        start = 0
        for places, batch in self._sample.batches(columns, size):
            matrix = model.matrix(frame_of(batch.select(list(model.features))))
            found = self._explainer.attribute(matrix)
            predicted = of_classes(model.predict_matrix(matrix), model.task)
            self._require_finite(found, predicted)
            weights = _weights(batch, asked.weight_column)
            self.base = found.base
            self.additivity.check(found)
            self.sums.add(found, weights, np.zeros(len(places), dtype=np.int64))
            for group in self._groups:
                group.sums.add(found, weights, group.codes[start : start + len(places)])
            for extremes in self.extremes.values():
                extremes.see(places, predicted.max(axis=1))
            low, high = np.searchsorted(self._drawn, (start, start + len(places)))
            drawn = self._drawn[low:high] - start
            self._points.append((matrix[drawn], found.values[drawn]))
            start += len(places)
            yield self._written(places, batch, found, predicted)
        if self.sums.averages(0) is None:
            name = asked.weight_column
            raise UserError(COMPONENT, "weight_column", f"{name!r} is 0 in every row", "Choose another column")

    def _require_finite(self, found: Attributed, predicted: np.ndarray) -> None:
        for what, argument, values, remedy in (
            ("predicts", "model", predicted, "Train it again"),
            ("gives", "model", found.outputs, "Train it again"),
            ("attributes", "method", found.values, "Choose another method, such as permutation"),
        ):
            if wrong := int((~np.isfinite(values).reshape(len(values), -1).all(axis=1)).sum()):
                raise UserError(
                    COMPONENT, argument, f"it {what} NaN or infinity for {wrong:,} of {len(values):,} rows", remedy
                )

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the plot: as the model read them, (rows, features), and their attributions."""
        matrices, values = zip(*self._points, strict=True)
        return np.concatenate(matrices), np.concatenate(values)

    def _written(
        self, places: np.ndarray, batch: pa.RecordBatch, found: Attributed, predicted: np.ndarray
    ) -> pa.RecordBatch:
        rows, outputs, features = found.values.shape
        repeated = pa.array(np.repeat(np.arange(rows), outputs))
        columns = [pa.array(np.repeat(places, outputs))]
        for name in self._asked.keys:
            key = batch.column(name).cast(self.schema.field(name).type)
            columns.append(key if outputs == 1 else key.take(repeated))
        if self._model.task == "multiclass":
            classes = pa.array(self._model.classes)
            columns.append(classes.take(pa.array(np.tile(np.arange(outputs), rows))))
        columns += [
            pa.array(predicted.reshape(-1)),
            pa.array(found.outputs.reshape(-1)),
            pa.array(np.tile(found.base, rows)),
        ]
        values = np.asfortranarray(found.values.reshape(rows * outputs, features))
        columns += [pa.array(values[:, place]) for place in range(features)]
        return pa.record_batch(columns, schema=self.schema)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def attribution_of(feature: str) -> str:
    """Return the name of the column that holds the attributions of a feature."""
    return f"attribution_{feature}"


def _open(path: str | os.PathLike[str], model: TabularModel, argument: str) -> Dataset:
    dataset = open_dataset(path, COMPONENT, argument)
    if not dataset.rows:
        raise UserError(COMPONENT, argument, "it has no rows", "Check the source, query and split of ingest")
    missing = [name for name in model.features if name not in dataset.schema]
    if missing:
        raise UserError(
            COMPONENT,
            argument,
            f"it lacks columns that the model reads: {', '.join(missing)}",
            f"The columns are {', '.join(dataset.schema)}",
        )
    return dataset


def _check_keys(keys: Sequence[str], dataset: Dataset, model: TabularModel) -> None:
    require_columns(dataset, list(keys), COMPONENT, "keys")
    ours = {"row", "class", "prediction", "output", "base_value", *map(attribution_of, model.encoded_names)}
    for name in keys:
        if name in ours:
            raise UserError(
                COMPONENT,
                "keys",
                f"{name!r} is the name of a column that explain writes",
                "Give the column another name in ingest's query",
            )


def _background(
    path: str | os.PathLike[str] | None, dataset: Dataset, model: TabularModel, asked: Asked
) -> tuple[np.ndarray, np.ndarray]:
    rows = dataset if path is None else _open(path, model, "background")
    weight_column = asked.weight_column if asked.weight_column in rows.schema else ""
    sample = draw(rows, BACKGROUND, asked.seed, "")
    return _read(
        model, sample.batches([*model.features, *([weight_column] if weight_column else [])], BATCH), weight_column
    )


def _read(
    model: TabularModel, found: Iterator[tuple[np.ndarray, pa.RecordBatch]], weight_column: str
) -> tuple[np.ndarray, np.ndarray]:
    matrices, weights = [], []
    for _, batch in found:
        matrices.append(model.matrix(frame_of(batch.select(list(model.features)))))
        weights.append(_weights(batch, weight_column))
    return np.concatenate(matrices), np.concatenate(weights)


def _weights(batch: pa.RecordBatch, weight_column: str) -> np.ndarray:
    return weights_of(batch.column(weight_column), weight_column) if weight_column else np.ones(batch.num_rows)


def _require_memory(rows: int, sample_rows: int, slices: int, features: int) -> None:
    """Refuse more rows than there is memory for what is kept of each, before they are read."""
    remedy = "Give the step more, or a smaller number"
    of_row = BYTES_OF_ROW + BYTES_OF_SLICE * slices + BYTES_OF_CUT * bool(slices)
    memory.require(rows * of_row, COMPONENT, "max_rows", f"{rows:,} rows and their slices", remedy)
    measured = min(rows, sample_rows)
    of_row = 2 * 8 * features  # as they are read, and with a column permuted
    what = f"{measured:,} rows of {features:,} columns"
    memory.require(measured * of_row, COMPONENT, "sample_rows", what, remedy)


def _most(dataset: Dataset, explainer: Explainer, max_rows: int) -> tuple[int, str]:
    """Return how many rows to explain at most, and why not all."""
    limits = [(max_rows or dataset.rows, f"max_rows is {max_rows:,}")]
    if explainer.most_rows is not None:
        limits.append((explainer.most_rows, explainer.cost))
    return min(limits, key=lambda limit: limit[0])


def _group(sample: Sample, column: str, outputs: int, features: int) -> Grouping:
    sliced = cut(sample.column(column), column, COMPONENT, "slices")
    names = [found.name for found in sliced.slices]
    return Grouping(column, names, sliced.note, codes_of(sliced, len(sample)), Sums(len(names), outputs, features))


def _measure(model: TabularModel, sample: Sample, asked: Asked, order: np.ndarray) -> dict[str, Any]:
    """Return permutation importance and partial dependence, on some rows of the sample."""
    places = sample.places[sample.thinned(asked.sample_rows, asked.seed + 1)]
    extra = [asked.weight_column] if asked.weight_column else []
    matrix, weights = _read(
        model, batches(sample.dataset, places, [*model.features, *extra], BATCH), asked.weight_column
    )
    found: dict[str, Any] = {"rows": len(places), "importance": None, "note": "", "dependence": {}}
    if not weights.any():
        found["note"] = "all rows that it would be measured on weigh 0"
        return found

    def predict(rows: np.ndarray) -> np.ndarray:
        return of_classes(model.predict_matrix(rows), model.task)

    for feature in order[: asked.dependence_features]:
        column = model.encoded[feature]
        depended = dependence.depend(predict, matrix, weights, int(feature), column)
        found["dependence"][column["name"]] = {
            "kind": column["kind"],
            "note": depended.note,
            "values": depended.values,
            "shares": depended.shares,
            "predicted": depended.predicted.tolist(),
        }
    labels, found["note"] = _labels(model, sample.dataset, places, asked)
    if labels is not None:
        measured = importance.permute(
            model.predict_matrix, matrix, labels, weights, model.task, asked.metric, asked.repeats, asked.seed
        )
        means, spreads = measured.drops.mean(axis=1), measured.drops.std(axis=1)
        found["importance"] = {
            "metric": measured.metric,
            "better": "higher" if measured.higher else "lower",
            "baseline": measured.baseline,
            "rows": len(places),
            "repeats": asked.repeats,
            "features": [
                {"name": model.encoded_names[place], "mean": float(means[place]), "deviation": float(spreads[place])}
                for place in np.argsort(-means, kind="stable")
            ],
        }
    return found


def _labels(model: TabularModel, dataset: Dataset, places: np.ndarray, asked: Asked) -> tuple[np.ndarray | None, str]:
    """Return the labels of the rows, or None and why there is no importance without them."""
    if not asked.repeats:
        return None, "repeats is 0"
    if model.target not in dataset.schema:
        return None, f"the rows do not have the target {model.target!r}"
    column = pa.chunked_array([batch.column(0) for _, batch in batches(dataset, places, [model.target], BATCH)])
    try:
        labels = labels_of(column, model.target, model.classes, COMPONENT, "dataset")
    except UserError as error:
        return None, error.problem
    reason = importance.undefined(asked.metric, labels)
    return (None, reason) if reason else (labels, "")


def _features(model: TabularModel, absolute: np.ndarray, signed: np.ndarray, order: np.ndarray) -> list[dict[str, Any]]:
    means = overall(absolute)
    total = means.sum()
    entries = []
    for place in order:
        entry: dict[str, Any] = {
            "name": model.encoded_names[place],
            "kind": model.encoded[place]["kind"],
            "mean_absolute": float(means[place]),
            "mean": float(signed.mean(axis=0)[place]),
            "share": float(means[place] / total) if total > 0 else 0.0,
        }
        if model.task == "multiclass":
            entry["by_class"] = {
                label_text(label): float(absolute[output, place]) for output, label in enumerate(model.classes)
            }
        entries.append(entry)
    return entries


def _slices(group: Grouping, model: TabularModel) -> dict[str, Any]:
    entries = []
    for place, name in enumerate(group.names):
        averages = group.sums.averages(place)
        entries.append(
            {
                "value": name,
                "rows": int((group.codes == place).sum()),
                "mean_output": averages.outputs.tolist() if averages else None,
                "mean_absolute": dict(zip(model.encoded_names, overall(averages.absolute).tolist(), strict=True))
                if averages
                else None,
            }
        )
    return {"note": group.note, "slices": entries}


def _local(
    model: TabularModel,
    explainer: Explainer,
    dataset: Dataset,
    asked: Asked,
    choices: Sequence[chosen.Choice],
    walk: _Walk,
) -> list[dict[str, Any]]:
    """Return the explanations of single rows."""
    wanted = [(choice, _places(choice, dataset, walk)) for choice in choices]
    places = np.unique(np.concatenate([np.array([], dtype=np.int64), *(found for _, found in wanted)]))
    columns = [*model.features, *asked.keys]
    rows: dict[int, dict[str, Any]] = {}
    for here, batch in batches(dataset, places, columns, BATCH):
        matrix = model.matrix(frame_of(batch.select(list(model.features))))
        found = explainer.attribute(matrix)
        predicted = of_classes(model.predict_matrix(matrix), model.task)
        for row, (place, raw) in enumerate(zip(here, batch.to_pylist(), strict=True)):
            output = int(predicted[row].argmax())
            values = found.values[row, output]
            rows[int(place)] = {
                "row": int(place),
                "keys": {name: document.plain(raw[name]) for name in asked.keys},
                "class": walk.labels[output],
                "prediction": float(predicted[row, output]),
                "output": float(found.outputs[row, output]),
                "base_value": float(found.base[output]),
                "values": [
                    {
                        "feature": model.encoded_names[feature],
                        "value": document.plain(_value(model, feature, raw, matrix[row])),
                        "attribution": float(values[feature]),
                    }
                    for feature in np.argsort(-np.abs(values), kind="stable")
                ],
            }
    return [{"choice": choice.text, **rows[int(place)]} for choice, found in wanted for place in found]


def _value(model: TabularModel, feature: int, raw: dict[str, Any], row: np.ndarray) -> Any:
    """Return what a row holds of a feature: as it came, or as a transform graph made it."""
    column = model.encoded[feature]
    if not model.transforms:
        return raw[column["name"]]
    code = None if np.isnan(row[feature]) else row[feature].item()
    return column["categories"][int(code)] if code is not None and column["kind"] == "category" else code


def _places(choice: chosen.Choice, dataset: Dataset, walk: _Walk) -> np.ndarray:
    if choice.text in walk.extremes:
        return walk.extremes[choice.text].places()
    if choice.end == "first":
        return np.arange(min(choice.count, dataset.rows))
    return choice.places


def _in_range(argument: str, value: object, least: int) -> None:
    most = 2**31 - 1
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UserError(
            COMPONENT, argument, f"{value!r} is not in range", f"Give a whole number from {least} to {most}"
        )
