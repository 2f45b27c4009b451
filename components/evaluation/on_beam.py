"""The metrics of rows by TensorFlow Model Analysis (TFMA) on Apache Beam, for rows that no machine holds.

Workers load the model, predict the rows of a row group, and say of each which slices it is in; TFMA adds up by slice.
What it adds up are means, confusion matrices, calibration, and areas under curves, which it interpolates between 10,000
thresholds; from these follow the metrics of one machine. There are no confidence intervals.

A mean of anything is, to TFMA, the mean prediction of a model: it is told of one by the name of each mean. A median it
has not: beside it, rows are counted by their absolute error, of which the first 12 binary digits count.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
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
from penstock.components._shared.metrics.binary import ONE_CLASS, THRESHOLD, log_loss_of
from penstock.components._shared.metrics.calibration import BINS
from penstock.components._shared.metrics.metric import Undefined, ratio
from penstock.components._shared.metrics.regression import CONSTANT
from penstock.components._shared.metrics.tasks import TASKS, Measured
from penstock.components._shared.model import TabularModel, load_model
from penstock.components._shared.sealed import MANIFEST
from penstock.components._shared.slices import Rule, text_of
from penstock.components.evaluation.curves import HISTOGRAM, POINTS, by_class_of, confusion_of
from penstock.components.evaluation.gate import Place

COMPONENT = "evaluate"
PACKAGE = "tensorflow_model_analysis"
BATCH = 16_384  # rows predicted at a time
GRAIN = 40  # bits of a float64 that are left out where rows are counted by their error, of 52 of its fraction

MODEL, CONFIDENCE = "model", "confidence"  # what TFMA takes for models, beside the means
AUC, PR_AUC, MATRIX, CALIBRATION, SCORES, CURVE = "auc", "pr_auc", "matrix", "calibration", "scores", "curve"


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
        return pc.equal(text_of(values), self.by).to_numpy(zero_copy_only=False).astype(np.int64)

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


@dataclass
class Sums:
    """What TFMA found of the rows of a slice.

    Attributes:
        means: By name, see MEANS; and the median of absolute errors as "median".
        areas: Under curves, by name, of a multiclass model by class.
        matrix: Rows by actual and predicted class.
        calibration: By bin of confidence: sum of confidences, rows that came true, rows.
        scores: By bin of probability: rows of the negative and of the positive class.
        curve: By threshold, the highest first: threshold, true and false positives.
    """

    rows: float = 0.0
    means: dict[str, float] = field(default_factory=dict)
    areas: dict[str, float] = field(default_factory=dict)
    matrix: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    calibration: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    scores: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    curve: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))


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
            rows = beam.items(pipeline, row_groups) | "predict" >> apache_beam.FlatMap(_extracts, asked)
            found = rows | "evaluate" >> model_eval_lib.ExtractAndEvaluate(
                extractors=[slice_key_extractor.SliceKeyExtractor(eval_config=config, materialize=False)],
                evaluators=[evaluators.MetricsPlotsAndValidationsEvaluator(eval_config=config)],
            )
            # Without plots, such as of a regression, there is no such key.
            lines = [
                found[key] | f"tell {key}" >> apache_beam.Map(_line) for key in ("metrics", "plots") if key in found
            ]
            if model.task == "regression":
                lines.append(
                    rows
                    | "errors" >> apache_beam.FlatMap(_errors)
                    | "count" >> apache_beam.combiners.Count.PerElement()
                    | "by slice" >> apache_beam.MapTuple(_by_slice)
                    | "of a slice" >> apache_beam.GroupByKey()
                    | "tell medians" >> apache_beam.MapTuple(_median_line)
                )
            beam.tell_all(lines | "all" >> apache_beam.Flatten(), told)

        beam.run(engine, build)
        found = _read(beam.told(engine, told), asked)
    lost = dataset.rows - round(found[None].rows if None in found else 0)
    if lost:
        problem = f"it predicts NaN or infinity for {lost:,} of {dataset.rows:,} rows"
        raise UserError(COMPONENT, "model", problem, "Train it again")
    measured = {place: _measured(model.task, sums) for place, sums in found.items()}
    return measured, _curves(model.task, found[None], classes)


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


def _extracts(row_group: tuple[str, int], asked: Asked) -> Iterator[dict[str, Any]]:
    """Yield rows as TFMA takes them: what each model says, what it should say, and which slices they are in."""
    from tensorflow_model_analysis import constants

    model = _model(asked.model)
    columns = [*model.features, asked.target, *(each.column for each in asked.memberships.values())]
    path, group = row_group
    with places.opened(path) as file:
        table = pq.ParquetFile(file).read_row_group(group, columns=list(dict.fromkeys(columns)))
    for batch in table.to_batches(BATCH):
        labels, predicted, codes = _predicted(model, batch, asked)
        says = {MODEL: predicted[:, 1] if asked.task == "binary" else predicted}
        says |= {name: mean(labels, predicted, asked.centre) for name, mean in MEANS[asked.task].items()}
        should = dict.fromkeys(says, labels)
        if asked.classes:
            says[CONFIDENCE], should[CONFIDENCE] = _confidence(labels, predicted)
        finite = np.isfinite(predicted.reshape(len(labels), -1)).all(axis=1)
        for row in np.flatnonzero(finite):
            yield {
                constants.INPUT_KEY: b"",  # whose bytes TFMA counts, and complains of each row without
                constants.PREDICTIONS_KEY: {name: values[row : row + 1].reshape(-1) for name, values in says.items()},
                constants.LABELS_KEY: {name: values[row : row + 1] for name, values in should.items()},
                constants.FEATURES_KEY: {name: values[row : row + 1] for name, values in codes.items()},
            }


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
    """Return how sure a classifier is, and whether it came true; of two classes it is sure of the positive one."""
    if predicted.shape[1] == 2:
        return predicted[:, 1], labels
    chosen = predicted.argmax(axis=1)
    return predicted[np.arange(len(labels)), chosen], (chosen == labels).astype(np.int64)


def _config(task: str, classes: int, slices: Sequence[str]) -> Any:
    """Return what TFMA is to compute."""
    from google.protobuf import json_format
    from tensorflow_model_analysis.proto import config_pb2

    def metric(class_name: str, **config: Any) -> dict[str, str]:
        return {"class_name": class_name, "config": json.dumps(config)}

    calibration = metric("CalibrationPlot", name=CALIBRATION, num_buckets=BINS)
    # TFMA predicts positive above a threshold, Penstock at it, too.
    just_below = float(np.nextafter(THRESHOLD, 0))
    of_model = {
        "binary": [
            metric("AUC", name=AUC),
            metric("AUCPrecisionRecall", name=PR_AUC),
            metric("ConfusionMatrixAtThresholds", name=MATRIX, thresholds=[just_below]),
            metric("CalibrationPlot", name=SCORES, num_buckets=HISTOGRAM),
            metric("ConfusionMatrixPlot", name=CURVE, num_thresholds=POINTS),
        ],
        "multiclass": [metric("MultiClassConfusionMatrixPlot", name=MATRIX)],
        "regression": [],
    }[task]
    specs = [
        {"metrics": [metric("ExampleCount", name="rows"), *of_model], "model_names": [MODEL]},
        {"metrics": [metric("MeanPrediction", name="mean")], "model_names": list(MEANS[task])},
    ]
    if task != "regression":
        specs.append({"metrics": [calibration], "model_names": [CONFIDENCE]})
    if task == "multiclass":
        binarized = {"class_ids": {"values": list(range(classes))}}
        specs.append({"metrics": [metric("AUC", name=AUC)], "model_names": [MODEL], "binarize": binarized})
    models = [MODEL, *MEANS[task], *([CONFIDENCE] if task != "regression" else [])]
    described = {
        "model_specs": [{"name": name} for name in models],
        "metrics_specs": specs,
        "slicing_specs": [{}, *({"feature_keys": [name]} for name in slices)],
    }
    return json_format.ParseDict(described, config_pb2.EvalConfig())


def _errors(row: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield for all rows, and for each slice that a row is in, the key that _line tells and the grain of its error."""
    from tensorflow_model_analysis import constants

    [absolute] = row[constants.PREDICTIONS_KEY]["absolute"]
    grain = int(np.float64(absolute).view(np.int64)) >> GRAIN
    yield "[]", grain
    for name, code in row[constants.FEATURES_KEY].items():
        yield json.dumps([[name, int(code[0])]]), grain


