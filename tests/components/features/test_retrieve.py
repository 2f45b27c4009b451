"""Training sets: what was known at each row's time, no later and no older, and what is refused."""

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.components._shared.dataset import open_dataset
from penstock.components._shared.errors import UserError
from penstock.components.features.retrieve import retrieve
from penstock.components.features.sync import sync
from tests.components.features.conftest import DEFINITIONS, HOUR, NOON, ROWS, entities, features

MOMENT = timedelta(microseconds=1)


@pytest.fixture
def synced(repo, dataset):
    sync(dataset(features(ROWS), "features"), str(repo))
    return repo


def rows(folder) -> list[dict]:
    return [row for file in open_dataset(folder, "test", "dataset").files for row in pq.read_table(file).to_pylist()]


def retrieved(repo, dataset, tmp_path, table: pa.Table, **arguments):
    asked = {"service": "shops", "timestamp": "time", **arguments}
    return retrieve(dataset(table, "entities"), tmp_path / "joined", str(repo), **asked)


def test_every_row_has_what_was_known_at_its_time_and_rows_keep_their_order(synced, dataset, tmp_path):
    asked = [
        ("b", NOON),
        ("a", NOON - MOMENT),  # the row of noon is not known yet
        ("a", NOON),  # and now it is; its price is null
        ("zzz", NOON),
        ("a", NOON - 3 * HOUR),  # before everything
        ("b", NOON + HOUR),  # as old as the TTL of counts: 2 hours
        ("b", NOON + HOUR + MOMENT),  # older
        ("b", NOON),
    ]
    done = retrieved(synced, dataset, tmp_path, entities(asked))
    assert [(row["shop"], row["time"]) for row in rows(tmp_path / "joined")] == asked
    assert [(row["sold"], row["price"]) for row in rows(tmp_path / "joined")] == [
        (10, 0.1), (2, 2.5), (3, None), (None, None), (None, None), (10, 0.1), (None, 0.1), (10, 0.1),
    ]  # fmt: skip
    assert [row["hour"] for row in rows(tmp_path / "joined")] == [12, 11, 12, 12, 9, 13, 13, 12]
    assert (done.rows, done.missing, done.incomplete) == (8, {"sold": 3, "price": 3, "hour": 0}, 4)


def test_rows_that_do_not_fit_on_the_disk_twice_are_refused_before(synced, dataset, tmp_path, small_disk, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    many = entities([("b", NOON)] * 150_000).append_column("noise", pa.array(np.random.default_rng(0).random(150_000)))
    retrieved(synced, dataset, tmp_path, many.slice(0, 40_000))
    given = {"service": "shops", "timestamp": "time"}
    with pytest.raises(UserError, match="retrieve_features: entities: the rows, written twice, take at least 1 MB in "):
        retrieve(dataset(many, "entities"), small_disk / "joined", str(synced), **given)
    assert not (small_disk / "joined").exists()


def test_a_row_that_was_corrected_later_counts_as_it_was_corrected(synced, dataset, tmp_path):
    corrected = [*ROWS[:3], ("b", NOON - HOUR, 12, 0.1)]
    sync(dataset(features(corrected, created=NOON + HOUR), "features"), str(synced))
    retrieved(synced, dataset, tmp_path, entities([("b", NOON)]))
    assert rows(tmp_path / "joined")[0]["sold"] == 12


def test_times_without_a_time_zone_are_in_utc(synced, dataset, tmp_path):
    naive = pa.table({"shop": ["a"], "time": pa.array([datetime(2024, 5, 1, 11, 59)], pa.timestamp("us"))})
    retrieved(synced, dataset, tmp_path, naive)
    assert rows(tmp_path / "joined")[0]["sold"] == 2


def test_the_same_rows_and_store_give_the_same_dataset(synced, dataset, tmp_path):
    asked = entities([("a", NOON), ("b", NOON)])
    prints = set()
    for _ in range(2):
        retrieved(synced, dataset, tmp_path, asked)
        prints.add(open_dataset(tmp_path / "joined", "test", "dataset").fingerprint)
    assert len(prints) == 1


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (entities([("a", NOON), ("b", None)]), ["entities: 1 of 2 rows have no time", "WHERE time IS NOT NULL"]),
        (
            pa.table({"shop": ["a", "b"], "time": ["2024-05-01T12:00:00+02:00", "2024-05-01T12:00:00Z"]}),
            ["column time is text", "time zones +02:00, Z mixed", "TIMESTAMPTZ"],
        ),
        (
            pa.table({"shop": ["a", "b"], "time": ["2024-05-01T12:00:00", "2024-05-01T12:00:00Z"]}),
            ["time zones Z, none mixed"],
        ),
        (pa.table({"shop": ["a"], "time": [3]}), ["column time is int64, no time"]),
        (pa.table({"shop": ["a"], "when": [3]}), ["no column 'time'", "shop, when"]),
        (
            entities([("a", NOON)]).rename_columns(["store", "time"]),
            ["no column shop", "join key of feature view counts"],
        ),
    ],
    ids=["none", "mixed", "some", "number", "missing", "no-key"],
)
def test_rows_that_have_no_usable_time_or_key_are_refused(synced, dataset, tmp_path, table, words):
    with pytest.raises(UserError) as raised:
        retrieved(synced, dataset, tmp_path, table)
    assert all(word in str(raised.value) for word in words), raised.value
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "joined").exists()


