"""Aggregates over windows: what they are by hand, that none looks ahead, and what is refused."""

import math
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from penstock.components._shared.dataset import open_dataset, write_dataset
from penstock.components._shared.errors import UserError
from penstock.components.features.compute import compute

DAY = datetime(2018, 3, 1)
HOUR = timedelta(hours=1)
AGGREGATES = {
    "trips": "count",
    "fares": "sum(fare)",
    "mean_fare": "mean(fare)",
    "least": "min(fare)",
    "most": "max(fare)",
    "tips": "ratio(tip, fare)",
}


def at(hours: float) -> datetime:
    return DAY + timedelta(hours=hours)


def table(rows: list[tuple[str, datetime, float | None, float | None]]) -> pa.Table:
    """Return rows of zone, time, fare, tip."""
    columns = list(zip(*rows, strict=True)) if rows else [[], [], [], []]
    kinds = {"zone": pa.string(), "time": pa.timestamp("us"), "fare": pa.float64(), "tip": pa.float64()}
    return pa.table(
        {name: pa.array(list(values), kind) for (name, kind), values in zip(kinds.items(), columns, strict=True)}
    )


def computed(folder: Path, rows: list[tuple], **arguments) -> dict[tuple[str, datetime], dict]:
    """Return the features of each zone and time, naive UTC."""
    write_dataset(folder / "rows", (given := table(rows)).schema, given.to_batches())
    settings = {"entities": ["zone"], "timestamp": "time", "aggregates": AGGREGATES, "windows": ["1h", "3h"]}
    compute(folder / "rows", folder / "features", **{**settings, **arguments})
    found = pq.read_table(open_dataset(folder / "features", "test", "features").files[0]).to_pylist()
    return {(row["zone"], row.pop("event_timestamp").astimezone(UTC).replace(tzinfo=None)): row for row in found}


def test_a_row_at_the_very_time_is_left_out_and_one_a_microsecond_before_is_in(tmp_path):
    just_before = at(2) - timedelta(microseconds=1)
    rows = [("a", just_before, 10.0, 1.0), ("a", at(2), 30.0, 0.0), ("a", at(5), 1.0, 0.0)]
    found = computed(tmp_path, rows, start="2018-03-01T01:00")
    assert found["a", at(2)]["trips_1h"] == 1
    assert found["a", at(2)]["mean_fare_1h"] == 10
    assert found["a", at(3)]["trips_1h"] == 1
    assert found["a", at(3)]["mean_fare_1h"] == 30
    assert found["a", at(3)]["trips_3h"] == 2
    assert found["a", at(3)]["tips_3h"] == 1 / 40
    assert found["a", at(4)]["trips_1h"] == 0
    assert found["a", at(4)]["mean_fare_1h"] is None
    assert ("a", at(1)) not in found  # nothing had happened


def test_a_last_row_says_that_every_window_over_an_entity_is_empty(tmp_path):
    found = computed(tmp_path, [("a", at(0.5), 8.0, 1.0), ("b", at(9.5), 8.0, 1.0)], start="2018-03-01")
    assert [time for zone, time in found if zone == "a"] == [at(1), at(2), at(3), at(4)]
    assert found["a", at(4)]["trips_3h"] == 0
    assert found["a", at(4)]["most_3h"] is None


def test_by_itself_it_stays_within_what_the_dataset_covers(tmp_path):
    rows = [("a", at(hour + 0.25), 5.0, 1.0) for hour in range(8)]
    found = computed(tmp_path, rows)
    # The window of three hours is full from 3:00 on; of the hour from 7:00 on, more may be to come.
    assert [time for _, time in found] == [at(hour) for hour in range(3, 8)]
    assert {row["trips_3h"] for row in found.values()} == {3}


def test_times_are_in_utc_and_in_microseconds(tmp_path, dataset):
    ten = datetime(2018, 3, 1, 10, 30, tzinfo=UTC)
    rows = pa.table(
        {"zone": ["a", "a"], "time": pa.array([ten, ten + 2 * HOUR], pa.timestamp("us", "America/New_York"))}
    )
    done = compute(
        dataset(rows), tmp_path / "features", entities=["zone"], timestamp="time", aggregates={"n": "count"},
        windows=["1h"],
    )  # fmt: skip
    schema = open_dataset(tmp_path / "features", "test", "features").schema
    assert schema["event_timestamp"] == schema["created"] == "timestamp[us, tz=UTC]"
    assert (done.first, done.last) == (ten + HOUR / 2, ten + 1.5 * HOUR)
    assert done.columns == ("n_1h",)


times = st.integers(0, 12 * 3600).map(lambda seconds: at(seconds / 3600)) | st.integers(0, 12).map(at)
fares = st.integers(-400, 400).map(lambda quarters: quarters / 4)  # sums of them are exact
trips = st.lists(st.tuples(st.sampled_from("ab"), times, st.none() | fares, st.none() | fares), min_size=1, max_size=25)