def _by_slice(error: tuple[str, int], rows: int) -> tuple[str, tuple[int, int]]:
    key, grain = error
    return key, (grain, rows)


def _median_line(key: str, counted: Iterable[tuple[int, int]]) -> str:
    return json.dumps([json.loads(key), [["median", MODEL, None, median_of(counted)]]])


def median_of(counted: Iterable[tuple[int, int]]) -> float:
    """Return the median of numbers of 0 or more, within 1 / 2**13 of its value, from how many there are of a grain.

    A grain is the bits of a float64 but for the last GRAIN: of numbers that are not negative, they are in order.
    """
    grains, rows = np.array(sorted(counted)).T
    seen = np.cumsum(rows)
    places = [np.searchsorted(seen, seen[-1] / 2, side=side) for side in ("left", "right")]
    middle = grains[np.minimum(places, len(grains) - 1)]
    values = ((middle << GRAIN) + (1 << GRAIN - 1)).view(np.float64)
    return float(np.where(middle == 0, 0.0, values).mean())


def _line(found: tuple[Any, Mapping[Any, Any]]) -> str:
    """Return what was found of a slice as JSON: its key, and by metric its name, model, class and value."""
    slice_key, metrics = found
    entries = []
    for key, value in metrics.items():
        of_class = key.sub_key.class_id if key.sub_key is not None else None
        entries.append([key.name, key.model_name, of_class, _plain(value)])
    return json.dumps([[[name, int(code)] for name, code in slice_key], entries])


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
        slice_key, entries = json.loads(line)
        place: Place = None
        if slice_key:
            name, code = slice_key[0]
            place = asked.memberships[name].place(code)
            if place is None:
                continue
        sums = found.setdefault(place, Sums())
        for name, model, of_class, value in entries:
            _take(sums, name, model, of_class, value, len(asked.classes))
    return found


