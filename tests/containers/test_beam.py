"""Our statistics, schemas and anomalies held to TensorFlow Data Validation's, in the image that has it."""

import dataclasses
import datetime
import decimal
import json
import math
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0.anomalies_pb2 import Anomalies, AnomalyInfo
from tensorflow_metadata.proto.v0.schema_pb2 import Schema
from tensorflow_metadata.proto.v0.statistics_pb2 import (
    DatasetFeatureStatistics,
    DatasetFeatureStatisticsList,
    FeatureNameStatistics,
    Histogram,
)

from penstock.components.ingestion.ingest import ingest
from penstock.components.validation import views
from penstock.components.validation.anomalies import Baselines, find
from penstock.components.validation.inference import infer
from tests.components.conftest import make_dataset  # noqa: F401  a fixture
from tests.containers.conftest import ROOT

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1800)]

EPSILON = 0.01  # TFDV's default tolerance of ranks


@dataclasses.dataclass(frozen=True)
class Case:
    """What came of a dataset in the image."""

    local: DatasetFeatureStatistics
    beam: DatasetFeatureStatistics
    previous: DatasetFeatureStatistics | None
    inferred: Schema
    schemas: dict[str, Schema]
    anomalies: dict[str, Anomalies]


def in_image(image: str, cases: Path, output: Path, script: str = "beam_parity.py") -> None:
    """Run a script beside this file in the image, which may write the output alone."""
    output.mkdir(mode=0o777)
    command = ["docker", "run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp:exec", "--cap-drop", "ALL"]
    command += ["--user", f"{os.getuid()}:{os.getgid()}", "--env", "_KFP_RUNTIME=true"]  # as where a task runs
    command += ["-v", f"{cases}:/cases:ro", "-v", f"{output}:/output", "-v", f"{ROOT}/tests/containers:/tests:ro"]
    command += [image, "python3", f"/tests/{script}", "/cases", "/output"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]


def load(folder: Path, case: Path) -> Case:
    def statistics(name: str) -> DatasetFeatureStatistics:
        return DatasetFeatureStatisticsList.FromString((folder / name).read_bytes()).datasets[0]

    def text(path: Path, message):
        return text_format.Parse(path.read_text(), message)

    schemas = {path.stem: text(path, Schema()) for path in (case / "schemas").glob("*.pbtxt")}
    return Case(
        local=statistics("local.pb"),
        beam=statistics("beam.pb"),
        previous=statistics("previous.pb") if (folder / "previous.pb").exists() else None,
        inferred=text(folder / "inferred.pbtxt", Schema()),
        schemas=schemas,
        anomalies={name: text(folder / f"{name}.anomalies.pbtxt", Anomalies()) for name in schemas},
    )