def test_what_an_on_demand_view_requests_has_to_be_there(synced, dataset, tmp_path):
    asked = entities([("a", NOON)]).rename_columns(["shop", "at"])
    with pytest.raises(UserError, match=r"there is no column time \(on-demand features of the service"):
        retrieved(synced, dataset, tmp_path, asked, timestamp="at")


def test_a_ttl_that_hides_every_row_is_told_with_the_times_that_do_not_meet(synced, dataset, tmp_path):
    with pytest.raises(UserError) as raised:
        retrieved(synced, dataset, tmp_path, entities([("a", NOON + 5 * HOUR), ("b", NOON + 6 * HOUR)]))
    assert "no row has a value of feature view counts" in str(raised.value)
    assert "its rows are of 2024-05-01 10:00:00+00:00 to 2024-05-01 12:00:00+00:00" in str(raised.value)
    assert "TTL of 2:00:00" in str(raised.value)
    assert "entities are of 2024-05-01 17:00:00+00:00 to 2024-05-01 18:00:00+00:00" in str(raised.value)


def test_more_missing_than_is_put_up_with_is_refused(synced, dataset, tmp_path):
    asked = entities([("a", NOON - HOUR), ("b", NOON), ("zzz", NOON), ("zzz", NOON)])
    assert retrieved(synced, dataset, tmp_path, asked, max_missing=0.5).incomplete == 2
    with pytest.raises(UserError, match=r"max_missing: 2 of 4 rows lack a feature, most of all sold, price"):
        retrieved(synced, dataset, tmp_path, asked, max_missing=0.4)


def test_definitions_that_were_not_synced_are_not_taken_for_what_is_there(synced, dataset, tmp_path):
    (synced / "definitions.py").write_text(DEFINITIONS.replace("hours=24", "hours=12"))
    with pytest.raises(UserError, match=r"not yet updated feature view prices \(.*ttl.*\).*Run sync_features first"):
        retrieved(synced, dataset, tmp_path, entities([("a", NOON)]))


def test_an_unknown_service_lists_those_that_there_are(synced, dataset, tmp_path):
    with pytest.raises(UserError, match=r"service: there is no feature service 'stores'\. There are shops"):
        retrieved(synced, dataset, tmp_path, entities([("a", NOON)]), service="stores")


def test_a_store_that_was_never_synced_is_told_so(repo, dataset, tmp_path):
    with pytest.raises(UserError, match="Run sync_features first"):
        retrieved(repo, dataset, tmp_path, entities([("a", NOON)]))