def _take(sums: Sums, name: str, model: str, of_class: int | None, value: Any, classes: int) -> None:
    """Put down a value that TFMA found."""
    if name == "rows":
        sums.rows = value
    elif name == "mean":
        sums.means[model] = value
    elif name == "median":
        sums.means[name] = value
    elif name in (AUC, PR_AUC):
        sums.areas[name if of_class is None else f"{name}/{of_class}"] = value
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
    elif classes == 2:
        (matrix,) = value["confusion_matrix_at_thresholds"]["matrices"]
        cells = [matrix.get(f"{key}s", 0.0) for key in _CELLS]
        sums.matrix = np.array(cells).reshape(2, 2)
    else:
        (matrix,) = value["matrices"]
        sums.matrix = np.zeros((classes, classes))
        for entry in matrix["entries"]:
            actual, predicted = (int(entry.get(f"{key}_class_id", 0)) for key in ("actual", "predicted"))
            sums.matrix[actual, predicted] += entry["num_weighted_examples"]


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


def _measured(task: str, sums: Sums) -> Measured:
    """Return the metrics that follow from sums."""
    values, undefined = {}, dict[str, str]()
    for name in TASKS[task].metrics:
        try:
            values[name] = float(METRICS[task][name](sums))
        except Undefined as reason:
            undefined[name] = str(reason)
    return Measured(round(sums.rows), values, undefined)


def _auc(sums: Sums) -> float:
    if not sums.matrix.sum(axis=1).all():
        raise Undefined(ONE_CLASS)
    return sums.areas[AUC]


def _pr_auc(sums: Sums) -> float:
    if not sums.matrix[1].sum():
        raise Undefined("no row is positive")
    return sums.areas[PR_AUC]


def _ece(sums: Sums) -> float:
    confidence, true, _ = sums.calibration.T
    return float(np.abs(true - confidence).sum() / sums.rows)


def _f1(sums: Sums) -> float:
    actual, predicted = sums.matrix[1].sum(), sums.matrix[:, 1].sum()
    return ratio(2 * sums.matrix[1, 1], predicted + actual, "no row is positive and none is predicted so")


def _balanced_accuracy(sums: Sums) -> float:
    actual = sums.matrix.sum(axis=1)
    return float(np.mean(np.diag(sums.matrix)[actual > 0] / actual[actual > 0]))