EDGES: dict[str, pa.Array] = {
    "whole": pa.array([*range(-50, 49), None]),
    "constant": pa.array([7] * 100),
    "number": pa.array([*np.linspace(-3, 1e6, 99), None]),
    "single": pa.array(np.linspace(0, 1, 100, dtype=np.float32)),
    "nan": pa.array([math.nan, math.nan, *np.arange(98.0)], pa.float64()),
    "infinite": pa.array([math.inf, -math.inf, math.inf, *np.arange(97.0)], pa.float64()),
    "only_nan": pa.array([math.nan] * 100, pa.float64()),
    "nothing": pa.nulls(100, pa.float64()),
    "nothing_text": pa.nulls(100, pa.string()),
    "large": pa.array([2**53 + 1, *range(99)]),
    "unsigned": pa.array(range(100), pa.uint16()),
    "zeros": pa.array([0] * 60 + [1] * 40),
    "flag": pa.array([True, False, None, True] * 25),
    "day": pa.array([datetime.date(2018, 1, 1) + datetime.timedelta(days=i) for i in range(100)]),
    "moment": pa.array([datetime.datetime(2018, 1, 1) + datetime.timedelta(seconds=i) for i in range(100)]),
    "price": pa.array([decimal.Decimal(f"{i}.25") for i in range(100)]),
    "word": pa.array([*["a"] * 50, *["bé"] * 30, *["", "z", "日本"] * 6, None, None]),
    "unique_word": pa.array([f"w{i:03d}" for i in range(100)]),
    "numeric_word": pa.array([str(i % 7) for i in range(100)]),
    "bytes": pa.array([b"ok", b"\xff\xfe"] * 50),
    "numbers": pa.array([[1, 2, 3], [], None, [4]] * 25, pa.list_(pa.int64())),
    "words": pa.array([["a", "b"], ["a"], None, []] * 25, pa.list_(pa.string())),
    "code": pa.array([1, 2, 2, 3, 3, 3, 9, 9, 9, 9] * 10),
}
CATEGORICAL = 'feature { name: "code" type: INT int_domain { is_categorical: true } }'
# What breaks one demand each, or keeps it.
DEMANDS = {
    "type": 'feature { name: "whole" type: BYTES }',
    "range": 'feature { name: "whole" type: INT int_domain { min: 0 max: 10 } }',
    "float_range": 'feature { name: "number" type: FLOAT float_domain { min: 0 max: 5 } }',
    "nan": 'feature { name: "nan" type: FLOAT float_domain { disallow_nan: true } }',
    "infinite": 'feature { name: "infinite" type: FLOAT float_domain { disallow_inf: true } }',
    "presence": 'feature { name: "whole" type: INT presence { min_fraction: 1.0 } }',
    "count": 'feature { name: "whole" type: INT presence { min_count: 1000 } }',
    "length": 'feature { name: "numbers" type: INT value_count { min: 2 max: 2 } }',
    "shape": 'feature { name: "whole" type: INT shape { dim { size: 1 } } }',
    "domain": 'feature { name: "word" type: BYTES string_domain { name: "words" value: "a" value: "z" } }',
    "mass": 'feature { name: "word" type: BYTES string_domain { name: "w" value: "a" } '
    "distribution_constraints { min_domain_mass: 0.4 } }",
    "bool": 'feature { name: "flag" type: INT bool_domain {} }',
    "bool_broken": 'feature { name: "whole" type: INT bool_domain {} }',
    "unique": 'feature { name: "unique_word" type: BYTES unique_constraints { min: 1 max: 10 } }',
    "gone": 'feature { name: "absent" type: INT presence { min_fraction: 1.0 min_count: 1 } }',
    "few": "dataset_constraints { min_examples_count: 101 }",
    "kept": 'feature { name: "zeros" type: INT int_domain { min: 0 max: 1 } presence { min_fraction: 1.0 } }',
    "drift": 'feature { name: "word" type: BYTES drift_comparator { infinity_norm { threshold: 0.01 } } }',
    "drift_js": 'feature { name: "number" type: FLOAT '
    "drift_comparator { jensen_shannon_divergence { threshold: 0.01 } } }",
}


@pytest.fixture(scope="module")
def cases(built, make_dataset, tmp_path_factory) -> dict[str, Case]:  # noqa: F811
    """All cases, run in one container."""
    folder = tmp_path_factory.mktemp("parity")
    inputs = folder / "cases"
    edges = inputs / "edges"
    edges.mkdir(parents=True)
    shutil.copytree(make_dataset(EDGES), edges / "dataset")
    moved = {**EDGES, "word": EDGES["word"].take(list(range(49, -1, -1)) * 2), "number": pa.array(np.arange(100.0))}
    shutil.copytree(make_dataset(moved), edges / "previous")
    (edges / "schema.pbtxt").write_text(CATEGORICAL)
    write_schemas(edges, DEMANDS)
    many = inputs / "many"
    many.mkdir()
    rows = np.random.default_rng(0).lognormal(3, 1, 300_000)
    table = {"amount": rows, "word": [f"w{int(x)}" for x in rows], "whole": rows.astype(np.int64)}
    shutil.copytree(make_dataset(table), many / "dataset")
    write_schemas(many, {"none": 'feature { name: "amount" type: FLOAT }'})
    if trips := real_trips():
        for month, (data, previous) in trips.items():
            place = inputs / month
            place.mkdir()
            for name, source in (("dataset", data), ("previous", previous)):
                ingest(str(source), place / name, place / "e", place / "r", eval_fraction=0.0)
            write_schemas(place, TRIPS)
            shutil.rmtree(place / "e")
            shutil.rmtree(place / "r")
    in_image(built("beam").name, inputs, folder / "output")
    return {case.name: load(folder / "output" / case.name, case) for case in inputs.iterdir()}


TRIPS = {
    "plain": 'feature { name: "trip_distance" type: FLOAT float_domain { min: 0 max: 30 } '
    "drift_comparator { jensen_shannon_divergence { threshold: 0.001 } } } "
    'feature { name: "payment_type" type: INT int_domain { min: 1 max: 2 } } '
    'feature { name: "store_and_fwd_flag" type: BYTES string_domain { name: "f" value: "N" } '
    "drift_comparator { infinity_norm { threshold: 0.0001 } } }",
}


