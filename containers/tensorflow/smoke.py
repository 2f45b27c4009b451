"""A Keras model searched, trained, evaluated and explained, for the proof of the image."""

from kfp import dsl

from penstock.components import evaluate, explain, ingest, train, tune
from penstock.components.images import image


@dsl.pipeline(name="tensorflow-smoke")
def keras_model(source: str = "sample://taxi?rows=2000"):
    data = ingest(
        source=source,
        query="SELECT fare_amount, trip_distance, pickup_location_id::VARCHAR AS pickup_zone, tip_amount > 2 AS tipped "
        "FROM source WHERE fare_amount > 0",
    )
    sets = {"train_set": data.outputs["train_set"], "eval_set": data.outputs["eval_set"], "target": "tipped"}
    tuned = tune(
        **sets,
        framework="keras",
        space={"learning_rate": {"type": "float", "low": 0.001, "high": 0.1, "log": True}},
        max_trials=2,
        max_rounds=2,
    )
    fitted = train(**sets, framework="keras", hyperparameters=tuned.outputs["hyperparameters"], max_rounds=5)
    measured = evaluate(model=fitted.outputs["model"], eval_set=data.outputs["eval_set"])
    explained = explain(
        model=fitted.outputs["model"],
        dataset=data.outputs["eval_set"],
        background=data.outputs["train_set"],
        max_rows=100,
    )
    # This image holds all that the others' images hold.
    for task in (data, tuned, fitted, measured, explained):
        task.set_container_image(image("tensorflow"))
