"""The whole of validate: paths in, files out."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0.anomalies_pb2 import Anomalies
from tensorflow_metadata.proto.v0.schema_pb2 import Schema
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList

from penstock.components._shared.errors import UserError
from penstock.components.validation.validate import Validated, validate

ROWS = {"n": [1, 2, 3], "s": ["a", "b", "a"], "x": [0.5, None, 2.5]}


class Run:
    def __init__(self, folder: Path, dataset: Path) -> None:
        self.dataset = dataset
        self.outputs = {name: folder / name for name in ("statistics", "schema", "anomalies", "report")}

    def __call__(self, **arguments) -> Validated:
        return validate(self.dataset, *self.outputs.values(), **arguments)

    def anomalies(self) -> Anomalies:
        return text_format.Parse(self.outputs["anomalies"].read_text(), Anomalies())


@pytest.fixture
def run(tmp_path, make_dataset):
    def make(rows=ROWS, folder="run") -> Run:
        return Run(tmp_path / folder, make_dataset(rows))

    return make


def schema_file(tmp_path, text: str) -> Path:
    path = tmp_path / "schema.pbtxt"
    path.write_text(text)
    return path


def test_without_a_schema_one_is_inferred_and_fits(run):
    validation = run()
    assert validation() == Validated(valid=True, anomaly_count=0)
    statistics = DatasetFeatureStatisticsList.FromString(validation.outputs["statistics"].read_bytes())
    assert statistics.datasets[0].num_examples == 3
    schema = text_format.Parse(validation.outputs["schema"].read_text(), Schema())
    assert [feature.name for feature in schema.feature] == ["n", "s", "x"]
    assert not validation.anomalies().anomaly_info
    assert "No anomalies" in validation.outputs["report"].read_text()


@pytest.mark.parametrize("by", ["given_schema", "schema_uri"])
def test_anomalies_fail_the_run_after_everything_is_written(run, tmp_path, by):
    path = schema_file(
        tmp_path, 'feature { name: "n" type: INT int_domain { max: 2 } } feature { name: "s" type: INT }'
    )
    validation = run()
    with pytest.raises(UserError) as failed:
        validation(**{by: str(path)})
    line = str(failed.value)
    assert "\n" not in line
    assert line.startswith(
        "validate: dataset: 3 anomalies: n: Out of range; s: Unexpected data type; x: New column. Look at "
    )
    assert str(validation.outputs["report"]) in line
    assert set(validation.anomalies().anomaly_info) == {"n", "s", "x"}
    assert "Out of range" in validation.outputs["report"].read_text()
    assert all(path.stat().st_size for path in validation.outputs.values())


def test_many_anomalies_are_summed_up(run, tmp_path):
    path = schema_file(tmp_path, "".join(f'feature {{ name: "f{i}" presence {{ min_count: 1 }} }}' for i in range(5)))
    with pytest.raises(UserError, match=r"8 anomalies: f0: .*; f1: .*; f2: Column missing and 5 more\."):
        run()(given_schema=path)


def test_anomalies_are_only_reported_if_told(run, tmp_path):
    path = schema_file(tmp_path, 'feature { name: "n" type: INT }')
    assert run()(given_schema=path, on_anomaly="report") == Validated(valid=False, anomaly_count=2)


def test_rules_that_are_not_implemented_are_in_the_log_and_the_report_and_no_anomalies(run, tmp_path, capsys):
    path = schema_file(
        tmp_path,
        'feature { name: "n" type: INT } feature { name: "s" type: BYTES url_domain {} } '
        'feature { name: "x" type: FLOAT }',
    )
    validation = run()
    result = validation(given_schema=path)
    assert result.valid
    assert result.warnings == ("feature 's': url_domain is not checked: this rule is not implemented",)
    assert f"warning: validate: {result.warnings[0]}" in capsys.readouterr().err
    page = validation.outputs["report"].read_text()
    assert "1 demand of the schema not checked" in page
    assert "url_domain" in page


def test_drift_from_one_run_to_the_next(run, tmp_path):
    earlier = run({"s": ["a"] * 9 + ["b"]}, "earlier")
    earlier()
    path = schema_file(
        tmp_path, 'feature { name: "s" type: BYTES drift_comparator { infinity_norm { threshold: 0.2 } } }'
    )
    now = run({"s": ["a"] * 5 + ["b"] * 5}, "now")
    result = now(given_schema=path, previous_statistics=earlier.outputs["statistics"], on_anomaly="report")
    assert result == Validated(valid=False, anomaly_count=1)
    [info] = now.anomalies().drift_skew_info
    assert info.drift_measurements[0].value == pytest.approx(0.4)
    assert "Beside the previous data" in now.outputs["report"].read_text()


def test_skew_to_serving(run, tmp_path):
    serving = run({"s": ["b"]}, "serving")
    serving()
    path = schema_file(
        tmp_path, 'feature { name: "s" type: BYTES skew_comparator { jensen_shannon_divergence { threshold: 0.2 } } }'
    )
    now = run({"s": ["a"]}, "now")
    assert now(given_schema=path, serving_statistics=serving.outputs["statistics"], on_anomaly="report") == Validated(
        valid=False, anomaly_count=1
    )


def test_an_environment_of_the_schema(run, tmp_path):
    path = schema_file(
        tmp_path,
        'default_environment: "TRAINING" default_environment: "SERVING" feature { name: "n" type: INT } '
        'feature { name: "label" type: INT presence { min_count: 1 } not_in_environment: "SERVING" }',
    )
    validation = run({"n": [1]})
    assert validation(given_schema=path, environment="SERVING").valid
    assert not validation(given_schema=path, environment="TRAINING", on_anomaly="report").valid
    with pytest.raises(
        UserError, match=r"environment: there is no environment 'TEST'. The schema names SERVING, TRAINING"
    ):
        validation(given_schema=path, environment="TEST")


def test_an_inferred_schema_has_no_environments(run):
    with pytest.raises(UserError, match=r"there is no environment 'SERVING'. The schema names none"):
        run()(environment="SERVING")


def test_no_rows_are_an_anomaly(run):
    validation = run(pa.table({"n": pa.array([], pa.int64()), "s": pa.array([], pa.string())}))
    assert validation(on_anomaly="report") == Validated(valid=False, anomaly_count=1)
    assert validation.anomalies().data_missing
    with pytest.raises(UserError, match=r"1 anomaly: dataset: No examples"):
        validation()


def test_two_schemas_are_one_too_many(run, tmp_path):
    path = schema_file(tmp_path, 'feature { name: "n" }')
    with pytest.raises(UserError, match=r"schema_uri: given_schema is given too. Give one of the two"):
        run()(given_schema=path, schema_uri=str(path))


def test_a_wrong_choice_lists_the_right_ones(run):
    with pytest.raises(UserError, match=r"""on_anomaly: 'ignore' is no choice. Give "fail" or "report"."""):
        run()(on_anomaly="ignore")


def test_a_schema_that_does_not_parse_leaves_nothing_behind(run, tmp_path):
    validation = run()
    with pytest.raises(UserError, match=r"given_schema: .* is no Schema: line 2, column 3"):
        validation(given_schema=schema_file(tmp_path, 'feature {\n  nam: "n"\n}'))
    assert not any(path.exists() for path in validation.outputs.values())


@pytest.mark.parametrize("harm", ["alter", "truncate", "remove"])
def test_an_altered_dataset_is_refused(run, tmp_path, harm):
    validation = run()
    validation.dataset = Path(shutil.copytree(validation.dataset, tmp_path / "copy"))
    part = validation.dataset / "part-00000.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    {
        "alter": lambda: part.write_bytes(content),
        "truncate": lambda: part.write_bytes(content[:-9]),
        "remove": part.unlink,
    }[harm]()
    with pytest.raises(
        UserError, match=r"validate: dataset: .*part-00000.parquet (was altered|was truncated|is missing)"
    ):
        validation()
    assert not any(path.exists() for path in validation.outputs.values())


def test_the_same_rows_give_the_same_bytes(run):
    first, second = run(folder="first"), run(folder="second")
    second.dataset = first.dataset
    first()
    second()
    for name in first.outputs:
        assert first.outputs[name].read_bytes() == second.outputs[name].read_bytes(), name


def test_the_report_escapes_what_the_data_say(run, tmp_path):
    evil = "<script>alert(1)</script>"
    validation = run({evil: ["$x$", evil, "ok"], "$_$": [1, 2, 4]})
    assert validation().valid
    page = validation.outputs["report"].read_text()
    assert evil not in page
    assert "&lt;script&gt;" in page


@pytest.mark.corpus
def test_real_trips_of_one_month_drift_from_another(taxi_months, make_dataset, tmp_path):
    def month(name: str) -> Run:
        table = pyarrow.csv.read_csv(taxi_months / f"yellow_tripdata_{name}.csv")
        return Run(tmp_path / name, make_dataset(table))

    january, may = month("2018-01"), month("2018-05")
    assert january().valid
    result = may(
        given_schema=january.outputs["schema"],
        previous_statistics=january.outputs["statistics"],
        on_anomaly="report",
    )
    assert result.valid, may.anomalies()
    assert "Beside the previous data" in may.outputs["report"].read_text()
