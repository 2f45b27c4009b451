"""Keras: expected gradients, from what the first dense layer reads to what comes before the sigmoid or softmax.

Integrated gradients [1] follow a straight line from a row of the background to the row; their mean over rows of the
background [2] is an Aumann-Shapley value. Between a category and another there is no line: it starts behind the layers
that make numbers of the columns, and what those numbers add is summed back to their column.

[1] Sundararajan, Taly, Yan: Axiomatic attribution for deep networks. ICML 2017.
[2] Erion, Janizek, Sturmfels, Lundberg, Lee: Improving performance of deep learning models with axiomatic attribution
    priors and expected gradients. Nature Machine Intelligence 3 (2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from penstock.components.explanation.explainers import MARGIN, PREDICTION, Attributed, Explainer, Makers, Subject

BACKGROUND = 32  # rows that lines start from
STEPS = 32  # points of a line, at which Gauss and Legendre take the gradient
AT_ONCE = 1 << 16  # points whose gradients are taken together
ENCODED, LAYER = "encoded", "margin"  # what train calls the part that reads the matrix, and its last dense layer


def makers(subject: Subject) -> Makers:
    return {"gradient": lambda: _gradient(subject)}


def _gradient(subject: Subject) -> Explainer:
    # Of the images in which components of this stage run, not all have TensorFlow.
    import keras
    import tensorflow as tf

    model = keras.saving.load_model(subject.folder / "model.keras", compile=False, safe_mode=True).get_layer(ENCODED)
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    # Of a regression the value itself: behind the margin it is scaled, and that is all.
    end = model.output if subject.model.task == "regression" else model.get_layer(LAYER).output
    columns = keras.Model(model.input, first.input)
    network = keras.Model(first.input, end)
    rows, weights = subject.background()
    drawn = np.random.default_rng(subject.seed).choice(len(rows), size=BACKGROUND, p=weights / weights.sum())
    starts = columns(rows[np.sort(drawn)], training=False).numpy()
    places = column_places(columns, rows, subject.model.encoded)
    points, shares = np.polynomial.legendre.leggauss(STEPS)
    points, shares = ((points + 1) / 2).astype(np.float32), (shares / 2).astype(np.float32)
    outputs = int(end.shape[1])

    @tf.function(reduce_retracing=True)
    def gradients(ends: Any, output: Any) -> Any:
        """Return for each row the mean over starts of the distance times the mean gradient on the way."""
        apart = ends[:, None, :] - starts[None, :, :]
        lines = starts[None, :, None, :] + apart[:, :, None, :] * points[None, None, :, None]
        flat = tf.reshape(lines, (-1, starts.shape[1]))
        with tf.GradientTape() as tape:
            tape.watch(flat)
            found = tf.gather(network(flat, training=False), output, axis=1)
        slopes = tf.reshape(tape.gradient(found, flat), tf.shape(lines))
        return tf.reduce_mean(apart * tf.einsum("rbsc,s->rbc", slopes, shares), axis=1)

    size = max(1, AT_ONCE // (BACKGROUND * STEPS))

    def attribute(matrix: np.ndarray) -> Attributed:
        values = np.zeros((len(matrix), outputs, len(subject.model.encoded)))
        own = np.zeros((len(matrix), outputs))
        for start in range(0, len(matrix), size):
            ends = columns(matrix[start : start + size], training=False)
            own[start : start + size] = network(ends, training=False).numpy()
            for output in range(outputs):
                found = gradients(ends, output).numpy()
                for column, feature in enumerate(places):
                    values[start : start + size, output, feature] += found[:, column]
        base = network(starts, training=False).numpy().astype(np.float64).mean(axis=0)
        return Attributed(values, base, own)

    cost = BACKGROUND * STEPS * outputs
    return Explainer(
        attribute,
        f"expected gradients: {STEPS} points on the way from each of {BACKGROUND} rows of background",
        PREDICTION if subject.model.task == "regression" else MARGIN,
        tolerance=0.02,
        most_rows=max(1, subject.max_evaluations // cost),
        background_rows=BACKGROUND,
        cost=f"each row costs {cost:,} predictions, and max_evaluations is {subject.max_evaluations:,}",
    )


def column_places(columns: Any, rows: np.ndarray, features: Any) -> list[int]:
    """Return for each number that the first dense layer reads the place of the feature it is made of.

    A feature is given all that it may be, the others stay as they are: what changes is made of it.
    """
    found = np.zeros(int(columns.output.shape[1]), dtype=np.int64)
    for place, feature in enumerate(features):
        tried = _values(rows[:, place], feature)
        varied = np.repeat(rows[:1], len(tried), axis=0)
        varied[:, place] = tried
        made = columns(varied, training=False).numpy()
        found[np.ptp(made, axis=0) > 0] = place
    return found.tolist()


def _values(column: np.ndarray, feature: Mapping[str, Any]) -> np.ndarray:
    counts = {"category": len(feature.get("categories", ())), "text": feature.get("bins", 0), "boolean": 2}
    known = np.arange(counts[feature["kind"]], dtype=np.float64) if feature["kind"] in counts else column
    return np.append(known, np.nan)