def expected(rows: list[tuple], zone: str, time: datetime, hours: int) -> dict[str, float | None]:
    """Return the aggregates by their definition."""
    window = [row for row in rows if row[0] == zone and time - hours * HOUR <= row[1] < time]
    values = [row[2] for row in window if row[2] is not None]
    tips = [row[3] for row in window if row[3] is not None]
    fares = sum(values) if values else None
    return {
        "trips": len(window),
        "fares": fares,
        "mean_fare": fares / len(values) if values else None,
        "least": min(values, default=None),
        "most": max(values, default=None),
        "tips": sum(tips) / fares if tips and fares else None,
    }


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trips, trips)
@example([("a", at(3), 1.0, 1.0)], [("a", at(3), 100.0, 1.0), ("a", at(2.999), 50.0, 1.0)])
def test_no_feature_looks_ahead(rows, others):
    with tempfile.TemporaryDirectory() as folder:
        span = {"start": str(DAY), "end": str(at(16))}
        found = computed(Path(folder), rows, **span)
        for (zone, time), row in found.items():
            for hours in (1, 3):
                for name, value in expected(rows, zone, time, hours).items():
                    got = row[f"{name}_{hours}h"]
                    assert got == value or math.isclose(got, value, rel_tol=1e-12), (zone, time, name)
        # Whatever happens from 6:00 on, what is known at 6:00 and before stays as it is.
        cut = at(6)
        past = [row for row in rows if row[1] < cut]
        changed = computed(
            Path(folder), [*past, *((zone, max(time, cut), *rest) for zone, time, *rest in others)], **span
        )
        for row in (*found.values(), *changed.values()):
            del row["created"]
        assert {key: row for key, row in changed.items() if key[1] <= cut} == {
            key: row for key, row in found.items() if key[1] <= cut
        }


def test_the_same_rows_in_another_order_give_the_same_bits(tmp_path):
    rows = [("ab"[n % 2], at(n % 7 / 3), 0.1 * n, 0.01 * n) for n in range(200)]
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = computed(tmp_path / "one", rows, start=str(DAY))
    two = computed(tmp_path / "two", rows[::-1], start=str(DAY))
    for row in (*one.values(), *two.values()):
        del row["created"]
    assert one == two


@pytest.mark.parametrize(
    "fares",
    [
        [0.1] * 10,
        [1e16, 1.0, -1e16, 3.25],
        [1e300, 1e300, -1e300],
        [5e-250, 2.5e-251],
        [0.0, -0.0],
        [math.inf, 1.0],
        [math.nan, 1.0],
        [math.inf, -math.inf],
    ],
    ids=repr,
)
def test_sums_are_exact_whatever_the_order(tmp_path, fares):
    rows = [*(("a", at(0.5), fare, 0.0) for fare in fares), ("b", at(2), None, 0.0)]
    found = computed(tmp_path, rows, start="2018-03-01T01:00")
    expected = math.fsum(fares) if all(map(math.isfinite, fares)) else sum(fares)
    assert found["a", at(1)]["fares_1h"] == pytest.approx(expected, rel=1e-15, abs=0, nan_ok=True)


def test_a_large_value_elsewhere_leaves_small_ones_as_they_are(tmp_path):
    rows = [("a", at(0.5), 1e-9 * n, 0.0) for n in range(100)] + [("b", at(2), 1e9, 0.0)]
    found = computed(tmp_path, rows, start="2018-03-01T01:00")
    assert found["a", at(1)]["fares_1h"] == pytest.approx(math.fsum(1e-9 * n for n in range(100)), rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"entities": []}, ["entities", "zone"]),
        ({"entities": ["zones"]}, ["entities", "zones", "zone, time, fare, tip"]),
        ({"timestamp": "when"}, ["timestamp", "when"]),
        ({"timestamp": "fare"}, ["timestamp", "double", "TIMESTAMPTZ"]),
        ({"aggregates": {}}, ["aggregates", "none"]),
        ({"aggregates": {"x": "median(fare)"}}, ["x: 'median(fare)'", "mean(x)"]),
        ({"aggregates": {"x": "mean(fee)"}}, ["no column 'fee'", "fare"]),
        ({"aggregates": {"x": "mean(zone)"}}, ["aggregates", "Could not convert string"]),
        ({"aggregates": {"x y": "count"}}, ["x y"]),
        ({"windows": []}, ["windows", "none"]),
        ({"windows": ["90m"]}, ["90m", "no multiple of the step 1h"]),
        ({"windows": ["1 hour"]}, ["'1 hour' is no length of time", "24h"]),
        ({"windows": ["365d"], "step": "1m"}, ["525,600 steps", "2,000"]),
        ({"start": "yesterday"}, ["start", "yesterday", "ISO 8601"]),
        ({"start": "2018-04-01"}, ["start", "2018-03-01 00:00:00 to 2018-03-01 05:00:00", "2018-04-01"]),
        ({"windows": ["24h"]}, ["windows", "shorter windows"]),
        ({"aggregates": {"zone": "count"}, "entities": ["zone"]}, ["zone is the name of another column"]),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_what_cannot_be_computed_is_refused_in_one_line(tmp_path, arguments, words):
    with pytest.raises(UserError) as raised:
        computed(tmp_path, [("a", at(0.5), 1.0, 1.0), ("b", at(5.5), 2.0, 1.0)], **arguments)
    assert all(word in str(raised.value) for word in words), raised.value
    assert not (tmp_path / "features").exists()


def test_rows_without_an_entity_or_a_time_are_counted_and_refused(tmp_path):
    with pytest.raises(UserError, match=r"entities: zone is null in 2 rows\. .*WHERE zone IS NOT NULL"):
        computed(tmp_path, [(None, at(0), 1.0, 1.0), (None, at(1), 1.0, 1.0), ("a", at(4), 1.0, 1.0)])
    with pytest.raises(UserError, match="timestamp: time is null in 1 rows"):
        computed(tmp_path, [("a", None, 1.0, 1.0), ("a", at(4), 1.0, 1.0)])
    with pytest.raises(UserError, match="dataset: it has no rows"):
        computed(tmp_path, [])