def real_trips() -> dict[str, tuple[Path, Path]]:
    shared = Path(os.environ.get("PENSTOCK_SHARED", ROOT.parent / "shared"), "data", "taxi")
    months = sorted(shared.glob("*.csv"))
    return {"trips": (months[1], months[0])} if len(months) > 1 else {}


def write_schemas(case: Path, demands: dict[str, str]) -> None:
    (case / "schemas").mkdir()
    for name, text in demands.items():
        (case / "schemas" / f"{name}.pbtxt").write_text(text)


def numbers_of(stats: FeatureNameStatistics) -> dict[str, float]:
    """Return the statistics of a feature that both engines compute exactly."""
    kind = stats.WhichOneof("stats")
    if kind is None:
        return {"type": stats.type}
    facts, common = getattr(stats, kind), views.common(stats)
    found = {name: getattr(common, name) for name in COMMON} | {"type": stats.type}
    if kind == "num_stats":
        found |= {name: getattr(facts, name) for name in ("mean", "std_dev", "num_zeros", "min", "max")}
        found["num_nan"] = views.nans(stats)
    else:
        found |= {name: getattr(facts, name) for name in ("unique", "avg_length", "invalid_utf8_count")}
    return found


COMMON = ("num_non_missing", "num_missing", "min_num_values", "max_num_values", "avg_num_values", "tot_num_values")
# docs/beam.md says why: (feature, statistic).
DIFFERENT = {("edges.infinite", "std_dev")}


# Numbers that are counted by value, for which TFDV infers a domain of strings; a schema said so, and none is inferred.
COUNTED_NUMBERS = {"code"}


def pairs(cases: dict[str, Case]) -> Iterator[tuple[str, FeatureNameStatistics, FeatureNameStatistics]]:
    for name, case in cases.items():
        assert case.local.num_examples == case.beam.num_examples
        theirs = views.features(case.beam)
        ours = views.features(case.local)
        assert list(theirs) == list(ours), name
        for feature, stats in ours.items():
            yield f"{name}.{feature}", stats, theirs[feature]


def test_exact_statistics_are_equal(cases):
    differing = []
    for place, ours, theirs in pairs(cases):
        expected, found = numbers_of(theirs), numbers_of(ours)
        for statistic in expected.keys() | found.keys():
            a, b = found[statistic], expected[statistic]
            if not (math.isclose(a, b, rel_tol=1e-6) or (math.isnan(a) and math.isnan(b))):
                differing.append((place, statistic, a, b))
    assert {each[:2] for each in differing} == DIFFERENT, differing


def test_frequencies_of_values_are_equal_down_to_the_last_that_is_listed(cases):
    differing = []
    for place, ours, theirs in pairs(cases):
        if ours.HasField("string_stats") and ours.string_stats.unique <= 1000:
            tops = [[(v.value, v.frequency) for v in s.string_stats.top_values] for s in (ours, theirs)]
            if tops[0] != tops[1] or views.frequencies(ours) != views.frequencies(theirs):
                differing.append((place, tops))
    assert differing == []


def ranks(histogram: Histogram, at: float) -> tuple[float, float]:
    """Return how many values are below a point at least and at most, of equally full buckets."""
    low = sum(b.sample_count for b in histogram.buckets if b.high_value < at)
    return low, low + sum(b.sample_count for b in histogram.buckets if b.low_value <= at <= b.high_value)


def test_medians_and_deciles_are_within_the_tolerance_of_both(cases):
    differing = []
    for place, ours, theirs in pairs(cases):
        if not ours.HasField("num_stats") or not theirs.num_stats.histograms:
            continue
        total = views.total(ours) - views.nans(ours)
        mine, other = (views.histogram(stats, Histogram.QUANTILES) for stats in (ours, theirs))
        if mine is None or not mine.buckets:
            continue
        # TFDV's tolerance, ours where it samples, and a row where ranks fall between two.
        slack = (EPSILON + (0.0034 if total > 200_000 else 0)) * total + 1
        running = 0.0
        for bucket in other.buckets[:-1]:
            running += total / len(other.buckets)
            low, high = ranks(mine, bucket.high_value)
            if not low - slack <= running <= high + slack:
                differing.append((place, bucket.high_value, running, low, high))
        low, high = ranks(mine, theirs.num_stats.median)
        if not low - slack <= total / 2 <= high + slack:
            differing.append((place, "median", theirs.num_stats.median, low, high))
    assert differing == []


