"""The metrics of rows by TensorFlow Model Analysis (TFMA) on Apache Beam, for rows that no machine holds.

Workers load the model, predict the rows of a row group, and sum them up by slice; see tally.py. Given one row at a
time, TFMA takes half a millisecond for each of its slices. What it is given is each slice as a whole, weighted by rows,
and what it finds are means, confusion matrices, calibration, and areas under curves, which it interpolates between
10,000 thresholds; from these follow the metrics of one machine. There are no confidence intervals.

A mean of anything is, to TFMA, the mean prediction of a model: it is told of one by the name of each mean. A median it
has not, nor a confusion matrix of many classes that knows weights: both are counted beside it.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.components._shared import beam, places
from penstock.components._shared.dataset import Dataset, batches_of, frame_of
from penstock.components._shared.errors import UserError, on_behalf_of
from penstock.components._shared.labels import labels_of
from penstock.components._shared.metrics.binary import THRESHOLD, log_loss_of
from penstock.components._shared.metrics.calibration import BINS
from penstock.components._shared.metrics.tasks import Measured
from penstock.components._shared.model import TabularModel, load_model
from penstock.components._shared.sealed import MANIFEST
from penstock.components._shared.slices import Rule, text_of
from penstock.components.evaluation import tally
from penstock.components.evaluation.curves import HISTOGRAM, POINTS
from penstock.components.evaluation.gate import Place
from penstock.components.evaluation.sums import AUC, PR_AUC, Sums, curves, measured

COMPONENT = "evaluate"
PACKAGE = "tensorflow_model_analysis"
BATCH = 16_384  # rows predicted at a time

ALL = "all"  # the slice of all rows
# What TFMA takes for models, beside the means: they have scores.
MODEL, CONFIDENCE, CLASS = "model", "confidence", "class_"
ROWS, MEAN, CALIBRATION, SCORES, CURVE = "rows", "mean", "calibration", "scores", "curve"
MEDIAN, MATRIX, ERRORS = "median", "matrix", "errors"

Slice = tuple[str, int]  # name of the membership, and code


@dataclass(frozen=True)
class Membership:
    """What tells whether a row is in a slice.

    Attributes:
        column: Column to look at.
        by: Rule that gives each value its slice, or the text of the only value that counts.
    """

    column: str
    by: Rule | str

    def codes(self, values: pa.Array) -> np.ndarray:
        """Return a number by value, the same for those of a slice."""
        if isinstance(self.by, Rule):
            return self.by.codes(values)
        return np.asarray(pc.equal(text_of(values), self.by), dtype=np.int64)

    def place(self, code: int) -> Place:
        """Return the slice of a number; None where it is none."""
        if isinstance(self.by, Rule):
            return self.column, self.by.names[code]
        return (self.column, self.by) if code else None


@dataclass(frozen=True)
class Asked:
    """What a worker has to know.

    Attributes:
        model: Folder of the model, or its URI.
        target: Column of the labels.
        classes: In the order wanted of predictions; empty for a regression.
        centre: Mean of the target of a regression.
        memberships: By the name that TFMA knows them under.
    """

    model: str
    task: str
    target: str
    classes: tuple[Any, ...]
    centre: float
    memberships: Mapping[str, Membership]


Mean = Callable[[np.ndarray, np.ndarray, float], np.ndarray]

# Values by row whose means are taken: of labels, predictions and the mean of all labels.
MEANS: Mapping[str, Mapping[str, Mean]] = {
    "binary": {
        "loss": lambda labels, predicted, centre: _loss(labels, predicted),
        "squared": lambda labels, predicted, centre: (predicted[:, 1] - labels) ** 2,
    },
    "multiclass": {"loss": lambda labels, predicted, centre: _loss(labels, predicted)},
    "regression": {
        "error": lambda labels, predicted, centre: predicted - labels,
        "absolute": lambda labels, predicted, centre: np.abs(predicted - labels),
        "squared": lambda labels, predicted, centre: (predicted - labels) ** 2,
        "zeros": lambda labels, predicted, centre: (labels == 0).astype(np.float64),
        "relative": lambda labels, predicted, centre: (
            np.abs(predicted - labels) / np.where(labels == 0, 1.0, np.abs(labels))
        ),
        # Sums of squares lose digits where the mean is large.
        "centred": lambda labels, predicted, centre: labels - centre,
        "centred_squared": lambda labels, predicted, centre: (labels - centre) ** 2,
    },
}


def _loss(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return log_loss_of(predicted[np.arange(len(labels)), labels])


def measure_on_beam(
    engine: beam.Engine,
    model: TabularModel,
    folder: str | os.PathLike[str],
    dataset: Dataset,
    uri: str,
    classes: tuple[Any, ...],
    centre: float,
    memberships: Sequence[Membership],
) -> tuple[dict[Place, Measured], dict[str, Any]]:
    """Return the metrics of all rows, under None, and of slices, and the curves of all rows.

    Args:
        engine: Runner and options.
        model: The model, loaded.
        folder: Its folder.
        dataset: Rows with the target, all of which is known to be labels.
        uri: Where workers on other machines find the dataset's folder.
        classes: In the order wanted; empty for a regression.
        centre: Mean of the target of a regression.
        memberships: Of the slices.

    Raises:
        UserError: The model cannot read the rows, predicts what is not finite, or Beam cannot run so.
    """
    place = beam.place(engine, "eval_set", str(dataset.folder), uri)
    names = {f"slice_{number}": membership for number, membership in enumerate(memberships)}
    row_groups = [
        (f"{place}/{file.relative_to(dataset.folder).as_posix()}", group)
        for file in dataset.files
        for group in range(pq.read_metadata(file).num_row_groups)
    ]
    _try(model, dataset)
    with (
        tempfile.TemporaryDirectory(prefix="penstock-evaluate-") as scratch,
        _staged(engine, Path(folder), beam.scratch(engine, scratch)) as staged,
    ):
        told = beam.scratch(engine, scratch)
        asked = Asked(staged, model.task, model.target, classes, centre, names)

        def build(pipeline: Any) -> None:
            import apache_beam
            from tensorflow_model_analysis.api import model_eval_lib
            from tensorflow_model_analysis.evaluators import metrics_plots_and_validations_evaluator as evaluators
            from tensorflow_model_analysis.extractors import slice_key_extractor

            config = _config(model.task, len(classes), list(names))
            slices = (
                beam.items(pipeline, row_groups)
                | "predict" >> apache_beam.FlatMap(_tallies, asked)
                | "of a slice" >> apache_beam.CombinePerKey(tally.together)
            )
            found = (
                slices
                | "weigh" >> apache_beam.Map(_extract, model.task)
                | "evaluate"
                >> model_eval_lib.ExtractAndEvaluate(
                    extractors=[slice_key_extractor.SliceKeyExtractor(eval_config=config, materialize=False)],
                    evaluators=[evaluators.MetricsPlotsAndValidationsEvaluator(eval_config=config)],
                )
            )
            # Without plots, such as of a regression, there is no such key.
            lines = [
                found[key] | f"tell {key}" >> apache_beam.Map(_line) for key in ("metrics", "plots") if key in found
            ]
            lines.append(slices | "tell counted" >> apache_beam.Map(_counted_line, len(classes)))
            beam.tell_all(lines | "all" >> apache_beam.Flatten(), told)

        with warnings.catch_warnings():
            # Of slopes of a curve on which no row lies, which TFMA leaves out then.
            warnings.filterwarnings("ignore", "invalid value", RuntimeWarning, "tensorflow_model_analysis")
            beam.run(engine, build)
        found = _read(beam.told(engine, told), asked)
    lost = dataset.rows - round(found[None].rows if None in found else 0)
    if lost:
        problem = f"it predicts NaN or infinity for {lost:,} of {dataset.rows:,} rows"
        raise UserError(COMPONENT, "model", problem, "Train it again")
    metrics = {place: measured(model.task, sums) for place, sums in found.items()}
    return metrics, curves(model.task, found[None], classes)


def _try(model: TabularModel, dataset: Dataset) -> None:
    """Predict a few rows here, where what is wrong with all of them is told best."""
    missing = [name for name in model.features if name not in dataset.schema]
    if missing:
        problem = f"it reads columns that the rows do not have: {', '.join(missing)}"
        raise UserError(COMPONENT, "model", problem, f"The rows have {', '.join(dataset.schema)}")
    for batch in batches_of(dataset.files, 100, model.features):
        model.predict(frame_of(batch))
        return


@contextmanager
def _staged(engine: beam.Engine, folder: Path, target: str) -> Iterator[str]:
    """Yield where workers find a model folder: a copy at `target` where they are on other machines."""
    if engine.here:
        yield str(folder)
        return
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    try:
        with on_behalf_of(COMPONENT):
            for file in [*(entry["path"] for entry in manifest["files"]), MANIFEST]:
                places.put(folder / file, f"{target}/{file}")
        yield target
    finally:
        with suppress(UserError):
            places.clear(target)


@lru_cache(maxsize=1)
def _model(place: str) -> TabularModel:
    if not places.is_remote(place):
        return load_model(place, COMPONENT, "model")
    with tempfile.TemporaryDirectory(prefix="penstock-evaluate-") as folder:
        places.fetch(place, Path(folder))
        return load_model(folder, COMPONENT, "model")


def _tallies(row_group: tuple[str, int], asked: Asked) -> Iterator[tuple[Slice, tally.Tally]]:
    """Yield what the rows of a row group come to, slice by slice; what is predicted of them has to be finite."""
    model = _model(asked.model)
    columns = [*model.features, asked.target, *(each.column for each in asked.memberships.values())]
    path, group = row_group
    with places.opened(path) as file:
        table = pq.ParquetFile(file).read_row_group(group, columns=list(dict.fromkeys(columns)))
    found: dict[Slice, list[tally.Tally]] = {}
    for batch in table.to_batches(BATCH):
        labels, predicted, codes = _predicted(model, batch, asked)
        finite = np.isfinite(predicted.reshape(len(labels), -1)).all(axis=1)
        entries = _entries(asked, labels[finite], predicted[finite])
        for name, of_row in {ALL: np.zeros(len(labels), np.int64), **codes}.items():
            for code, of_slice in tally.by_code(of_row[finite], entries):
                found.setdefault((name, code), []).append(of_slice)
    for key, tallies in found.items():
        yield key, tally.together(tallies)


def _entries(asked: Asked, labels: np.ndarray, predicted: np.ndarray) -> dict[str, tally.Entries]:
    """Return what rows bring into each table of their slices."""
    means = [mean(labels, predicted, asked.centre) for mean in MEANS[asked.task].values()]
    found = {MEAN: tally.Entries(np.zeros(len(labels), np.int64), means)}
    if asked.task == "regression":
        return {**found, ERRORS: tally.errors(np.abs(predicted - labels))}
    if asked.task == "binary":
        return {**found, MODEL: tally.scores(predicted[:, 1], labels)}
    classes, chosen = predicted.shape[1], predicted.argmax(axis=1)
    found[CONFIDENCE] = tally.scores(*_confidence(labels, predicted))
    found[MATRIX] = tally.Entries(labels * classes + chosen)
    return found | {f"{CLASS}{k}": tally.scores(predicted[:, k], labels == k) for k in range(classes)}


def _predicted(
    model: TabularModel, batch: pa.RecordBatch, asked: Asked
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    column = pa.chunked_array([batch.column(asked.target)])
    labels = labels_of(column, asked.target, asked.classes, COMPONENT, "eval_set")
    predicted = model.predict(frame_of(batch.select(list(model.features))))
    if asked.classes:
        predicted = predicted[:, [model.classes.index(label) for label in asked.classes]]
    codes = {name: each.codes(batch.column(each.column)) for name, each in asked.memberships.items()}
    return labels, predicted, codes


def _confidence(labels: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how sure a classifier of many classes is, and whether it came true."""
    chosen = predicted.argmax(axis=1)
    return predicted[np.arange(len(labels)), chosen], (chosen == labels).astype(np.int64)


