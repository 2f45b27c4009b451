"""What was found as gauges in Prometheus's text format, for a node exporter's textfile collector or a push gateway."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile


def drift(found: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the gauges of a drift document (see drift.py), atomically."""
    registry = CollectorRegistry()
    rows = Gauge("penstock_drift_rows", "Rows compared.", ["set"], registry=registry)
    distance = Gauge(
        "penstock_drift_distance", "Distance from the reference.", ["column", "distance"], registry=registry
    )
    chance = Gauge(
        "penstock_drift_p_value",
        "Probability of it by chance, adjusted for all columns.",
        ["column"],
        registry=registry,
    )
    drifted = Gauge("penstock_drifted", "Whether a column has drifted.", ["column"], registry=registry)
    missing = Gauge("penstock_missing_ratio", "Share of rows without a value.", ["column", "set"], registry=registry)
    issues = Gauge(
        "penstock_data_issue_ratio",
        "Share of rows that something is wrong with.",
        ["column", "kind"],
        registry=registry,
    )
    for name in ("reference", "current"):
        rows.labels(name).set(found[name]["rows"])
    for column in found["columns"]:
        for name, value in column["distances"].items():
            if value is not None:
                distance.labels(column["name"], name).set(value)
        if column["adjusted_p_value"] is not None:
            chance.labels(column["name"]).set(column["adjusted_p_value"])
        drifted.labels(column["name"]).set(column["drifted"])
        for name, value in column["missing"].items():
            missing.labels(column["name"], name).set(value)
    for issue in found["issues"]:
        issues.labels(issue["column"], issue["kind"]).set(issue["share"])
    if found["attributions"]:
        _attributions(found["attributions"], registry)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_to_textfile(str(path), registry)


def _attributions(found: Mapping[str, Any], registry: CollectorRegistry) -> None:
    ndcg = Gauge("penstock_attribution_ndcg", "NDCG of the ranking of columns by attribution.", registry=registry)
    drifted = Gauge("penstock_attributions_drifted", "Whether attributions have drifted.", registry=registry)
    mean = Gauge("penstock_attribution", "Mean absolute attribution.", ["column", "set"], registry=registry)
    ndcg.set(found["ndcg"])
    drifted.set(found["drifted"])
    for column in found["columns"]:
        for name, value in column["mean_absolute"].items():
            mean.labels(column["name"], name).set(value)


def performance(found: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the gauges of a performance document (see performance.py), atomically."""
    registry = CollectorRegistry()
    value = Gauge("penstock_performance", "Metric of all labelled rows.", ["metric"], registry=registry)
    labelled = Gauge("penstock_labelled_ratio", "Share of the predictions that have a label.", registry=registry)
    degraded = Gauge("penstock_degraded", "Whether the model is worse than tolerated.", registry=registry)
    for name, entry in found["metrics"].items():
        if entry["value"] is not None:
            value.labels(name).set(entry["value"])
    labelled.set(found["labelled"] / found["predictions"]["rows"])
    degraded.set(found["degraded"])
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_to_textfile(str(path), registry)