def test_equally_wide_buckets_have_the_same_edges_and_counts_within_tfdv_s_estimate(cases):
    differing = []
    for place, ours, theirs in pairs(cases):
        mine, other = views.histogram(ours), views.histogram(theirs)
        if mine is None or other is None or place.endswith(".infinite"):
            continue
        total = sum(bucket.sample_count for bucket in mine.buckets)
        mine_edges, other_edges = ([b.high_value for b in h.buckets] for h in (mine, other))
        if len(mine_edges) != len(other_edges) or not np.allclose(mine_edges, other_edges):
            differing.append((place, mine_edges, other_edges))
            continue
        ours_below, theirs_below = (np.cumsum([b.sample_count for b in h.buckets]) for h in (mine, other))
        # A value on an edge is above it here, and on both sides of it in an estimate.
        slack = 2 * EPSILON * total + 2
        for edge, here, there, next_one in zip(
            mine_edges[:-1], ours_below[:-1], theirs_below[:-1], ours_below[1:], strict=True
        ):
            if not here - slack <= there <= next_one + slack:
                differing.append((place, edge, here, there, next_one))
    assert differing == []


def test_schemas_are_inferred_alike(cases):
    differing = []
    for name, case in cases.items():
        ours, theirs = infer(case.local), case.inferred
        for mine, other in zip(ours.feature, theirs.feature, strict=True):
            if mine != other and mine.name not in COUNTED_NUMBERS:
                differing.append((name, text_format.MessageToString(mine), text_format.MessageToString(other)))
    assert differing == []


def kinds(anomalies: Anomalies) -> dict[str, list[str]]:
    infos = dict(anomalies.anomaly_info.items())
    if anomalies.HasField("dataset_anomaly_info"):
        infos[""] = anomalies.dataset_anomaly_info
    return {name: sorted(AnomalyInfo.Type.Name(r.type) for r in info.reason) for name, info in infos.items()}


def test_anomalies_are_the_same_feature_by_feature_and_kind_by_kind(cases):
    differing = []
    for name, case in cases.items():
        for demand, schema in case.schemas.items():
            ours = kinds(find(case.local, schema, "", Baselines(case.previous)).anomalies)
            theirs = kinds(case.anomalies[demand])
            if ours != theirs:
                keys = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
                differing.append((name, demand, {key: (ours.get(key), theirs.get(key)) for key in keys}))
    assert differing == []


@pytest.fixture(scope="module")
def tried(built, make_dataset, tmp_path_factory) -> tuple[Path, dict]:  # noqa: F811
    folder = tmp_path_factory.mktemp("options")
    cases = folder / "cases"
    cases.mkdir()
    some = np.random.default_rng(0)
    rows = pa.table({"x": some.normal(0, 1, 5000), "word": some.choice(["a", "b"], 5000)})
    shutil.copytree(make_dataset(rows), cases / "dataset")
    in_image(built("beam").name, cases, folder / "output", "beam_options.py")
    return folder / "output", json.loads((folder / "output" / "found.json").read_text())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("misspelled", "beam_options: Beam knows no option 'direct_num_wokers'. Did you mean direct_num_workers?"),
        ("unknown", "beam_options: Beam knows no option 'colour'. See the runner's page in Beam's documentation."),
        ("no_number", "beam_options: argument --direct_num_workers: invalid int value: 'many'. Give what Beam expects"),
        ("no_choice", "beam_options: argument --direct_running_mode: invalid choice: 'slowly'"),
    ],
)
def test_options_that_beam_cannot_read_are_refused_in_one_line(tried, name, words):
    assert words in tried[1][name]
    assert "\n" not in tried[1][name]


def test_two_processes_give_the_statistics_of_one(tried):
    one, two = (DatasetFeatureStatisticsList.FromString((tried[0] / f"{name}.pb").read_bytes()).datasets[0]
                for name in ("one", "processes"))  # fmt: skip
    for feature, stats in views.features(one).items():
        assert numbers_of(stats) == pytest.approx(numbers_of(views.features(two)[feature]))


def test_a_step_that_is_told_to_end_ends_its_pipeline_and_itself(tried):
    assert tried[1]["ended"] == [143, True]
