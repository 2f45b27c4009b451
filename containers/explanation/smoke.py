"""A model that is trained, measured and explained, for the proof of the image."""

from kfp import dsl

from penstock.components import evaluate, explain, ingest, model_card, train, validate
from penstock.components.images import image


@dsl.pipeline(name="explanation-smoke")
def explained(source: str = "sample://taxi?rows=2000"):
    data = ingest(
        source=source,
        query="SELECT fare_amount, trip_distance, tolls_amount, pickup_location_id::VARCHAR AS pickup_zone, "
        "tip_amount > 2 AS tipped FROM source WHERE fare_amount > 0",
    )
    described = validate(dataset=data.outputs["train_set"])
    tasks = [data, described]
    # One of each way to explain: XGBoost's own, by way of LightGBM, shap's with numba.
    for framework, estimator, method in (
        ("xgboost", "", "auto"),
        ("sklearn", "hist_gradient_boosting", "auto"),
        ("sklearn", "logistic_regression", "permutation"),
    ):
        fitted = train(
            train_set=data.outputs["train_set"],
            eval_set=data.outputs["eval_set"],
            target="tipped",
            framework=framework,
            hyperparameters={"estimator": estimator} if estimator else {},
            max_rounds=10,
        )
        measured = evaluate(model=fitted.outputs["model"], eval_set=data.outputs["eval_set"], bootstrap_samples=20)
        said = explain(
            model=fitted.outputs["model"],
            dataset=data.outputs["eval_set"],
            method=method,
            slices=["pickup_zone"],
            max_evaluations=100_000,
        )
        card = model_card(
            model=fitted.outputs["model"],
            evaluation=measured.outputs["evaluation"],
            statistics=described.outputs["statistics"],
            explanation=said.outputs["explanation"],
        )
        tasks += [fitted, measured, said, card]
    # This image holds all that the others' image holds.
    for task in tasks:
        task.set_container_image(image("explanation"))
