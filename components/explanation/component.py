"""The declarations of `explain` and `model_card`."""

from typing import List, NamedTuple, Optional  # kfp reads these names

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from penstock.components.images import image


@dsl.component(base_image=image("explanation"), install_kfp_package=False)
def explain(
    model: Input[Model],
    dataset: Input[Dataset],
    attributions: Output[Dataset],
    explanation: Output[Artifact],
    vertex_attributions: Output[Artifact],
    metrics: Output[Metrics],
    report: Output[HTML],
    background: Optional[Input[Dataset]] = None,
    method: str = "auto",
    keys: List[str] = [],
    slices: List[str] = [],
    local: List[str] = ["highest 3", "lowest 3"],
    weight_column: str = "",
    metric: str = "auto",
    max_rows: int = 100000,
    sample_rows: int = 5000,
    repeats: int = 5,
    dependence_features: int = 6,
    max_evaluations: int = 10000000,
    tolerance: float = 0.0,
    seed: int = 0,
) -> NamedTuple("Explained", [("additive", bool), ("method", str), ("rows", int)]):
    """Attribute a model's predictions to its columns, row by row, on average and by slice.

    Args:
        model: Model written by train.
        dataset: Rows to explain, with all columns that the model reads. With the target, permutation importance is
            measured on them too.
        attributions: What each column adds to each prediction: a row for each explained row, of a multiclass model for
            each of its classes too, with the keys.
        explanation: Averages, slices, permutation importance, partial dependence, chosen rows and the check of
            additivity, as JSON.
        vertex_attributions: Mean absolute attributions in the JSON that Vertex AI's ModelImportEvaluationOp takes as
            feature_attributions.
        metrics: Rows, the check of additivity, and the mean absolute attribution of each column.
        report: The same to look at, with plots.
        background: Rows that stand for not knowing a column, where the method needs such rows. None: `dataset`.
        method: "tree", "linear", "gradient", "permutation", or "auto" for the first of them that the model has.
        keys: Columns that tell rows apart; they are kept beside the attributions.
        slices: Columns to average by value, each on its own.
        local: Rows to show one by one: "first 5", "highest 3" and "lowest 3" (by prediction; of a multiclass model by
            how certain it is), or "trip_id=17" and "trip_id=17,day=2026-01-31" (all rows with these values, 20 at
            most).
        weight_column: Column of row weights, 0 or more, for averages, importance and dependence. Empty: all rows weigh
            the same.
        metric: Metric of the permutation importance; "auto": auc, log_loss or rmse by the task.
        max_rows: Rows to explain, a random sample where there are more; 0: all.
        sample_rows: Rows that permutation importance and partial dependence are measured on.
        repeats: Permutations of each column; 0: no permutation importance.
        dependence_features: Columns to draw partial dependence of, the most important ones.
        max_evaluations: Predictions that "permutation" and "gradient" may ask the model for; fewer rows are explained
            where all would cost more.
        tolerance: Gap between the sum of a row's attributions and its prediction that is put up with, relative to
            their size; 0: the method's own.
        seed: Of everything random.

    Returns:
        additive: Whether the attributions of every row add up to its prediction, within the tolerance.
        method: The method that was used.
        rows: Rows that were explained.
    """
    from penstock.components.explanation.explain import explain

    result = explain(
        model.path,
        dataset.path,
        attributions.path,
        explanation.path,
        vertex_attributions.path,
        report.path,
        background=background.path if background else None,
        method=method,
        keys=keys,
        slices=slices,
        local=local,
        weight_column=weight_column,
        metric=metric,
        max_rows=max_rows,
        sample_rows=sample_rows,
        repeats=repeats,
        dependence_features=dependence_features,
        max_evaluations=max_evaluations,
        tolerance=tolerance,
        seed=seed,
    )
    for name, value in result.metrics.items():
        metrics.log_metric(name, value)
    return (result.additive, result.method, result.rows)


@dsl.component(base_image=image("explanation"), install_kfp_package=False)
def model_card(
    model: Input[Model],
    card: Output[Artifact],
    report: Output[HTML],
    evaluation: Optional[Input[Artifact]] = None,
    statistics: Optional[Input[Artifact]] = None,
    explanation: Optional[Input[Artifact]] = None,
    name: str = "",
    version: str = "",
    overview: str = "",
    owners: List[str] = [],
    license: str = "",
    references: List[str] = [],
    intended_uses: List[str] = [],
    intended_users: List[str] = [],
    out_of_scope_uses: List[str] = [],
    limitations: List[str] = [],
    ethical_considerations: List[str] = [],
    recommendations: List[str] = [],
) -> NamedTuple("Carded", [("missing", List[str])]):
    """Write a Model Card of what the run knows of a model and of what it is meant for.

    Args:
        model: Model written by train.
        card: The card as JSON of format penstock.model_card/1; its schema is components/explanation/card.schema.json.
        report: The same to look at.
        evaluation: Written by evaluate: metrics with intervals, slices, the gate.
        statistics: Of the training rows, written by validate.
        explanation: Written by explain.
        name: Of the model. Empty: its target.
        version: Of the model.
        overview: What the model does, in a sentence or two.
        owners: Persons or teams, with a way to reach them.
        license: Of the model.
        references: Papers, links, documents.
        intended_uses: What it is meant for.
        intended_users: Who is meant to use it.
        out_of_scope_uses: What it is not meant for.
        limitations: What is known not to work.
        ethical_considerations: Risks, and what is done about them.
        recommendations: What users should mind.

    Returns:
        missing: What the card says is not known, such as "evaluation" or "intended_uses".
    """
    from penstock.components.explanation.card import write_card

    result = write_card(
        model.path,
        card.path,
        report.path,
        evaluation=evaluation.path if evaluation else None,
        statistics=statistics.path if statistics else None,
        explanation=explanation.path if explanation else None,
        told={
            "name": name,
            "version": version,
            "overview": overview,
            "owners": owners,
            "license": license,
            "references": references,
            "intended_uses": intended_uses,
            "intended_users": intended_users,
            "out_of_scope_uses": out_of_scope_uses,
            "limitations": limitations,
            "ethical_considerations": ethical_considerations,
            "recommendations": recommendations,
        },
    )
    return (list(result.missing),)
