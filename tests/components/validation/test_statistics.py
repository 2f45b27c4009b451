"""Statistics against numbers worked out by hand, and against NumPy."""

import datetime
import decimal
import math

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0.statistics_pb2 import FeatureNameStatistics, Histogram

from penstock.components._shared import rows
from penstock.components._shared.dataset import KIND, open_dataset
from penstock.components._shared.errors import UserError
from penstock.components._shared.sealed import new_folder, seal
from penstock.components.validation import numeric, scan, views
from penstock.components.validation.statistics import describe


def one(statistics) -> FeatureNameStatistics:
    return statistics.features[0]


def test_integers_by_hand(statistics_of):
    stats = one(statistics_of({"n": [0, 4, 4, None, 2]}))
    assert list(stats.path.step) == ["n"]
    assert stats.type == FeatureNameStatistics.INT
    numbers, common = stats.num_stats, stats.num_stats.common_stats
    assert (common.num_non_missing, common.num_missing, common.tot_num_values) == (4, 1, 4)
    assert (common.min_num_values, common.max_num_values, common.avg_num_values) == (1, 1, 1)
    assert (numbers.mean, numbers.min, numbers.median, numbers.max, numbers.num_zeros) == (2.5, 0, 3, 4, 1)
    assert numbers.std_dev == pytest.approx(math.sqrt((6.25 + 2.25 + 2.25 + 0.25) / 4))
    standard = views.histogram(stats)
    assert [bucket.sample_count for bucket in standard.buckets] == [1, 0, 0, 0, 0, 1, 0, 0, 0, 2]
    assert (standard.buckets[0].low_value, standard.buckets[-1].high_value) == (0, 4)


def test_quantile_buckets_that_end_at_one_value_share_it(statistics_of):
    stats = one(statistics_of({"n": [0] * 50 + list(range(1, 51))}))
    buckets = views.histogram(stats, Histogram.QUANTILES).buckets
    assert [(b.low_value, b.high_value, b.sample_count) for b in buckets] == [
        *[(0, 0, 10)] * 5,
        (0, 10, 10),
        (10, 20, 10),
        (20, 30, 10),
        (30, 40, 10),
        (40, 50, 10),
    ]


def test_lengths_of_scalars_are_one_in_ten_even_buckets(statistics_of):
    stats = one(statistics_of({"n": [7] * 20}))
    lengths = stats.num_stats.common_stats.num_values_histogram
    assert lengths.type == Histogram.QUANTILES
    assert [(b.low_value, b.high_value, b.sample_count) for b in lengths.buckets] == [(1, 1, 2)] * 10


def test_nan_is_counted_and_left_out_and_infinities_have_buckets_of_their_own(statistics_of):
    stats = one(statistics_of({"x": [math.nan, -math.inf, 1.0, 3.0, math.inf, math.inf, None]}))
    numbers = stats.num_stats
    assert numbers.common_stats.num_non_missing == 6
    assert views.nans(stats) == 1
    assert (numbers.min, numbers.max, numbers.median) == (-math.inf, math.inf, 3)
    assert math.isnan(numbers.mean)
    assert math.isnan(numbers.std_dev)
    buckets = [(b.low_value, b.high_value, b.sample_count) for b in views.histogram(stats).buckets]
    assert buckets[0] == (-math.inf, -math.inf, 1)
    assert buckets[-1] == (math.inf, math.inf, 2)
    assert sum(count for *_, count in buckets) == 5
    assert (buckets[1][0], buckets[-2][1]) == (1, 3)


def test_nothing_but_nan_and_nothing_at_all(statistics_of):
    nan, null = statistics_of({"nan": [math.nan] * 3, "null": pa.nulls(3, pa.float64())}).features
    assert views.nans(nan) == 3
    assert not views.histogram(nan).buckets
    assert null.num_stats.common_stats.num_missing == 3
    assert not null.num_stats.histograms


def test_large_numbers_overflow_nothing(statistics_of):
    numbers = one(statistics_of({"x": [1e300, -1e300, 1e300]})).num_stats
    assert numbers.mean == pytest.approx(1e300 / 3)
    assert numbers.std_dev == pytest.approx(1e300 * math.sqrt(8 / 9))
    widest = one(statistics_of({"x": [-1.7e308, 1.7e308]}))
    assert [b.sample_count for b in views.histogram(widest).buckets] == [1, *[0] * 8, 1]


def test_strings_by_hand(statistics_of):
    strings = one(statistics_of({"s": ["b", "a", "b", None, "é", ""]})).string_stats
    assert (strings.unique, strings.common_stats.num_missing) == (4, 1)
    assert strings.avg_length == pytest.approx((1 + 1 + 1 + 2 + 0) / 5)
    assert [(top.value, top.frequency) for top in strings.top_values] == [("b", 2), ("é", 1), ("a", 1), ("", 1)]
    ranks = [(b.low_rank, b.high_rank, b.label, b.sample_count) for b in strings.rank_histogram.buckets]
    assert ranks == [(0, 0, "b", 2), (1, 1, "é", 1), (2, 2, "a", 1), (3, 3, "", 1)]


