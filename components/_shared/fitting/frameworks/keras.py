"""Keras on TensorFlow: a network of dense layers that reads raw columns, its preprocessing within.

The model has two doors. Its inputs are the raw columns, one each, of shape (rows, 1): numbers and booleans as float64,
where NaN is missing; texts as strings, where a text that is no category is missing. Inside of it the layer "encoded" is
a model, too: it reads the matrix of penstock.components._shared.tabular, which is how Penstock itself asks it. The
layer "margin" in there gives what comes before the sigmoid or softmax.

With a transform graph, model.keras is the network alone: its inputs are what the graph makes. The SavedModel holds
both, and has a signature for what the graph makes beside the one that predicts.
"""

from __future__ import annotations

import os

# Read when TensorFlow is imported. oneDNN would sum in another order on another processor, and says so in the log.
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import contextlib
import ctypes
import io
import itertools
import logging
import math
import mmap
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from penstock.components._shared.errors import UserError
from penstock.components._shared.fitting.checkpoint import Checkpoint
from penstock.components._shared.fitting.frameworks import Framework, Job, Known, Learned, Parts, Rows
from penstock.components._shared.fitting.workers import Workers, workers
from penstock.components._shared.tabular import ENCODED, HASH_KEY, SAVED_MODEL, TRANSFORM, input_names

MARGIN = "margin"
MEASURED = 8192  # rows of a batch whose loss is measured
MIXED = 2  # parts that are shuffled together
KEPT = 128 << 20  # bytes of encoded rows that stay in memory, of each set
STALLED = 600.0  # seconds that workers wait for one of them


def _quiet() -> None:
    """Let TensorFlow tell of errors only, from here on.

    What it logs from C++ goes by absl's threshold, which no variable and no Python function sets.
    """
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    library = Path(tf.__file__).with_name("libtensorflow_framework.so.2")
    with contextlib.suppress(OSError, AttributeError), library.open("rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = re.search(rb"_ZN4absl\d+lts_\d+18SetStderrThresholdENS0_18LogSeverityAtLeastE", content)
            name = found[0].decode() if found else ""
        ctypes.CDLL(str(library))[name](2)


_quiet()

ACTIVATIONS = ("relu", "elu", "gelu", "selu", "silu", "tanh")
OPTIMIZERS = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD, "rmsprop": keras.optimizers.RMSprop}
LOSSES = {"binary": "log_loss", "multiclass": "log_loss", "regression": "rmse"}


@dataclass(frozen=True)
class Hyperparameter:
    """A hyperparameter: its default, and what else it may be."""

    default: Any
    wanted: str
    fits: Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


HYPERPARAMETERS = {
    "activation": Hyperparameter("relu", f"one of {', '.join(ACTIVATIONS)}", lambda value: value in ACTIVATIONS),
    "batch_size": Hyperparameter(256, "a whole number from 1 to 1000000", _whole(1, 1_000_000)),
    "dropout": Hyperparameter(0.0, "a number from 0 up to 1", lambda value: _number(value) and 0 <= value < 1),
    "embedding_size": Hyperparameter(8, "a whole number from 1 to 1024", _whole(1, 1024)),
    "hash_bins": Hyperparameter(0, "a whole number from 2 to 1000000, or 0", lambda n: n == 0 or _whole(2, 10**6)(n)),
    "hidden_units": Hyperparameter(
        [64, 32],
        "a list of up to 16 whole numbers from 1 to 65536",
        lambda value: isinstance(value, list) and len(value) <= 16 and all(map(_whole(1, 65_536), value)),
    ),
    "l2": Hyperparameter(0.0, "a number of 0 or more", lambda value: _number(value) and value >= 0),
    "learning_rate": Hyperparameter(0.001, "a number above 0", lambda value: _number(value) and value > 0),
    "one_hot": Hyperparameter(8, "a whole number from 0 to 1000", _whole(0, 1000)),
    "optimizer": Hyperparameter("adam", f"one of {', '.join(OPTIMIZERS)}", lambda value: value in OPTIMIZERS),
}
OWNED = {
    "epochs": "max_rounds",
    "patience": "early_stopping_rounds",
    "random_state": "seed",
    "class_weight": "class_weights",
    "sample_weight": "weight_column",
    "loss": "task",
}


