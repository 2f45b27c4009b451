"""The declaration of `detect_drift`."""

from typing import Dict, List, NamedTuple, Optional  # kfp reads these names

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Output

from penstock.components.images import image


@dsl.component(base_image=image("tabular"), install_kfp_package=False)
def detect_drift(
    current: Input[Dataset],
    drift: Output[Artifact],
    prometheus: Output[Artifact],
    metrics: Output[Metrics],
    report: Output[HTML],
    reference: Optional[Input[Dataset]] = None,
    reference_statistics: Optional[Input[Artifact]] = None,
    columns: List[str] = [],
    exclude: List[str] = [],
    predictions: List[str] = [],
    distance: str = "psi",
    threshold: float = 0.2,
    thresholds: Dict[str, float] = {},
    false_alarms: float = 0.01,
    tolerance: float = 0.01,
) -> NamedTuple(
    "Detected",
    [("drifted", bool), ("drifted_columns", List[str]), ("predictions_drifted", bool), ("faulty_columns", List[str])],
):
    """Say which columns have moved away from a reference, by how much, and that it is not by chance.

    Args:
        current: Rows to look at: any dataset, or a server's request log that ingest has read.
        drift: Everything that was found, as JSON.
        prometheus: The same as gauges in Prometheus's text format.
        metrics: Rows, columns, drifted and faulty columns, and the largest distance.
        report: The same to look at, with plots.
        reference: Rows to compare with, such as those that the model was trained on.
        reference_statistics: Statistics of such rows from validate, TFDV or TFX, in place of reference.
        columns: Columns to compare. Empty: all that both have.
        exclude: Columns to leave out.
        predictions: Columns that hold predictions. Empty: `prediction` and those that begin with `probability_`.
        distance: What decides: "psi", "jensen_shannon", "ks" or "l_infinity"; all are measured.
        threshold: Distance above which a column has drifted.
        thresholds: The same for single columns, by name.
        false_alarms: Probability of calling any column drifted when none is, over all columns together.
        tolerance: Share of the rows that may hold new values or values out of range, and by which missing values may
            become more or fewer.

    Returns:
        drifted: Whether any column has drifted.
        drifted_columns: Their names, furthest first.
        predictions_drifted: Whether a column of predictions is among them.
        faulty_columns: Columns that are absent, of another type, or hold more missing, new or outlying values than
            tolerated.
    """
    from penstock.components.monitoring.drift import Limits, detect

    result = detect(
        current.path,
        drift.path,
        report.path,
        prometheus.path,
        reference=reference.path if reference else None,
        reference_statistics=reference_statistics.path if reference_statistics else None,
        columns=columns,
        exclude=exclude,
        predictions=predictions,
        limits=Limits(distance, threshold, thresholds, false_alarms, tolerance),
    )
    for name, value in result.metrics.items():
        metrics.log_metric(name, value)
    return (bool(result.drifted), list(result.drifted), bool(result.predictions), list(result.faulty))