def test_top_values_are_twenty_and_ranks_a_thousand(statistics_of):
    strings = one(statistics_of({"s": [f"{i:05d}" for i in range(1500)] + ["01499"]})).string_stats
    assert (strings.unique, len(strings.top_values), len(strings.rank_histogram.buckets)) == (1500, 20, 1000)
    assert (strings.top_values[0].value, strings.top_values[0].frequency) == ("01499", 2)
    assert strings.top_values[1].value == "01498"


def test_bytes_that_are_no_text_are_counted(statistics_of):
    strings = one(statistics_of({"s": pa.array([b"a", b"\xff", b"\xfe", b"a"], pa.binary())})).string_stats
    assert strings.invalid_utf8_count == 2
    assert [top.value for top in strings.top_values] == ["a", "__BYTES_VALUE__", "__BYTES_VALUE__"]


def test_lists_are_described_by_their_values_and_lengths(statistics_of):
    stats = one(statistics_of({"l": [[1, 2, 6], [], None, [3]]}))
    common = stats.num_stats.common_stats
    assert (common.num_non_missing, common.num_missing, common.tot_num_values) == (3, 1, 4)
    assert (common.min_num_values, common.max_num_values) == (0, 3)
    assert common.avg_num_values == pytest.approx(4 / 3)
    assert (stats.num_stats.mean, stats.num_stats.max) == (3, 6)
    strings = one(statistics_of({"l": [["x", "y"], ["x"]]}))
    assert views.frequencies(strings) == {"x": 2, "y": 1}


def test_what_each_type_is_described_as(statistics_of):
    noon = datetime.datetime(1970, 1, 2, 12)
    described = statistics_of(
        pa.table(
            {
                "bool": [True, False],
                "small": pa.array([1, 2], pa.int8()),
                "float": pa.array([0.5, 1.5], pa.float32()),
                "decimal": [decimal.Decimal("1.50"), decimal.Decimal("2.50")],
                "time": pa.array([noon, noon], pa.timestamp("us")),
                "zoned": pa.array([noon, noon], pa.timestamp("us", "UTC")),
                "date": [noon.date(), noon.date()],
                "words": pa.array(["a", "b"]).dictionary_encode(),
            }
        )
    )
    kinds = {views.name(stats): FeatureNameStatistics.Type.Name(stats.type) for stats in described.features}
    assert kinds == {
        "bool": "INT",
        "small": "INT",
        "float": "FLOAT",
        "decimal": "FLOAT",
        "time": "INT",
        "zoned": "INT",
        "date": "INT",
        "words": "STRING",
    }
    means = {name: stats.num_stats.mean for name, stats in views.features(described).items()}
    assert (means["bool"], means["decimal"], means["date"]) == (0.5, 2, 1)
    assert means["time"] == means["zoned"] == 36 * 3600 * 1e6


def test_times_are_text_where_the_schema_says_bytes(statistics_of):
    schema = 'feature { name: "t" type: BYTES } feature { name: "n" type: BYTES }'
    times, numbers = statistics_of({"t": [datetime.datetime(2020, 1, 2, 3, 4, 5)], "n": [1]}, schema).features
    assert views.frequencies(times) == {"2020-01-02 03:04:05": 1}
    assert numbers.type == FeatureNameStatistics.INT  # a number is none: that would hide a wrong type


@pytest.mark.parametrize("domain", ["int_domain { is_categorical: true }", "bool_domain {}"])
def test_categorical_integers_are_counted_by_value(statistics_of, domain):
    stats = one(statistics_of({"n": [1, 0, 1]}, f'feature {{ name: "n" type: INT {domain} }}'))
    assert stats.type == FeatureNameStatistics.INT
    assert (stats.string_stats.unique, stats.string_stats.avg_length) == (2, 1)
    assert views.frequencies(stats) == {"1": 2, "0": 1}


def test_frequencies_of_zeros_and_ones_follow_from_their_moments(statistics_of):
    features = views.features(statistics_of({"bit": [1, 0, 1], "ones": [1, 1, 1], "two": [1, 0, 2]}))
    assert views.frequencies(features["bit"]) == {"0": 1, "1": 2}
    assert views.frequencies(features["ones"]) == {"1": 3}
    assert views.frequencies(features["two"]) == {}


@pytest.mark.parametrize("name", ['we"ird', "file", "row", "file_row_number", "c1", "value", "ü"])
def test_any_column_name_will_do(statistics_of, name):
    described = statistics_of({name: [1, 3], "words": ["a", "b"]})
    assert [views.name(stats) for stats in described.features] == [name, "words"]
    assert described.features[0].num_stats.mean == 2


@pytest.mark.parametrize("column", [[{"a": 1}], [[[1]]]], ids=["struct", "list of lists"])
def test_a_column_that_cannot_be_described_is_named(statistics_of, column):
    with pytest.raises(UserError, match=r"dataset: column 'odd' is of type .*\. Leave it out or take it apart"):
        statistics_of({"odd": column})