def _extract(of_slice: tuple[Slice, tally.Tally], task: str) -> dict[str, Any]:
    """Return a slice as TFMA takes a row: what each model says, what it should say, and how much that weighs."""
    from tensorflow_model_analysis import constants

    (name, code), tables = of_slice
    _, rows, *sums = tables[MEAN][0]
    of_models = {mean: np.array([[0.0], [total / rows], [rows]]) for mean, total in zip(MEANS[task], sums, strict=True)}
    of_models |= {model: np.array(tally.pairs(table)) for model, table in tables.items() if _has_scores(model)}
    return {
        constants.INPUT_KEY: b"",  # whose bytes TFMA counts, and complains of each slice without
        constants.LABELS_KEY: {model: should for model, (should, _, _) in of_models.items()},
        constants.PREDICTIONS_KEY: {model: says for model, (_, says, _) in of_models.items()},
        constants.EXAMPLE_WEIGHTS_KEY: {model: weighs for model, (_, _, weighs) in of_models.items()},
        constants.FEATURES_KEY: {name: np.array([code])},
    }


def _has_scores(name: str) -> bool:
    return name in (MODEL, CONFIDENCE) or name.startswith(CLASS)


def _config(task: str, classes: int, slices: Sequence[str]) -> Any:
    """Return what TFMA is to compute."""
    from google.protobuf import json_format
    from tensorflow_model_analysis.proto import config_pb2

    def metric(class_name: str, **config: Any) -> dict[str, str]:
        return {"class_name": class_name, "config": json.dumps(config)}

    calibration = metric("CalibrationPlot", name=CALIBRATION, num_buckets=BINS)
    # TFMA predicts positive above a threshold, Penstock at it, too.
    just_below = float(np.nextafter(THRESHOLD, 0))
    means = list(MEANS[task])
    wanted = [(means[:1], [metric("ExampleCount", name=ROWS)]), (means, [metric("MeanPrediction", name=MEAN)])]
    if task == "binary":
        of_scores = [
            metric("AUC", name=AUC),
            metric("AUCPrecisionRecall", name=PR_AUC),
            metric("ConfusionMatrixAtThresholds", name=MATRIX, thresholds=[just_below]),
            calibration,
            metric("CalibrationPlot", name=SCORES, num_buckets=HISTOGRAM),
            metric("ConfusionMatrixPlot", name=CURVE, num_thresholds=POINTS),
        ]
        wanted.append(([MODEL], of_scores))
    if task == "multiclass":
        wanted.append(([CONFIDENCE], [calibration]))
        wanted.append(([f"{CLASS}{k}" for k in range(classes)], [metric("AUC", name=AUC)]))
    described = {
        "model_specs": [{"name": name} for name in dict.fromkeys(name for names, _ in wanted for name in names)],
        "metrics_specs": [
            {"metrics": metrics, "model_names": names, "example_weights": {"weighted": True}}
            for names, metrics in wanted
        ],
        "slicing_specs": [{"feature_keys": [name]} for name in (ALL, *slices)],
    }
    return json_format.ParseDict(described, config_pb2.EvalConfig())