def known(task: str, given: Mapping[str, Any]) -> Known:
    return Known({name: name for name in HYPERPARAMETERS}, OWNED)


def settled(task: str, given: dict[str, Any]) -> dict[str, Any]:
    for name, value in given.items():
        if not HYPERPARAMETERS[name].fits(value):
            raise UserError("train", "hyperparameters", f"{name} is {value!r}", f"Give {HYPERPARAMETERS[name].wanted}")
    return {name: given.get(name, row.default) for name, row in HYPERPARAMETERS.items()}


def fit(job: Job) -> Learned:
    team = workers()
    if team.count > job.hyperparameters["batch_size"]:
        raise UserError(
            "train",
            "hyperparameters",
            f"batch_size {job.hyperparameters['batch_size']} is less than the {team.count} workers that share it",
            "Give a larger one, or fewer workers",
        )
    strategy = _strategy(team)
    tf.config.experimental.enable_op_determinism()
    keras.utils.clear_session(free_memory=False)  # names of layers count from one
    keras.utils.set_random_seed(job.seed)
    train = _parts(job.train)
    watched = None if job.eval is None else _parts(job.eval)
    scale = _adapt(job, train)
    with strategy.scope():
        model = _model(job, scale)
        fitting = _Fitting(job, model.get_layer(ENCODED), scale, team, strategy)
        try:
            rounds = fitting.run(train, watched)
            metrics = {f"train_{LOSSES[job.task]}": fitting.measured(train)}
            if watched is not None:
                metrics[f"eval_{LOSSES[job.task]}"] = fitting.measured(watched)
        except tf.errors.OpError as error:
            if team.count == 1:
                raise
            said = error.message.partition("\n")[0]
            raise UserError(
                "train",
                "TF_CONFIG",
                f"what worker {team.place} of {team.count} does with the others broke off: {said}",
                "Look at the others' logs, then start all of them again",
            ) from error
        finally:
            fitting.close()
    fitting.done()
    return Learned(
        rounds=rounds,
        metrics=metrics,
        save=lambda path: _save(model, job, path),
        writes=team.is_chief,
    )


def _strategy(team: Workers) -> Any:
    if team.count == 1:
        return tf.distribute.get_strategy()
    os.environ["TF_CONFIG"] = team.config
    # A collective operation that one of the workers does not take part in ends, and the fit with it.
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=STALLED)
    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


def _parts(rows: Any) -> Parts:
    """Return rows by the part; the first ones stay in memory once they are read, the others are read each time."""
    if isinstance(rows, Rows):
        return Parts.of(rows)
    kept: dict[int, Rows] = {}

    def read(place: int) -> Rows:
        found = kept.get(place) or rows.read(place)
        if place not in kept and sum(part.matrix.nbytes for part in kept.values()) + found.matrix.nbytes <= KEPT:
            kept[place] = found
        return found

    return Parts(rows.sizes, read)


@dataclass(frozen=True)
class Scale:
    """What one pass over the training rows tells.

    Attributes:
        means: By feature; of categories without meaning.
        variances: By feature, 1 where all values are the same.
        gaps: Whether the feature has missing values.
        target: Mean and standard deviation of a regression's target, else 0 and 1.
        weight: Mean weight of a row.
    """

    means: np.ndarray
    variances: np.ndarray
    gaps: np.ndarray
    target: tuple[float, float]
    weight: float


