"""What Prometheus is told: latency, errors, requests at work, and how predictions are distributed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = CONTENT_TYPE_LATEST

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
PROBABILITIES = tuple(round(number / 20, 2) for number in range(1, 21))
_SIZES = tuple(float(f"{digit}e{power}") for power in range(-2, 7) for digit in (1, 2, 5))
VALUES = (*(-size for size in reversed(_SIZES)), 0.0, *_SIZES)


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        every: dict[str, Any] = {"registry": self._registry}
        self.seconds = Histogram(
            "penstock_request_seconds", "From the head of a request to its answer", ["route"], buckets=SECONDS, **every
        )
        self.requests = Counter("penstock_requests", "Requests by route and status", ["route", "status"], **every)
        self.errors = Counter("penstock_errors", "Requests that were refused or failed, by kind", ["kind"], **every)
        self.in_flight = Gauge("penstock_requests_in_flight", "Requests that are being worked on", **every)
        self.rows = Counter("penstock_rows", "Rows that were predicted", **every)
        self.labels = Counter("penstock_labels", "Rows by the class that was predicted", ["label"], **every)
        self.logged = Counter("penstock_log_rows", "Rows of the request log, written or lost", ["outcome"], **every)
        for outcome in ("written", "lost_full", "lost_failed"):
            self.logged.labels(outcome)
        self.ready = Gauge("penstock_ready", "Whether requests for predictions are wanted", **every)
        self.model = Gauge("penstock_model", "The model that is served", ["name", "version", "framework"], **every)
        ProcessCollector(registry=self._registry)

    def watch(self, outputs: Sequence[str], task: str) -> None:
        """Begin to tell the distribution of these outputs."""
        self._distributions = Distributions(outputs, VALUES if task == "regression" else PROBABILITIES)
        self._registry.register(self._distributions)

    def observe(self, numbers: Mapping[str, np.ndarray], labels: Sequence[str]) -> None:
        """Count predictions: numbers by output, and the class of each row."""
        self._distributions.observe(numbers)
        for label in set(labels):
            self.labels.labels(label).inc(labels.count(label))

    def text(self) -> bytes:
        """Return all of them in Prometheus' format."""
        return generate_latest(self._registry)


class Distributions:
    """A histogram an output, counted a request at a time: the client's own takes one number at a time.

    Args:
        bounds: Upper bounds of the buckets, ascending.
    """

    def __init__(self, outputs: Sequence[str], bounds: Sequence[float]) -> None:
        self._bounds = np.array(bounds)
        self._lock = threading.Lock()
        self._counts = {name: np.zeros(len(bounds) + 1, dtype=np.int64) for name in outputs}
        self._sums = dict.fromkeys(outputs, 0.0)

    def observe(self, numbers: Mapping[str, np.ndarray]) -> None:
        """Count numbers by output."""
        for name, values in numbers.items():
            counts = np.bincount(np.searchsorted(self._bounds, values, side="left"), minlength=len(self._bounds) + 1)
            with self._lock:
                self._counts[name] += counts
                self._sums[name] += float(values.sum())

    def collect(self) -> Iterator[Metric]:
        """Yield the histogram, as a registry asks for it."""
        family = HistogramMetricFamily("penstock_predictions", "Predicted values and probabilities", labels=["output"])
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for name in self._counts:
            with self._lock:
                running, total = np.cumsum(self._counts[name]), self._sums[name]
            family.add_metric(
                [name], [(bound, int(count)) for bound, count in zip(bounds, running, strict=True)], total
            )
        yield family
