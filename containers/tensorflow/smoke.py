"""A Keras model trained and evaluated, for the proof of the image."""

from kfp import dsl

from penstock.components import evaluate, ingest, train
from penstock.components.images import image


@dsl.pipeline(name="tensorflow-smoke")
def keras_model(source: str = "sample://taxi?rows=2000"):
    data = ingest(
        source=source,
        query="SELECT fare_amount, trip_distance, pickup_location_id::VARCHAR AS pickup_zone, tip_amount > 2 AS tipped "
        "FROM source WHERE fare_amount > 0",
    ).set_container_image(image("tensorflow"))
    fitted = train(
        train_set=data.outputs["train_set"],
        eval_set=data.outputs["eval_set"],
        target="tipped",
        framework="keras",
        max_rounds=5,
    ).set_container_image(image("tensorflow"))
    evaluate(model=fitted.outputs["model"], eval_set=data.outputs["eval_set"]).set_container_image(image("tensorflow"))
