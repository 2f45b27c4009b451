"""The declarations of `detect_drift` and `monitor_performance`."""

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
    attributions: Optional[Input[Dataset]] = None,
    reference_attributions: Optional[Input[Dataset]] = None,
    columns: List[str] = [],
    exclude: List[str] = [],
    predictions: List[str] = [],
    distance: str = "psi",
    threshold: float = 0.2,
    thresholds: Dict[str, float] = {},
    false_alarms: float = 0.01,
    tolerance: float = 0.01,
    attribution_threshold: float = 0.9,
) -> NamedTuple(
    "Detected",
    [
        ("drifted", bool),
        ("drifted_columns", List[str]),
        ("predictions_drifted", bool),
        ("attributions_drifted", bool),
        ("faulty_columns", List[str]),
    ],
):
    """Say which columns have moved away from a reference, by how much, and that it is not by chance.

    Args:
        current: Rows to look at: any dataset, or a server's request log that ingest has read.
        drift: Everything that was found, as JSON.
        prometheus: The same as gauges in Prometheus's text format.
        metrics: Rows, columns, drifted and faulty columns, the largest distance, and the NDCG of the attributions.
        report: The same to look at, with plots.
        reference: Rows to compare with, such as those that the model was trained on.
        reference_statistics: Statistics of such rows from validate, TFDV or TFX, in place of reference.
        attributions: What explain wrote of the rows, or of some of them. None: attributions are not compared.
        reference_attributions: What explain wrote, with the same model, of rows to compare with.
        columns: Columns to compare. Empty: all that both have.
        exclude: Columns to leave out.
        predictions: Columns that hold predictions. Empty: `prediction` and those that begin with `probability_`.
        distance: What decides: "psi", "jensen_shannon", "ks" or "l_infinity"; all are measured.
        threshold: Distance above which a column has drifted.
        thresholds: The same for single columns, by name.
        false_alarms: Probability of calling any column drifted when none is, over all columns together.
        tolerance: Share of the rows that may hold new values or values out of range, and by which missing values may
            become more or fewer.
        attribution_threshold: NDCG, 0 to 1, of the ranking of columns by mean absolute attribution below which
            attributions have drifted.

    Returns:
        drifted: Whether any column or the attributions have drifted.
        drifted_columns: Their names, furthest first.
        predictions_drifted: Whether a column of predictions is among them.
        attributions_drifted: Whether the ranking of columns by what they add to predictions has changed.
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
        attributions=attributions.path if attributions else None,
        reference_attributions=reference_attributions.path if reference_attributions else None,
        limits=Limits(distance, threshold, thresholds, false_alarms, tolerance, attribution_threshold),
    )
    for name, value in result.metrics.items():
        metrics.log_metric(name, value)
    drifted = bool(result.drifted) or result.attributions
    return (drifted, list(result.drifted), bool(result.predictions), result.attributions, list(result.faulty))


@dsl.component(base_image=image("tabular"), install_kfp_package=False)
def monitor_performance(
    predictions: Input[Dataset],
    labels: Input[Dataset],
    performance: Output[Artifact],
    prometheus: Output[Artifact],
    metrics: Output[Metrics],
    report: Output[HTML],
    target: str,
    evaluation: Optional[Input[Artifact]] = None,
    keys: List[str] = ["request_id", "row"],
    time_column: str = "time",
    window: str = "day",
    metric: str = "",
    tolerance: float = 0.05,
    least_rows: int = 100,
    bootstrap_samples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> NamedTuple("Monitored", [("degraded", bool), ("labelled_share", float), ("reason", str)]):
    """Measure predictions by the labels that came later, over time, and say whether the model has become worse.

    Args:
        predictions: Rows with the keys, `prediction` and, of a classifier, `probability_CLASS` for every class: a
            server's request log that ingest has read, or what predict_batch wrote.
        labels: Rows with the keys and the target, for some or all of the predictions.
        performance: Everything that was found, as JSON.
        prometheus: The same as gauges in Prometheus's text format.
        metrics: Metrics of all labelled rows.
        report: The same to look at, with plots.
        target: Column of the labels.
        evaluation: Evaluation of the model, written by evaluate. Without one nothing is decided.
        keys: Columns that tell which label belongs to which prediction.
        time_column: Column of the predictions that windows are cut by. Empty: none are.
        window: "hour", "day", "week" or "month", in UTC.
        metric: Metric that decides. Empty: auc, auc_ovr or rmse, by task.
        tolerance: By what share of the evaluation's value the metric may be worse.
        least_rows: Labelled rows below which nothing is decided.
        bootstrap_samples: Bootstrap resamples behind each confidence interval; 0: no intervals.
        confidence: Coverage of the intervals, 0 to 1.
        seed: Of the bootstrap.

    Returns:
        degraded: Whether the metric is worse than tolerated, and its interval does not reach the evaluation's value.
        labelled_share: Share of the predictions that have a label, 0 to 1.
        reason: Why it is or is not degraded, one line.
    """
    from penstock.components.monitoring.performance import Demands, monitor

    result = monitor(
        predictions.path,
        labels.path,
        performance.path,
        report.path,
        prometheus.path,
        target=target,
        keys=keys,
        time_column=time_column,
        window=window,
        evaluation=evaluation.path if evaluation else None,
        demands=Demands(metric, tolerance, least_rows, bootstrap_samples, confidence, seed),
    )
    for name, value in result.metrics.items():
        metrics.log_metric(name, value)
    return (result.degraded, result.labelled_share, result.reason)
