"""The declaration of `evaluate`."""

from typing import Any, Dict, List, NamedTuple  # kfp reads these names

from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Metrics, Model, Output

from penstock.components.caching import uncached
from penstock.components.images import image


@uncached
@dsl.component(base_image=image("tabular"), install_kfp_package=False)
def evaluate(
    model: Input[Model],
    eval_set: Input[Dataset],
    metrics: Output[Metrics],
    classification_metrics: Output[ClassificationMetrics],
    evaluation: Output[Artifact],
    report: Output[HTML],
    slices: List[str] = [],
    gate: List[str] = [],
    model_name: str = "",
    registry: str = "",
    bootstrap_samples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
    engine: str = "local",
    beam_options: Dict[str, Any] = {"runner": "DirectRunner"},
) -> NamedTuple("Evaluated", [("blessed", bool), ("reason", str), ("champion_version", str)]):
    """Measure a model with confidence intervals, by slice, and decide whether it may replace the champion.

    Args:
        model: Model written by train.
        eval_set: Rows with the target, not used for fitting.
        metrics: Metrics of the whole set.
        classification_metrics: ROC curve and confusion matrix of a classifier; empty for a regression.
        evaluation: All metrics, intervals, slices, curves and the gate's findings, as JSON.
        report: The same to look at, with plots.
        slices: Columns to measure by value, each on its own.
        gate: Conditions that all have to hold: "auc >= 0.7", "slice:payment_type.auc >= 0.6" (in every slice of the
            column), "slice:payment_type=1.auc >= 0.6" (in one), "auc >= champion - 0.005" (the champion is measured on
            the same rows; true without one). Operators are >=, >, <=, < and ==.
        model_name: Registered model whose champion the gate compares with. Needed for such conditions only.
        registry: URI of the MLflow registry. Empty: the environment's, or the local run folder's.
        bootstrap_samples: Bootstrap resamples behind each confidence interval; 0: no intervals.
        confidence: Coverage of the intervals, 0 to 1.
        seed: Of the bootstrap.
        engine: Where rows are predicted and measured: "local", on this machine, or "beam", by TensorFlow Model Analysis
            on Apache Beam, in the image penstock/beam; without intervals there.
        beam_options: Beam's own options; `runner` is DirectRunner, DataflowRunner, FlinkRunner or SparkRunner.

    Returns:
        blessed: Whether every condition of the gate holds.
        reason: Why, one line.
        champion_version: Version that the gate compared with; empty if there was none yet, "any" if it did not
            compare. Give it to register as expected_version.
    """
    from penstock.components.evaluation.evaluate import evaluate

    result = evaluate(
        model.path,
        eval_set.path,
        evaluation.path,
        report.path,
        slices=slices,
        gate=gate,
        model_name=model_name,
        registry=registry,
        bootstrap_samples=bootstrap_samples,
        confidence=confidence,
        seed=seed,
        engine=engine,
        beam_options=beam_options,
        eval_set_uri=eval_set.uri,
    )
    for name, value in result.metrics.items():
        metrics.log_metric(name, value)
    if result.roc:
        classification_metrics.log_roc_curve(*result.roc)
    if result.confusion:
        classification_metrics.log_confusion_matrix(*result.confusion)
    return (result.blessed, result.reason, result.champion_version)
