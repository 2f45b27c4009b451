"""What is found of predictions once labels are there."""

import datetime
import json

import numpy as np
import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sklearn.metrics import accuracy_score, mean_squared_error, roc_auc_score

from penstock.components._shared import memory
from penstock.components._shared.errors import UserError
from penstock.components.monitoring.performance import Demands, monitor


def told(rows: int = 600, skill: float = 2.0, seed: int = 0) -> tuple[dict, dict]:
    """Return a server's log of a binary model, and the labels."""
    random = np.random.default_rng(seed)
    score = random.normal(size=rows)
    positive = random.random(rows) < 1 / (1 + np.exp(-skill * score))
    probability = 1 / (1 + np.exp(-score))
    keys = {"request_id": [f"r{n // 2}" for n in range(rows)], "row": [n % 2 for n in range(rows)]}
    start = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    log = {
        **keys,
        "time": [start + datetime.timedelta(hours=n / 5) for n in range(rows)],
        "prediction": probability > 0.5,
        "probability_false": 1 - probability,
        "probability_true": probability,
    }
    return log, {**keys, "tipped": positive}


@pytest.fixture
def monitored(make_dataset, tmp_path):
    """Return a function that monitors and returns what was found and the document."""

    def run(predictions, labels, target="tipped", baseline=None, task="binary", metric="auc", **arguments):
        evaluation = None
        if baseline is not None:
            evaluation = tmp_path / "evaluation"
            metrics = {metric: {"value": baseline}}
            evaluation.write_text(json.dumps({"format": "penstock.evaluation/1", "task": task, "metrics": metrics}))
        outputs = (tmp_path / "performance", tmp_path / "report.html", tmp_path / "prometheus")
        given = {"demands": Demands(samples=50), **arguments}
        result = monitor(
            make_dataset(predictions), make_dataset(labels), *outputs, target=target, evaluation=evaluation, **given
        )
        return result, json.loads(outputs[0].read_text())

    return run


def test_metrics_are_those_of_the_rows_that_have_a_label(monitored):
    log, labels = told()
    late = {name: values[::-1][:400] for name, values in labels.items()}  # in another order, and not all
    result, document = monitored(log, late)
    truth, score = labels["tipped"][-400:], log["probability_true"][-400:]
    assert result.metrics["auc"] == pytest.approx(roc_auc_score(truth, score))
    assert result.metrics["accuracy"] == pytest.approx(accuracy_score(truth, score > 0.5))
    assert result.labelled_share == pytest.approx(400 / 600)
    assert (result.degraded, result.reason) == (False, "there is no evaluation to compare with")
    days = document["windows"]
    assert [day["start"] for day in days] == [
        "2026-03-01 00:00:00+00",
        *(f"2026-03-0{n} 00:00:00+00" for n in range(2, 6)),
    ]
    assert [day["rows"] for day in days] == [120] * 5
    assert [day["labelled"] for day in days] == [0, 40, 120, 120, 120]
    last = days[-1]["metrics"]["auc"]
    assert last["value"] == pytest.approx(roc_auc_score(labels["tipped"][-120:], log["probability_true"][-120:]))
    assert last["low"] < last["value"] < last["high"]


@pytest.mark.parametrize(
    ("baseline", "degraded", "reason"),
    [(0.95, True, "below 0.9025"), (0.82, False, "within the tolerance"), (0.5, False, "within the tolerance")],
)
def test_a_model_is_degraded_if_it_is_worse_than_in_its_evaluation(monitored, tmp_path, baseline, degraded, reason):
    result, document = monitored(*told(), baseline=baseline)
    assert result.degraded is degraded
    assert reason in result.reason
    assert document["limit"] == pytest.approx(0.95 * baseline)
    gauges = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families((tmp_path / "prometheus").read_text())
        for sample in family.samples
    }
    assert gauges["penstock_degraded",] == degraded
    assert gauges["penstock_performance", "auc"] == pytest.approx(result.metrics["auc"])


def test_a_few_rows_decide_nothing(monitored):
    log, labels = told(120)
    few, _ = monitored(log, {name: values[:50] for name, values in labels.items()}, baseline=0.99)
    assert (few.degraded, few.reason) == (False, "50 labelled rows are fewer than 100")
    log, labels = told(30, skill=1.0)
    demands = Demands(samples=200, least_rows=10, tolerance=0.0)
    value = monitored(log, labels)[0].metrics["auc"]
    chance, _ = monitored(log, labels, baseline=value + 0.01, demands=demands)
    assert not chance.degraded
    assert "but its interval reaches that" in chance.reason


def test_errors_of_a_regression_are_better_when_lower(monitored):
    random = np.random.default_rng(2)
    truth = random.normal(size=300)
    log = {"id": range(300), "prediction": truth + random.normal(size=300)}
    log, labels = (
        {name: list(values) for name, values in each.items()} for each in (log, {"id": range(300), "fare": truth})
    )
    arguments = {"target": "fare", "keys": ["id"], "time_column": "", "task": "regression", "metric": "rmse"}
    worse, document = monitored(log, labels, baseline=0.8, **arguments)
    assert worse.metrics["rmse"] == pytest.approx(mean_squared_error(truth, log["prediction"]) ** 0.5)
    assert worse.degraded
    assert document["windows"] == []
    assert not monitored(log, labels, baseline=1.0, **arguments)[0].degraded


