"""A model of Keras and one of XGBoost, for the proof of the image."""

from kfp import dsl

from penstock.components import ingest, train


@dsl.pipeline(name="serving-tensorflow-smoke")
def keras_and_another(source: str = "sample://taxi?rows=2000"):
    data = ingest(
        source=source,
        query="SELECT fare_amount, trip_distance, pickup_location_id::VARCHAR AS pickup_zone, tip_amount > 2 AS tipped "
        "FROM source WHERE fare_amount > 0",
    )
    for framework in ("keras", "xgboost"):
        fitted = train(
            train_set=data.outputs["train_set"],
            eval_set=data.outputs["eval_set"],
            target="tipped",
            framework=framework,
            max_rounds=5,
        )
        fitted.set_display_name(framework)