def _adapt(job: Job, train: Parts) -> Scale:
    """Return the scale of the training rows, in one pass (Chan, Golub and LeVeque 1983: moments of parts, merged)."""
    width = len(job.names)
    counts, means, squares = np.zeros(width + 1), np.zeros(width + 1), np.zeros(width + 1)
    weight = 0.0
    for place in range(train.count):
        rows = train.read(place)
        matrix = np.column_stack((rows.matrix, rows.labels))
        present = ~np.isnan(matrix)
        found = present.sum(axis=0)
        mean = np.where(present, matrix, 0).sum(axis=0) / np.maximum(found, 1)
        square = (np.where(present, matrix - mean, 0) ** 2).sum(axis=0)
        total = np.maximum(counts + found, 1)
        squares += square + (mean - means) ** 2 * counts * found / total
        means += (mean - means) * found / total
        counts += found
        weight += float(len(rows.labels) if rows.weights is None else rows.weights.sum())
    variances = squares / np.maximum(counts, 1)
    variances[variances <= 1e-12 * np.maximum(means**2, 1e-300)] = 1.0
    target = (float(means[-1]), math.sqrt(variances[-1])) if job.task == "regression" else (0.0, 1.0)
    return Scale(means[:-1], variances[:-1], counts[:-1] < train.rows, target, weight / train.rows)


def _model(job: Job, scale: Scale) -> Any:
    """Return the model of raw columns, not fitted yet."""
    encoded = _encoded(job, scale)
    inputs, columns = {}, []
    for name, size, texts, bins in zip(input_names(job.names), job.categories, job.texts, job.bins, strict=True):
        kind = "float64" if size is None else "string"
        inputs[name] = raw = keras.Input((1,), dtype=kind, name=name)
        if bins:
            found = layers.Hashing(bins + 1, mask_value="", salt=list(HASH_KEY), name=f"hash_{name}")(raw)
        elif size is not None:
            lookup = layers.StringLookup(
                vocabulary=list(texts) or ["[none]"], num_oov_indices=1, mask_token=None, oov_token=_unused(texts),
                name=f"lookup_{name}",
            )  # fmt: skip
            found = lookup(raw)
        else:
            columns.append(raw)
            continue
        columns.append(ops.cast(found, "float64") - 1.0)  # below 0 is missing
    matrix = layers.Concatenate(name="matrix", dtype="float64")(columns) if len(columns) > 1 else columns[0]
    return keras.Model(inputs, encoded(matrix), name="model")


def _unused(texts: Sequence[str]) -> str:
    """Return a text that is no category, which stands for all others."""
    text = "[missing]"
    while text in texts:
        text = f"[{text}]"
    return text


def _encoded(job: Job, scale: Scale) -> Any:
    """Return the model of the matrix, not fitted yet."""
    given = job.hyperparameters
    matrix = keras.Input((len(job.names),), dtype="float64", name="encoded_matrix")
    columns = []
    numbers = [place for place, size in enumerate(job.categories) if size is None]
    if numbers:
        values = ops.take(matrix, numbers, axis=1)
        missing = ops.isnan(values)
        normalization = layers.Normalization(
            mean=scale.means[numbers].tolist(),
            variance=scale.variances[numbers].tolist(),
            dtype="float64",
            name="normalization",
        )
        columns.append(ops.cast(ops.where(missing, 0.0, normalization(values)), "float32"))
        gaps = [place for place, number in enumerate(numbers) if scale.gaps[number]]
        if gaps:
            columns.append(ops.cast(ops.take(missing, gaps, axis=1), "float32"))
    for place, size in enumerate(job.categories):
        if size is None:
            continue
        code = ops.take(matrix, [place], axis=1)
        code = ops.cast(ops.where(ops.isnan(code), 0.0, code + 1.0), "int32")  # 0 is missing
        if size <= given["one_hot"]:
            columns.append(layers.CategoryEncoding(size + 1, output_mode="one_hot", name=f"one_hot_{place}")(code))
        else:
            embedding = layers.Embedding(size + 1, given["embedding_size"], name=f"embedding_{place}")
            columns.append(layers.Flatten(name=f"flat_{place}")(embedding(code)))
    inner = layers.Concatenate(name="columns")(columns) if len(columns) > 1 else columns[0]
    penalty = keras.regularizers.L2(given["l2"]) if given["l2"] else None
    for number, units in enumerate(given["hidden_units"], 1):
        dense = layers.Dense(units, given["activation"], kernel_regularizer=penalty, name=f"hidden_{number}")
        inner = dense(inner)
        if given["dropout"]:
            inner = layers.Dropout(given["dropout"], seed=job.seed + number, name=f"dropout_{number}")(inner)
    margin = layers.Dense(job.classes if job.task == "multiclass" else 1, name=MARGIN)(inner)
    if job.task == "regression":
        mean, deviation = scale.target
        output = layers.Rescaling(deviation, mean, name="prediction")(margin)
    else:
        output = layers.Activation("softmax" if job.task == "multiclass" else "sigmoid", name="probability")(margin)
    return keras.Model(matrix, output, name=ENCODED)