def test_no_rows(statistics_of):
    described = statistics_of(pa.table({"n": pa.array([], pa.int64()), "s": pa.array([], pa.string())}))
    assert described.num_examples == 0
    assert [views.common(stats).num_non_missing for stats in described.features] == [0, 0]


FLOATS = st.one_of(st.none(), st.floats(-1e6, 1e6), st.sampled_from([0.0, -0.0, math.nan, 1e-300]))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(values=st.lists(FLOATS, min_size=1, max_size=60))
def test_numbers_are_what_numpy_says(statistics_of, values):
    stats = one(statistics_of(pa.table({"x": pa.array(values, pa.float64())})))
    numbers = stats.num_stats
    held = np.array([value for value in values if value is not None and not math.isnan(value)])
    assert views.nans(stats) == sum(value is not None and math.isnan(value) for value in values)
    if not held.size:
        return
    assert numbers.mean == pytest.approx(held.mean(), rel=1e-12, abs=1e-9)
    assert numbers.std_dev == pytest.approx(held.std(), rel=1e-9, abs=1e-8)
    assert (numbers.min, numbers.max, numbers.num_zeros) == (held.min(), held.max(), (held == 0).sum())
    assert numbers.median == pytest.approx(np.median(held), rel=1e-12)
    buckets = views.histogram(stats).buckets
    edges = [bucket.low_value for bucket in buckets] + [buckets[-1].high_value]
    counts, _ = np.histogram(held, edges) if len(set(edges)) > 1 else ([held.size], None)
    assert [bucket.sample_count for bucket in buckets] == list(counts)
    deciles = views.histogram(stats, Histogram.QUANTILES).buckets
    assert sum(bucket.sample_count for bucket in deciles) == pytest.approx(held.size)
    inner = [bucket.high_value for bucket in deciles[:-1]]
    assert inner == [np.sort(held)[-(-i * held.size // 10) - 1] for i in range(1, 10)]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(values=st.lists(st.one_of(st.none(), st.text("ab0é\n\"'", max_size=3)), min_size=1, max_size=40))
def test_strings_are_counted_as_python_counts_them(statistics_of, values):
    stats = one(statistics_of(pa.table({"s": pa.array(values, pa.string())})))
    held = [value for value in values if value is not None]
    assert views.frequencies(stats) == {value: held.count(value) for value in held}
    assert stats.string_stats.unique == len(set(held))


def many_rows(folder, rows=20_000, parts=3):
    with new_folder(folder):
        for part in range(parts):
            low, high = rows * part // parts, rows * (part + 1) // parts
            duckdb.sql(
                f"SELECT sin(i * 12.9898) * 43758.5453 AS x, i % 1000 AS n, 'v' || (i * 7919 % 5000) AS s "
                f"FROM range({low}, {high}) t(i)"
            ).write_parquet(str(folder / f"part-{part:05d}.parquet"), row_group_size=2048)
        schema = [{"name": "x", "type": "double"}, {"name": "n", "type": "int64"}, {"name": "s", "type": "string"}]
        seal(folder, KIND, {"rows": rows, "schema": schema, "fingerprint": "f"})
    return open_dataset(folder, "test", "dataset")


def test_results_are_the_same_whatever_the_threads_and_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(numeric, "SAMPLE_ROWS", 1000)
    bare = duckdb.connect
    found = set()
    for threads in (1, 2, 5):
        monkeypatch.setattr(rows.duckdb, "connect", lambda n=threads: bare(config={"threads": n}))
        found |= {describe(many_rows(tmp_path / str(threads))).SerializeToString(deterministic=True) for _ in range(3)}
    assert len(found) == 1


def test_cut_points_of_a_sample_are_near_and_their_counts_exact(tmp_path, monkeypatch):
    data = many_rows(tmp_path / "data")
    exact = views.features(describe(data).datasets[0])["n"]
    monkeypatch.setattr(numeric, "SAMPLE_ROWS", 2000)
    sampled = views.features(describe(data).datasets[0])["n"]
    assert views.histogram(sampled) == views.histogram(exact)
    assert sampled.num_stats.mean == exact.num_stats.mean
    # Of 2000 rows, three standard errors of the median's rank are 3.4 %: 34 of the values 0 … 999.
    assert abs(sampled.num_stats.median - exact.num_stats.median) < 34
    values = np.concatenate([pq.read_table(file)["n"].to_numpy() for file in data.files])
    running = np.cumsum([bucket.sample_count for bucket in views.histogram(sampled, Histogram.QUANTILES).buckets])
    points = [bucket.high_value for bucket in views.histogram(sampled, Histogram.QUANTILES).buckets]
    assert list(running) == [(values <= point).sum() for point in points]


def test_many_distinct_values_are_counted_in_passes_exactly(tmp_path, monkeypatch):
    data = many_rows(tmp_path / "data")
    whole = views.features(describe(data).datasets[0])["s"]
    assert whole.string_stats.unique == 5000
    monkeypatch.setattr(scan, "_FREQUENCY_BYTES", 50_000)
    assert views.features(describe(data).datasets[0])["s"] == whole
