import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest
from kfp import dsl

from penstock.components import train
from penstock.components._shared.model import load_model
from penstock.components.training.fit import fit


def test_the_component_logs_metrics_and_returns_task_and_rounds(train_set, eval_set, tmp_path):
    metrics = dsl.Metrics(uri=str(tmp_path / "metrics"))
    trained = train.python_func(
        train_set=dsl.Dataset(uri=str(train_set)),
        eval_set=dsl.Dataset(uri=str(eval_set)),
        model=dsl.Model(uri=str(tmp_path / "model")),
        metrics=metrics,
        target="double",
        exclude=["late", "shade"],
        max_rounds=5,
    )
    assert trained == ("regression", 5)
    assert set(metrics.metadata) == {"train_rmse", "eval_rmse"}
    assert load_model(tmp_path / "model", "test", "model").target == "double"


def test_a_training_is_logged_to_mlflow(train_set, eval_set, registry, tmp_path):
    from mlflow import MlflowClient

    fitted = fit(
        train_set, eval_set, tmp_path / "model", target="double", exclude=["late", "shade"], max_rounds=5,
        hyperparameters={"max_depth": 2}, tracking=registry,
    )  # fmt: skip
    client = MlflowClient(tracking_uri=registry)
    (run,) = client.search_runs([client.get_experiment_by_name("penstock").experiment_id])
    assert run.info.run_name == "train"
    assert run.data.metrics == {**fitted.metrics, "rounds": 5.0}
    assert run.data.params["max_depth"] == "2"
    assert run.data.tags["train_fingerprint"]


@pytest.mark.corpus
@pytest.mark.parametrize("framework", ["lightgbm", "sklearn", "xgboost"])
def test_real_trips_are_told_apart(framework, taxi_months, make_dataset, tmp_path):
    months = [pyarrow.csv.read_csv(file) for file in sorted(taxi_months.glob("*.csv"))]
    trips = pa.concat_tables(months, promote_options="permissive")
    trips = trips.filter(pc.and_(pc.equal(trips["payment_type"], 1), pc.greater(trips["fare_amount"], 0)))
    zones = {name: trips[name].cast(pa.string()) for name in ("pickup_location_id", "dropoff_location_id")}
    tips = pc.greater(trips["tip_amount"], pc.multiply(trips["fare_amount"], 0.2))
    rows = pa.table(
        {**{name: trips[name] for name in ("trip_distance", "fare_amount", "extra", "tolls_amount")}, **zones}
    )
    rows = rows.append_column("big_tip", tips)
    cut = rows.num_rows * 4 // 5
    train_set, eval_set = make_dataset(rows.slice(0, cut)), make_dataset(rows.slice(cut))
    fitted = fit(train_set, eval_set, tmp_path / "model", target="big_tip", framework=framework)
    share = pc.mean(tips.slice(cut)).as_py()
    labels = pc.cast(tips.slice(cut), pa.float64()).to_numpy()
    assert 0.5 < share < 0.8
    always_the_share = -(labels.mean() * pc.ln(share).as_py() + (1 - labels.mean()) * pc.ln(1 - share).as_py())
    assert fitted.metrics["eval_log_loss"] < always_the_share - 0.01
