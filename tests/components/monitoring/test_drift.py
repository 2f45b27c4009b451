"""What is found of rows beside a reference, and what is written of it."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families

from penstock.components._shared.errors import UserError
from penstock.components.ingestion.ingest import ingest
from penstock.components.monitoring.drift import Limits, detect
from penstock.components.validation.validate import validate


@pytest.fixture
def detected(make_dataset, tmp_path):
    """Return a function that compares columns and returns what was found and the document."""

    def run(current, reference, **arguments):
        result = detect(
            make_dataset(current),
            tmp_path / "drift",
            tmp_path / "report.html",
            tmp_path / "prometheus",
            reference=make_dataset(reference),
            **arguments,
        )
        return result, json.loads((tmp_path / "drift").read_text())

    return run


def rows(size: int, shift: float = 0.0, share: float = 0.5, seed: int = 0) -> dict:
    random = np.random.default_rng([seed, size])
    return {
        "still": random.normal(size=size),
        "moving": random.normal(shift, size=size),
        "kind": np.where(random.random(size) < share, "a", "b"),
        "prediction": random.normal(shift, size=size),
    }


def test_columns_that_moved_are_named_and_others_are_not(detected, tmp_path):
    result, document = detected(rows(3000, shift=0.7, share=0.8), rows(5000))
    assert set(result.drifted) == {"moving", "kind", "prediction"}
    assert result.predictions == ("prediction",)
    assert result.faulty == ()
    assert result.metrics["drifted_columns"] == 3
    assert document["reference"]["rows"] == 5000
    still = next(each for each in document["columns"] if each["name"] == "still")
    assert still["distance"] < 0.05
    page = (tmp_path / "report.html").read_text()
    assert "3 of 4 columns drifted" in page


def test_the_same_rows_have_not_drifted(detected):
    result, document = detected(rows(500), rows(500))
    assert result.drifted == result.faulty == ()
    assert {each["distance"] for each in document["columns"]} == {0.0}


def test_a_few_rows_that_happen_to_look_different_are_no_drift(detected):
    result, document = detected({"x": [1.0, 1.1]}, {"x": np.linspace(0, 10, 500)})
    [column] = document["columns"]
    assert column["distance"] > column["threshold"]
    assert result.drifted == ()


def test_a_difference_that_is_certain_but_small_is_no_drift(detected):
    result, document = detected(rows(60_000, shift=0.05), rows(60_000, seed=1))
    moving = next(each for each in document["columns"] if each["name"] == "moving")
    assert moving["adjusted_p_value"] < 0.01
    assert result.drifted == ()


@pytest.mark.parametrize("distance", ["psi", "jensen_shannon", "ks", "l_infinity"])
def test_any_distance_may_decide_and_each_column_have_its_own_threshold(detected, distance):
    limits = Limits(distance=distance, threshold=0.02, thresholds={"moving": 10.0})
    result, document = detected(rows(3000, shift=0.7, share=0.8), rows(5000), limits=limits)
    assert set(result.drifted) == {"kind", "prediction"}
    assert all(each["distance"] == each["distances"][distance] for each in document["columns"])


def test_what_is_wrong_with_the_data_is_told_apart_from_drift(detected):
    before = {"gone": [1] * 100, "typed": [1] * 100, "sparse": [1.0] * 100, "kind": ["a", "b"] * 50, "n": range(100)}
    now = {
        "typed": ["1"] * 100,
        "sparse": [1.0] * 60 + [None] * 30 + [math.nan] * 10,
        "kind": ["a", "b"] * 45 + ["c"] * 10,
        "n": [*range(95), *[1000] * 5],
        "new": [1] * 100,
    }
    result, document = detected(
        {name: list(values) for name, values in now.items()}, {k: list(v) for k, v in before.items()}
    )
    issues = {issue["column"]: issue for issue in document["issues"]}
    assert {name: issue["kind"] for name, issue in issues.items()} == {
        "gone": "absent",
        "typed": "type",
        "sparse": "missing",
        "kind": "new_values",
        "n": "out_of_range",
    }
    assert issues["sparse"]["share"] == pytest.approx(0.4)
    assert "'c'" in issues["kind"]["text"]
    assert "outside 0 to 99, they reach from 0 to 1000" in issues["n"]["text"]
    assert document["not_compared"] == {"new": "it is not in the reference"}
    assert set(result.faulty) == set(issues)


def test_values_where_there_were_none_are_told(detected):
    result, document = detected(
        {"x": [1.0] * 50, "y": [1] * 50}, {"x": pa.array([None] * 50, pa.string()), "y": [1] * 50}
    )
    assert result.faulty == ("x",)
    assert document["issues"][0]["text"] == "0.0% of the rows have no value, in the reference 100.0%"
    assert result.drifted == ()


def test_gauges_say_what_the_document_says(detected, tmp_path):
    _, document = detected(rows(300, shift=2.0), rows(300, seed=1))
    gauges = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families((tmp_path / "prometheus").read_text())
        for sample in family.samples
    }
    for each in document["columns"]:
        assert gauges["penstock_drifted", ("column", each["name"])] == each["drifted"]
        for name, value in each["distances"].items():
            assert gauges["penstock_drift_distance", ("column", each["name"]), ("distance", name)] == value


def test_the_same_rows_give_the_same_bytes(detected, tmp_path):
    detected(rows(300, shift=1.0), rows(300, seed=1))
    first = [(tmp_path / name).read_bytes() for name in ("drift", "report.html", "prometheus")]
    detected(rows(300, shift=1.0), rows(300, seed=1))
    assert first == [(tmp_path / name).read_bytes() for name in ("drift", "report.html", "prometheus")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": ["nowhere"]}, "detect_drift: columns: there is no column 'nowhere'"),
        ({"exclude": ["nowhere"]}, "detect_drift: exclude: there is no column 'nowhere'"),
        ({"limits": Limits(thresholds={"nowhere": 1.0})}, "detect_drift: thresholds: there is no column 'nowhere'"),
        ({"limits": Limits(distance="kl")}, "'kl' is no distance. Give one of psi, jensen_shannon, ks, l_infinity"),
        ({"limits": Limits(threshold=-1.0)}, "threshold: -1.0 is no such limit. Give a number of 0 or more"),
        ({"limits": Limits(threshold=math.nan)}, "threshold: nan is no such limit"),
        ({"limits": Limits(false_alarms=2.0)}, "false_alarms: 2.0 is no such limit. Give a number from 0 to 1"),
        ({"exclude": ["n"]}, "it has no column that the reference has"),
        ({"reference_statistics": "statistics"}, "both are given"),
        ({"reference": None}, "neither is given"),
    ],
)
def test_wrong_arguments_are_refused(make_dataset, tmp_path, arguments, message):
    data = make_dataset({"n": [1, 2]})
    given = {"reference": data, **arguments}
    with pytest.raises(UserError, match=message):
        detect(data, tmp_path / "drift", tmp_path / "report", tmp_path / "prometheus", **given)
    assert not (tmp_path / "drift").exists()


def test_no_rows_are_refused(make_dataset, tmp_path):
    some, none = make_dataset({"n": [1]}), make_dataset({"n": pa.array([], pa.int64())})
    outputs = (tmp_path / "drift", tmp_path / "report", tmp_path / "prometheus")
    for current, reference, argument in ((none, some, "current"), (some, none, "reference")):
        with pytest.raises(UserError, match=f"{argument}: it has no rows"):
            detect(current, *outputs, reference=reference)


@pytest.mark.corpus
def test_the_surcharge_of_february_2019_is_found_in_the_real_trips(taxi_months, tmp_path):
    def month(pattern: str):
        folder = tmp_path / pattern.replace("*", "x")
        source = str(taxi_months / f"yellow_tripdata_{pattern}.csv")
        ingest(source, folder / "rows", folder / "none", folder / "rejects", eval_fraction=0.0)
        return folder / "rows"

    autumn = month("2018-1*")
    statistics = tmp_path / "statistics"
    validate(autumn, statistics, tmp_path / "schema", tmp_path / "anomalies", tmp_path / "page", on_anomaly="report")
    outputs = (tmp_path / "drift", tmp_path / "report", tmp_path / "prometheus")
    for reference in ({"reference": autumn}, {"reference_statistics": statistics}):
        assert detect(month("2018-06"), *outputs, **reference).drifted == ()
        assert detect(month("2019-01"), *outputs, **reference).drifted == ()
        found = detect(month("2019-02"), *outputs, **reference)
        assert "total_amount" in found.drifted
        assert "trip_distance" not in found.drifted
        assert "congestion_surcharge" in found.faulty
