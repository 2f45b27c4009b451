"""What is measured of a version: by counters at two moments, and by what two versions answered to the same requests."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prometheus_client.parser import text_string_to_metric_families

from penstock.components._shared.distances import jensen_shannon
from penstock.components._shared.metrics.tasks import TASKS, values_of
from penstock.components._shared.tabular import label_text
from penstock.components.deployment.endpoint import Reading, Unreachable

# Routes of the server that predict; see docs/serving.md.
ROUTES = ("predict", "score", "invocations", "infer")
TOLERANCE = 0.01  # by which numbers may differ and still agree, as a share of their spread
_PROBABILITY = "probability_"

_NOTHING = pa.schema({"request_id": pa.string(), "row": pa.int32(), "prediction": pa.float64()}).empty_table()

Bounds = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Metric:
    """A metric of a rollout.

    Attributes:
        text: What it is.
        of: Its value in a window, None where it has none; where there is no such function, it compares two versions.
    """

    text: str
    of: Callable[[Reading], float | None] | None = None


# What labels tell of the versions' answers.
QUALITY = tuple(dict.fromkeys(name for task in TASKS.values() for name in task.metrics))


def requests(window: Reading) -> float:
    """Return the number of requests."""
    return float(sum(window.requests.values()))


def share(window: Reading, least: int, most: int) -> float | None:
    """Return the share of the requests that were answered with a status in that range."""
    total = requests(window)
    found = sum(count for status, count in window.requests.items() if least <= status <= most)
    return found / total if total else None


def quantile(counts: Bounds, q: float) -> float | None:
    """Return a quantile of a histogram, as Prometheus' histogram_quantile does: linear within a bucket.

    Beyond the last finite bound it is that bound.
    """
    total = counts[-1][1] if counts else 0.0
    if not total:
        return None
    rank, low, below = q * total, 0.0, 0.0
    for bound, count in counts:
        if count >= rank and count > below:
            return low if math.isinf(bound) else low + (bound - low) * (rank - below) / (count - below)
        low, below = (low if math.isinf(bound) else bound), count
    return low


def latency(window: Reading, q: float) -> float | None:
    """Return a quantile of the latencies in seconds: that of the histogram, or what the platform tells itself."""
    return window.quantiles.get(q) if window.quantiles else quantile(window.seconds, q)


METRICS: dict[str, Metric] = {
    "requests": Metric("requests for predictions", requests),
    "error_rate": Metric(
        "share of the requests that the version failed: status 500 and above", lambda w: share(w, 500, 599)
    ),
    "refusal_rate": Metric("share of the requests that it refused: status 400 to 499", lambda w: share(w, 400, 499)),
    "latency_p50": Metric("median latency in seconds", lambda w: latency(w, 0.5)),
    "latency_p95": Metric("latency in seconds that 95 % stay below", lambda w: latency(w, 0.95)),
    "latency_p99": Metric("latency in seconds that 99 % stay below", lambda w: latency(w, 0.99)),
    "prediction_distance": Metric(
        "Jensen-Shannon divergence of what it predicts from what the current version does, 0 to 1; the largest of all"
        " outputs"
    ),
    "agreement": Metric(
        "share of the rows that both versions predict alike, of requests that both answered: a shadow's"
    ),
}


def between(before: Reading, after: Reading) -> Reading:
    """Return what happened between two readings; a version that was started anew in between counts from zero."""

    def restarted() -> bool:
        return requests(after) < requests(before)

    if restarted():
        return after
    return Reading(
        {status: count - before.requests.get(status, 0.0) for status, count in after.requests.items()},
        _less(after.seconds, before.seconds),
        {name: _less(counts, before.outputs.get(name, ())) for name, counts in after.outputs.items()},
        {label: count - before.labels.get(label, 0.0) for label, count in after.labels.items()},
        after.quantiles,
    )


def values(window: Reading) -> dict[str, float]:
    """Return the metrics that a version has by itself, those without a value left out."""
    found = {name: metric.of(window) for name, metric in METRICS.items() if metric.of}
    return {name: value for name, value in found.items() if value is not None}


def prediction_distance(a: Reading, b: Reading) -> float | None:
    """Return how far apart the predictions of two windows are, None where one of them has none."""
    pairs = [
        (_frequencies(a.outputs[name]), _frequencies(b.outputs[name])) for name in a.outputs.keys() & b.outputs.keys()
    ]
    pairs.append((dict(a.labels), dict(b.labels)))
    found = [jensen_shannon(first, second) for first, second in pairs if any(first.values()) and any(second.values())]
    return max(found, default=None)


def agreement(current: pa.Table, new: pa.Table) -> tuple[float | None, int]:
    """Return the share of the rows that both answered alike, and how many both answered.

    Classes are alike when they are equal; numbers when they differ by no more than TOLERANCE of the range of nine
    tenths of the current version's.
    """
    keys = ["request_id", "row"]
    joined = current.select([*keys, "prediction"]).join(
        new.select([*keys, "prediction"]), keys=keys, join_type="inner", right_suffix="_new"
    )
    if not joined.num_rows:
        return None, 0
    first, second = joined["prediction"], joined["prediction_new"]
    if pa.types.is_floating(first.type) and not any(name.startswith(_PROBABILITY) for name in current.column_names):
        ours, theirs = first.to_numpy(), second.to_numpy()
        spread = float(np.subtract(*np.quantile(ours, [0.95, 0.05])))
        alike = float(np.mean(np.abs(ours - theirs) <= TOLERANCE * (spread or abs(float(ours.mean())))))
    else:
        alike = float(pc.mean(pc.equal(first.cast(pa.string()), second.cast(pa.string()))).as_py())
    return alike, joined.num_rows


def quality(answers: pa.Table, labels: pa.Table, target: str) -> dict[str, float]:
    """Return the metrics of quality of the answers that have a label, by the names that `evaluate` has for them.

    Args:
        answers: Of one version.
        labels: `request_id`, `row` and the target.

    Raises:
        ValueError: A label is none of the classes that the version knows, or no number.
    """
    keys = ["request_id", "row"]
    known = labels.select([*keys, target]).rename_columns([*keys, "label"])
    known = known.set_column(1, "row", known["row"].cast(pa.int32()))
    joined = answers.join(known, keys=keys, join_type="inner")
    if not joined.num_rows:
        return {}
    classes = [name.removeprefix(_PROBABILITY) for name in answers.column_names if name.startswith(_PROBABILITY)]
    if classes:
        places = {name: place for place, name in enumerate(classes)}
        texts = [label_text(label) for label in joined["label"].to_pylist()]
        if strange := sorted(set(texts) - places.keys()):
            raise ValueError(f"{target!r} holds {', '.join(strange[:3])}, but the version knows {', '.join(classes)}")
        actual = np.array([places[text] for text in texts])
        predicted = np.column_stack([joined[_PROBABILITY + name].to_numpy() for name in classes])
    else:
        actual = joined["label"].cast(pa.float64()).to_numpy()
        predicted = joined["prediction"].cast(pa.float64()).to_numpy()
    task = TASKS["regression" if not classes else "binary" if len(classes) == 2 else "multiclass"]
    return values_of(task, task.rows(actual, predicted).weigh(None))[0]


def read_exposition(text: str) -> Reading:
    """Return what a server tells in Prometheus' format.

    Raises:
        Unreachable: It is not that format.
    """
    requests: dict[int, float] = {}
    seconds: dict[float, float] = {}
    outputs: dict[str, dict[float, float]] = {}
    labels: dict[str, float] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                given = sample.labels
                if sample.name == "penstock_requests_total" and given["route"] in ROUTES:
                    status = int(given["status"])
                    requests[status] = requests.get(status, 0.0) + sample.value
                elif sample.name == "penstock_request_seconds_bucket" and given["route"] in ROUTES:
                    bound = float(given["le"])
                    seconds[bound] = seconds.get(bound, 0.0) + sample.value
                elif sample.name == "penstock_predictions_bucket":
                    outputs.setdefault(given["output"], {})[float(given["le"])] = sample.value
                elif sample.name == "penstock_labels_total":
                    labels[given["label"]] = sample.value
    except (ValueError, KeyError) as error:
        raise Unreachable(f"/metrics is not in Prometheus' format ({error})") from None
    return Reading(
        requests,
        tuple(sorted(seconds.items())),
        {name: tuple(sorted(counts.items())) for name, counts in outputs.items()},
        labels,
    )


def read_log(folder: Path, since: datetime.datetime) -> pa.Table:
    """Return the rows of a request log that were answered since then.

    Raises:
        Unreachable: A file of it cannot be read.
    """
    tables: list[pa.Table] = []
    for file in sorted(folder.glob("part-*.parquet")):
        try:
            if file.stat().st_mtime >= since.timestamp():
                tables.append(_answers(file, since))
        except FileNotFoundError:
            continue  # the server keeps no more of them
        except (OSError, pa.ArrowException) as error:
            raise Unreachable(f"its request log cannot be read: {error}") from None
    return pa.concat_tables(tables) if tables else _NOTHING


def _answers(file: Path, since: datetime.datetime) -> pa.Table:
    names = pq.read_schema(file).names
    wanted = [name for name in names if name in ("request_id", "row", "prediction") or name.startswith(_PROBABILITY)]
    return pq.read_table(file, columns=wanted, filters=[("time", ">=", since)])


def _less(after: Bounds, before: Bounds) -> Bounds:
    known = dict(before)
    return tuple((bound, count - known.get(bound, 0.0)) for bound, count in after)


def _frequencies(counts: Bounds) -> Mapping[str, float]:
    found, below = {}, 0.0
    for bound, count in counts:
        found[repr(bound)] = count - below
        below = count
    return found