def test_classes_are_told_by_the_names_of_their_columns(monitored):
    random = np.random.default_rng(3)
    shares = random.dirichlet([1, 1, 1], size=200)
    kinds = [int(random.choice(3, p=share)) + 10 for share in shares]
    log = {"id": list(range(200)), "prediction": shares.argmax(axis=1) + 10}
    log |= {f"probability_{10 + place}": shares[:, place] for place in range(3)}
    found, document = monitored(log, {"id": list(range(200)), "kind": kinds}, "kind", keys=["id"], time_column="")
    assert (document["task"], document["classes"]) == ("multiclass", ["10", "11", "12"])
    assert found.metrics["accuracy"] == pytest.approx(accuracy_score(kinds, shares.argmax(axis=1) + 10))


def test_a_label_may_be_there_twice_but_not_say_two_things(monitored):
    log, labels = told(100)
    twice = {name: [*values, values[0]] for name, values in labels.items()}
    assert monitored(log, twice)[1]["labelled"] == 100
    twice["tipped"][-1] = not twice["tipped"][0]
    with pytest.raises(UserError, match="request_id r0, row 0 has labels that contradict each other"):
        monitored(log, twice)


def test_the_evaluation_that_evaluate_writes_is_the_one_that_is_read(monitored, make_dataset, tmp_path):
    from penstock.components.evaluation.evaluate import evaluate
    from penstock.components.prediction.predict import predict
    from penstock.components.training.fit import fit

    random = np.random.default_rng(4)
    miles = random.normal(size=500)
    rows = make_dataset({"id": range(500), "miles": miles, "tipped": random.random(500) < 1 / (1 + np.exp(-3 * miles))})
    fit(rows, rows, tmp_path / "model", target="tipped", features=["miles"], max_rounds=5)
    evaluate(tmp_path / "model", rows, tmp_path / "evaluation", tmp_path / "page", bootstrap_samples=0)
    predict(tmp_path / "model", rows, tmp_path / "predictions", tmp_path / "rejects", keep=["id"])
    outputs = (tmp_path / "performance", tmp_path / "report", tmp_path / "prometheus")
    found = monitor(
        tmp_path / "predictions",
        rows,
        *outputs,
        target="tipped",
        keys=["id"],
        time_column="",
        evaluation=tmp_path / "evaluation",
        demands=Demands(samples=0),
    )
    evaluated = json.loads((tmp_path / "evaluation").read_text())["metrics"]
    assert found.metrics == pytest.approx({name: evaluated[name]["value"] for name in found.metrics})
    assert not found.degraded


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": "year"}, "window: 'year' is no window. Give one of hour, day, week, month"),
        ({"keys": []}, "keys: there are none"),
        ({"keys": ["id"]}, "predictions: there is no column 'id'"),
        ({"target": "fare"}, "labels: there is no column 'fare'"),
        ({"time_column": "at"}, "predictions: there is no column 'at'"),
        ({"demands": Demands(metric="rmse")}, "metric: 'rmse' is no metric of a binary model"),
        ({"demands": Demands(tolerance=-1)}, "tolerance: -1 is out of range"),
        ({"demands": Demands(confidence=1.0)}, "confidence: 1.0 is out of range"),
        ({"baseline": 0.9, "task": "regression"}, "it is of a regression model, the predictions of a binary one"),
        ({"baseline": 0.9, "metric": "recall"}, "evaluation: it has no value of auc"),
    ],
)
def test_wrong_arguments_are_refused(monitored, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        monitored(*told(50), **change)
    assert not (tmp_path / "performance").exists()


def test_labels_that_fit_nothing_or_are_unknown_are_refused(monitored, tmp_path):
    log, labels = told(50)
    with pytest.raises(UserError, match="labels: none belongs to any of the 50 predictions"):
        monitored(log, {**labels, "request_id": [f"x{n}" for n in range(50)]})
    with pytest.raises(UserError, match=r"holds labels that the model does not know: maybe. It knows false, true"):
        monitored(log, {**labels, "tipped": ["maybe"] * 50})
    with pytest.raises(UserError, match="predictions: some are missing or infinite"):
        monitored({**log, "probability_true": pa.array([None] * 50, pa.float64())}, labels)


def test_predictions_that_do_not_fit_are_refused_before_any_is_read(monitored, monkeypatch):
    monkeypatch.setattr(memory, "used", lambda: 0)
    log, labels = told()
    for given, of_row in (({}, 2 * 9 + 2 * 60), ({"time_column": ""}, 2 * 9 + 60)):
        monkeypatch.setattr(memory, "limit", lambda of_row=of_row: 600 * of_row - 1)
        problem = (
            "predictions: 600 predictions with their labels and windows take 0 MB .* or predictions of a shorter time"
        )
        with pytest.raises(UserError, match=problem):
            monitored(log, labels, **given)
        monkeypatch.setattr(memory, "limit", lambda of_row=of_row: 600 * of_row)
        monitored(log, labels, **given)
