"""A small model of every framework, for the proof of the image."""

from kfp import dsl

from penstock.components import ingest, train

FEATURES = ["fare_amount", "trip_distance", "tolls_amount", "pickup_zone"]


@dsl.pipeline(name="serving-smoke")
def one_of_each_framework(source: str = "sample://taxi?rows=2000"):
    data = ingest(
        source=source,
        query="SELECT fare_amount, trip_distance, tolls_amount, pickup_location_id::VARCHAR AS pickup_zone, "
        "tip_amount > 2 AS tipped FROM source WHERE fare_amount > 0",
    )
    for framework in ("xgboost", "lightgbm", "sklearn"):
        fitted = train(
            train_set=data.outputs["train_set"],
            eval_set=data.outputs["eval_set"],
            target="tipped",
            framework=framework,
            features=FEATURES,
            max_rounds=10,
        )
        fitted.set_display_name(framework)