def _line(found: tuple[Any, Mapping[Any, Any]]) -> str:
    """Return what TFMA found of a slice as JSON: its key, and by metric its name, model and value."""
    ((name, code),), metrics = found
    return json.dumps([[name, int(code)], [[key.name, key.model_name, _plain(each)] for key, each in metrics.items()]])


def _counted_line(of_slice: tuple[Slice, tally.Tally], classes: int) -> str:
    """Return what was counted of a slice, as _line does."""
    key, tables = of_slice
    found: list[Any] = []
    if ERRORS in tables:
        found.append([MEDIAN, "", tally.median(tables[ERRORS])])
    if MATRIX in tables:
        found.append([MATRIX, "", tally.matrix(tables[MATRIX], classes).tolist()])
    return json.dumps([key, found])


def _plain(value: Any) -> Any:
    from google.protobuf import json_format
    from google.protobuf.message import Message

    if hasattr(value, "to_proto"):
        value = value.to_proto()
    if isinstance(value, Message):
        return json_format.MessageToDict(value, preserving_proto_field_name=True)
    return float(np.asarray(value).reshape(-1)[0])


def _read(told: bytes, asked: Asked) -> dict[Place, Sums]:
    found: dict[Place, Sums] = {}
    for line in told.splitlines():
        (membership, code), entries = json.loads(line)
        place = None if membership == ALL else asked.memberships[membership].place(code)
        if place is None and membership != ALL:
            continue
        sums = found.setdefault(place, Sums())
        for name, model, value in entries:
            _take(sums, name, model, value)
    return found