class _Fitting:
    """Fits a model, an epoch a round, together with other workers where there are any.

    Each worker reads all rows and takes every n-th of a batch, so that the sum of what they do is what one would do.
    """

    def __init__(self, job: Job, encoded: Any, scale: Scale, team: Workers, strategy: Any) -> None:
        self._job, self._scale, self._team, self._strategy = job, scale, team, strategy
        self._margins = keras.Model(encoded.input, encoded.get_layer(MARGIN).output)
        self._weights = self._margins.trainable_variables
        self._optimizer = OPTIMIZERS[job.hyperparameters["optimizer"]](job.hyperparameters["learning_rate"])
        self._optimizer.build(self._weights)
        self._batch = job.hyperparameters["batch_size"]
        signature = (
            tf.TensorSpec((None, len(job.names)), tf.float64),
            tf.TensorSpec((None,), tf.float32),
            tf.TensorSpec((None,), tf.float32),
        )
        self._train = tf.function(self._train_on, input_signature=signature)
        self._measure = tf.function(self._sums, input_signature=signature)
        self._groups: dict[tuple[int, bool], _Groups] = {}
        self._checkpoint = Checkpoint(job.checkpoint) if job.checkpoint else None
        self._state = _State()

    def run(self, train: Parts, watched: Parts | None) -> int:
        """Fit and return the rounds of the model that is kept."""
        state = self._state
        if self._checkpoint and (stored := self._checkpoint.load()) is not None:
            state.take(stored, self._variables())
        stop = self._job.early_stopping_rounds
        groups = self._groups_of(train, True)
        while state.round < self._job.max_rounds and not (stop and state.round - state.best_round >= stop):
            for group in groups.round():
                self._train(*group)
            state.round += 1
            if watched is not None and (stop or self._job.report):
                loss = self.measured(watched)
                if self._job.report:
                    self._job.report(state.round, {LOSSES[self._job.task]: loss})
                if not math.isfinite(loss):
                    return state.round  # the metrics will say that it diverged
                if loss < state.best_loss:
                    state.best_loss, state.best_round = loss, state.round
                    state.best = [weight.numpy() for weight in self._weights]
            if self._checkpoint and self._team.is_chief:
                self._checkpoint.save(state.give(self._variables()))
        if not stop:
            return state.round
        for weight, best in zip(self._weights, state.best, strict=True):
            weight.assign(best)
        return state.best_round

    def measured(self, parts: Parts) -> float:
        """Return the weighted loss of all rows: log loss, or the root of the mean squared error."""
        total, weights = sum(self._measure(*group).numpy() for group in self._groups_of(parts, False).round())
        mean = float(total / weights)
        return math.sqrt(mean) * self._scale.target[1] if self._job.task == "regression" else mean

    def _groups_of(self, parts: Parts, shuffled: bool) -> _Groups:
        key = id(parts), shuffled
        if key not in self._groups:
            self._groups[key] = _Groups(self._job, parts, shuffled, self._scale, self._state.round)
        return self._groups[key]

    def close(self) -> None:
        """End reading."""
        for groups in self._groups.values():
            groups.close()

    def done(self) -> None:
        """Remove the checkpoint of a model that is fitted."""
        if self._checkpoint and self._team.is_chief:
            self._checkpoint.remove()

    def _variables(self) -> list[Any]:
        """Return all that a round changes: weights, seeds of dropout, and what the optimizer remembers."""
        return [*self._margins.variables, *self._optimizer.variables]

    def _train_on(self, matrix: Any, labels: Any, weights: Any) -> None:
        for batch in tf.range(self._count(labels, self._batch)):
            self._strategy.run(self._step, args=self._mine(batch, self._batch, matrix, labels, weights))

    def _step(self, matrix: Any, labels: Any, weights: Any, rows: Any) -> None:
        with tf.GradientTape() as tape:
            losses = self._losses(matrix, labels, training=True)
            # Workers' gradients are added up: each brings its share of the mean over the whole batch.
            loss = tf.reduce_sum(losses * weights) / tf.cast(rows, tf.float32)
            if self._margins.losses:
                loss += tf.add_n(self._margins.losses) / self._team.count
        # Those of embeddings are lists of rows, which neither workers nor the squares of an optimizer can add up.
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, self._weights)]
        self._optimizer.apply_gradients(zip(gradients, self._weights, strict=True))

    def _sums(self, matrix: Any, labels: Any, weights: Any) -> Any:
        total = tf.zeros(2, tf.float64)
        for batch in tf.range(self._count(labels, MEASURED)):
            found = self._strategy.run(self._loss, args=self._mine(batch, MEASURED, matrix, labels, weights))
            total += self._strategy.reduce("SUM", found, axis=None)
        return total

    def _loss(self, matrix: Any, labels: Any, weights: Any, rows: Any) -> Any:
        losses = tf.cast(self._losses(matrix, labels, training=False), tf.float64)
        weights = tf.cast(weights, tf.float64)
        return tf.stack((tf.reduce_sum(losses * weights), tf.reduce_sum(weights)))

    def _count(self, labels: Any, size: int) -> Any:
        return (tf.shape(labels)[0] + size - 1) // size

    def _mine(self, batch: Any, size: int, *columns: Any) -> tuple[Any, ...]:
        """Return this worker's rows of a batch, and how many rows all workers have of it."""
        whole = [column[batch * size : (batch + 1) * size] for column in columns]
        return (*(column[self._team.place :: self._team.count] for column in whole), tf.shape(whole[1])[0])

    def _losses(self, matrix: Any, labels: Any, training: bool) -> Any:
        margins = self._margins(matrix, training=training)
        if self._job.task == "multiclass":
            return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(labels, tf.int32), margins)
        if self._job.task == "binary":
            return tf.nn.sigmoid_cross_entropy_with_logits(labels, margins[:, 0])
        return tf.square(margins[:, 0] - labels)