def _macro_f1(sums: Sums) -> float:
    seen = sums.matrix.sum(axis=1) + sums.matrix.sum(axis=0)
    return float(np.mean(2 * np.diag(sums.matrix)[seen > 0] / seen[seen > 0]))


def _auc_ovr(sums: Sums) -> float:
    if absent := int((sums.matrix.sum(axis=1) == 0).sum()):
        raise Undefined(f"{absent} of {len(sums.matrix)} classes have no row")
    return float(np.mean([sums.areas[f"{AUC}/{number}"] for number in range(len(sums.matrix))]))


def _r2(sums: Sums) -> float:
    scale = sums.means["centred_squared"]
    variance = scale - sums.means["centred"] ** 2
    if variance <= CONSTANT * scale:
        raise Undefined("the target is the same in all rows")
    return 1 - sums.means["squared"] / variance


def _mape(sums: Sums) -> float:
    if sums.means["zeros"]:
        raise Undefined("an actual value is 0")
    return sums.means["relative"]


def _accuracy(sums: Sums) -> float:
    return float(np.trace(sums.matrix) / sums.rows)


METRICS: Mapping[str, Mapping[str, Callable[[Sums], float]]] = {
    "binary": {
        "rows": lambda sums: sums.rows,
        "positive_rate": lambda sums: sums.matrix[1].sum() / sums.rows,
        "auc": _auc,
        "pr_auc": _pr_auc,
        "log_loss": lambda sums: sums.means["loss"],
        "brier": lambda sums: sums.means["squared"],
        "ece": _ece,
        "accuracy": _accuracy,
        "precision": lambda sums: ratio(sums.matrix[1, 1], sums.matrix[:, 1].sum(), "no row is predicted positive"),
        "recall": lambda sums: ratio(sums.matrix[1, 1], sums.matrix[1].sum(), "no row is positive"),
        "f1": _f1,
    },
    "multiclass": {
        "rows": lambda sums: sums.rows,
        "accuracy": _accuracy,
        "balanced_accuracy": _balanced_accuracy,
        "macro_f1": _macro_f1,
        "log_loss": lambda sums: sums.means["loss"],
        "auc_ovr": _auc_ovr,
        "ece": _ece,
    },
    "regression": {
        "rows": lambda sums: sums.rows,
        "rmse": lambda sums: np.sqrt(sums.means["squared"]),
        "mae": lambda sums: sums.means["absolute"],
        "median_ae": lambda sums: sums.means["median"],
        "r2": _r2,
        "mape": _mape,
        "bias": lambda sums: sums.means["error"],
    },
}


def _curves(task: str, sums: Sums, classes: Sequence[Any]) -> dict[str, Any]:
    """Return the curves that follow from sums; of a regression there are none."""
    if task == "regression":
        return {}
    confidence, true, rows = sums.calibration[sums.calibration[:, 2] > 0].T
    found: dict[str, Any] = {
        "calibration": {
            "confidence": (confidence / rows).tolist(),
            "frequency": (true / rows).tolist(),
            "rows": rows.astype(int).tolist(),
        },
        "confusion": confusion_of(sums.matrix.astype(np.int64), classes),
    }
    if task == "multiclass":
        return found | {"by_class": by_class_of(sums.matrix.astype(np.int64), classes)}
    negative, positive = sums.scores.T.astype(int)
    edges = np.linspace(0, 1, HISTOGRAM + 1).tolist()
    scores = {"edges": edges, "negative": negative.tolist(), "positive": positive.tolist()}
    return {**_roc_and_pr(sums), **found, "scores": scores}


def _roc_and_pr(sums: Sums) -> dict[str, Any]:
    thresholds, tp, fp = sums.curve.T
    if not tp[-1] or not fp[-1]:
        return {"roc": None, "pr": None}
    shown = tp + fp > 0
    return {
        "roc": {"fpr": (fp / fp[-1]).tolist(), "tpr": (tp / tp[-1]).tolist(), "thresholds": thresholds.tolist()},
        "pr": {
            "recall": (tp / tp[-1])[shown].tolist(),
            "precision": (tp / np.maximum(tp + fp, 1))[shown].tolist(),
            "thresholds": thresholds[shown].tolist(),
        },
    }