def _take(sums: Sums, name: str, model: str, value: Any) -> None:
    """Put down a value that was found."""
    if name == ROWS:
        sums.rows = value
    elif name == MEAN:
        sums.means[model] = value
    elif name == MEDIAN:
        sums.means[name] = value
    elif name in (AUC, PR_AUC):
        sums.areas[name if model == MODEL else f"{name}/{model.removeprefix(CLASS)}"] = value
    elif name == CALIBRATION:
        sums.calibration = _bins(value, BINS)
    elif name == SCORES:
        _, positive, rows = _bins(value, HISTOGRAM).T
        sums.scores = np.column_stack((rows - positive, positive))
    elif name == CURVE:
        matrices = value["matrices"]
        sums.curve = np.array(
            [[each.get(key, 0.0) for key in ("threshold", "true_positives", "false_positives")] for each in matrices]
        )[::-1]
    elif model == MODEL:
        (matrix,) = value["confusion_matrix_at_thresholds"]["matrices"]
        sums.matrix = np.array([matrix.get(f"{key}s", 0.0) for key in _CELLS]).reshape(2, 2)
    else:
        sums.matrix = np.array(value)


_CELLS = ("true_negative", "false_positive", "false_negative", "true_positive")


def _bins(value: Mapping[str, Any], count: int) -> np.ndarray:
    """Return sums of confidences, rows that came true and rows, by bin; what lies at 1 is in the last one."""
    bins = np.zeros((count, 3))
    for bucket in value.get("buckets", ()):
        low = float(bucket.get("lower_threshold_inclusive", 0.0))
        place = min(max(round(low * count) if np.isfinite(low) else 0, 0), count - 1)
        keys = ("total_weighted_refined_prediction", "total_weighted_label", "num_weighted_examples")
        bins[place] += [float(bucket.get(key, 0.0)) for key in keys]
    return bins