class _Groups:
    """Rows for TensorFlow, group by group and round by round, read ahead of where they are used.

    A shuffled round draws parts at random, a few at a time, and shuffles the rows of these few: the same order wherever
    it is run.
    """

    def __init__(self, job: Job, parts: Parts, shuffled: bool, scale: Scale, first_round: int) -> None:
        self._parts, self._seed, self._scale, self._round = parts, job.seed, scale, first_round
        self._shuffled, self._mixed = shuffled, MIXED if shuffled else 1
        signature = (tf.TensorSpec((None, len(job.names)), tf.float64), *[tf.TensorSpec((None,), tf.float32)] * 2)
        self._dataset = tf.data.Dataset.from_generator(self._read, output_signature=signature).prefetch(1)
        self._ahead = iter(self._dataset)

    def round(self) -> Iterator[tuple[Any, Any, Any]]:
        """Yield the groups of one round: matrix, labels and weights."""
        for _ in range(math.ceil(self._parts.count / self._mixed)):
            yield next(self._ahead)

    def close(self) -> None:
        """End reading; TensorFlow complains where a reader outlives what it reads."""
        del self._ahead

    def _read(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        mean, deviation = self._scale.target
        for number in itertools.count(self._round):
            random = np.random.default_rng((self._seed, number))
            order = random.permutation(self._parts.count) if self._shuffled else np.arange(self._parts.count)
            for first in range(0, len(order), self._mixed):
                found = [self._parts.read(int(place)) for place in order[first : first + self._mixed]]
                matrix = np.concatenate([rows.matrix for rows in found])
                labels = np.concatenate([rows.labels for rows in found])
                weights = np.concatenate(
                    [np.ones(len(rows.labels)) if rows.weights is None else rows.weights for rows in found]
                )
                shuffled = random.permutation(len(labels)) if self._shuffled else slice(None)
                yield (
                    matrix[shuffled],
                    ((labels - mean) / deviation)[shuffled].astype(np.float32),
                    (weights / self._scale.weight)[shuffled].astype(np.float32),
                )


@dataclass
class _State:
    """How far a fit is: what early stopping remembers, and the best weights so far."""

    round: int = 0
    best_round: int = 0
    best_loss: float = math.inf
    best: list[np.ndarray] = field(default_factory=list)

    def give(self, variables: Sequence[Any]) -> dict[str, np.ndarray]:
        """Return all of it, and the values of variables, as arrays."""
        arrays = {"round": np.array([self.round, self.best_round]), "best_loss": np.array(self.best_loss)}
        arrays |= {f"best_{place}": value for place, value in enumerate(self.best)}
        return arrays | {f"variable_{place}": variable.numpy() for place, variable in enumerate(variables)}

    def take(self, arrays: Mapping[str, np.ndarray], variables: Sequence[Any]) -> None:
        """Take it up again, and set the variables."""
        self.round, self.best_round = (int(number) for number in arrays["round"])
        self.best_loss = float(arrays["best_loss"])
        self.best = [arrays[f"best_{place}"] for place in range(sum(name.startswith("best_") for name in arrays) - 1)]
        for place, variable in enumerate(variables):
            variable.assign(arrays[f"variable_{place}"])


def _save(model: Any, job: Job, path: Path) -> None:
    """Write model.keras, the same bytes for the same model, and beside it the SavedModel."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "model.keras")
        model.save(file)
        path.write_bytes(_undated(file.read_bytes()))
    exported = path.with_name(SAVED_MODEL)
    if job.graph is None:
        model.export(exported, format="tf_saved_model", verbose=False)
    else:
        _export(model, job, exported)
    with contextlib.suppress(OSError):
        (exported / "assets").rmdir()  # empty where vocabularies are in the graph


def _export(model: Any, job: Job, folder: Path) -> None:
    """Write the SavedModel of a transform graph with the network behind it."""
    transform = job.graph.function
    keys = dict(zip(input_names(job.graph.names), input_names(job.names), strict=True))

    @tf.function
    def serve(**columns: Any) -> dict[str, Any]:
        made = transform(**columns)
        return {"output_0": model({keys[key]: column for key, column in made.items()}, training=False)}

    module = tf.Module()
    module.model, module.resources = model, job.graph.resources
    specs = transform.structured_input_signature[1]
    signatures = {"serving_default": serve.get_concrete_function(**specs), TRANSFORM: transform}
    tf.saved_model.save(module, str(folder), signatures)


def _undated(content: bytes) -> bytes:
    """Return a .keras file without times and addresses in it."""
    numbers: dict[bytes, bytes] = {}
    saved = zipfile.ZipFile(io.BytesIO(content))
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(saved.namelist()):
            member = saved.read(name)
            if name == "config.json":  # objects are named by where they lay in memory
                member = re.sub(
                    rb'(?<="shared_object_id": )\d+',
                    lambda found: numbers.setdefault(found[0], b"%d" % len(numbers)),
                    member,
                )
            if name == "metadata.json":
                member = b'{"keras_version": "%s", "date_saved": "1970-01-01@00:00:00"}' % keras.__version__.encode()
            archive.writestr(zipfile.ZipInfo(name), member)
    return stored.getvalue()


def flavor() -> tuple[str, dict[str, Any]]:
    # MLflow's flavor of TensorFlow reads SavedModels.
    return "tensorflow", {
        "model_type": "tf2-module",
        "saved_model_dir": "saved_model",
    }


FRAMEWORK = Framework(
    distributions=(("tensorflow-cpu", "tensorflow"), ("keras",)),
    weights="model.keras",
    flavor=flavor,
    known=known,
    settled=settled,
    rounds=lambda given: True,
    constraints=(),
    max_categories=lambda given: None,
    fit=fit,
    refusals=(tf.errors.ResourceExhaustedError,),
    hash_bins=lambda given: int(given["hash_bins"]),
    streams=True,
    whole=lambda given: "",
    resumes=True,
    reports=lambda given: True,
    embeds=True,
)
