"""A store brought to where a dataset is: what changes, that nothing changes twice, and what is said when it cannot."""

import fcntl
import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore

from penstock.components._shared.errors import UserError
from penstock.components.features import store as stores
from penstock.components.features import sync as module
from penstock.components.features.online import served
from penstock.components.features.store import OpenStore, opened
from penstock.components.features.sync import sync
from tests.components.features.conftest import CONFIG, DEFINITIONS, HOUR, NOON, ROWS, features, write_repo


def online(repo: Path, *shops: str) -> list[dict]:
    """Return what the online store has of each shop."""
    with opened(str(repo), "feature_store.yaml", "test") as place:
        found = served(place, ["counts:sold", "prices:price"], [{"shop": shop} for shop in shops])
    return [dict(each.values) for each in found]


def digests(repo: Path) -> dict[str, str]:
    files = [path for path in (repo / "data").rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(repo)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def stored(repo: Path) -> list[dict]:
    return [
        row for file in sorted((repo / "data" / "sales").glob("*.parquet")) for row in pq.read_table(file).to_pylist()
    ]


def test_the_first_run_does_it_all_and_the_second_changes_not_one_byte(repo, dataset, capsys):
    given = dataset(features(ROWS))
    first = sync(given, str(repo))
    assert [str(change) for change in first.changes] == [
        "created project shops",
        "created data source request",
        "created data source sales",
        "created entity shop",
        "created feature view counts",
        "created feature view prices",
        "created on demand feature view clock",
        "created feature service shops",
    ]
    assert (first.added, first.verified, first.resumed) == (4, 4, False)
    assert {name: done.rows for name, done in first.materialized.items()} == {"counts": 2, "prices": 2}
    assert (first.first, first.newest) == (NOON - 2 * HOUR, NOON)
    assert first.age > 86_400
    assert "created feature view counts" in capsys.readouterr().out
    assert online(repo, "a", "b", "c") == [
        {"sold": 3, "price": None}, {"sold": 10, "price": 0.1}, {"sold": None, "price": None},
    ]  # fmt: skip
    before = digests(repo)
    assert len([name for name in before if name.startswith("data/sales/part-")]) == 1
    second = sync(given, str(repo))
    assert (second.changes, second.added, second.materialized, second.verified) == ((), 0, {}, 4)
    assert digests(repo) == before


def test_feast_itself_finds_nothing_to_change_afterwards(repo, dataset):
    sync(dataset(features(ROWS)), str(repo))
    with opened(str(repo), "feature_store.yaml", "test") as place:
        assert place.plan() == []
        assert place.store.get_feature_service("shops").name == "shops"


def test_only_new_rows_are_added_and_views_go_on_from_where_they_were(repo, dataset):
    sync(dataset(features(ROWS)), str(repo))
    more = [*ROWS, ("b", NOON + HOUR, 11, 0.2)]
    done = sync(dataset(features(more, created=NOON + HOUR)), str(repo))
    assert done.added == 1
    assert {name: (what.start, what.end) for name, what in done.materialized.items()} == dict.fromkeys(
        ("counts", "prices"), (NOON, NOON + HOUR)
    )
    assert online(repo, "a", "b") == [{"sold": 3, "price": None}, {"sold": 11, "price": 0.2}]
    assert len(stored(repo)) == 5


def test_corrected_and_late_rows_go_online_though_they_are_older_than_what_was_there(repo, dataset):
    sync(dataset(features(ROWS)), str(repo))
    late = [("b", NOON - HOUR, 12, 0.1), ("c", NOON - 2 * HOUR, 7, 7.0)]
    done = sync(dataset(features([*ROWS[:3], *late], created=NOON + HOUR)), str(repo))
    assert done.added == 2
    assert done.materialized["counts"].start == NOON - 2 * HOUR
    assert online(repo, "b", "c") == [{"sold": 12, "price": 0.1}, {"sold": 7, "price": 7.0}]


def test_numbers_that_differ_by_rounding_alone_are_the_same(repo, dataset):
    sync(dataset(features(ROWS)), str(repo))
    rounded = [*ROWS[:3], ("b", NOON - HOUR, 10, 0.1 + 1e-17 + 1e-13)]
    assert sync(dataset(features(rounded, created=NOON + HOUR)), str(repo)).added == 0


def test_a_new_feature_reaches_old_rows_and_the_online_store(repo, dataset):
    sync(dataset(features(ROWS)), str(repo))
    wider = DEFINITIONS.replace(
        'schema=[Field(name="sold", dtype=Int64)]',
        'schema=[Field(name="sold", dtype=Int64), Field(name="staff", dtype=Int64)]',
    )
    (repo / "definitions.py").write_text(wider)
    table = features([*ROWS, ("a", NOON + HOUR, 4, 1.0)]).append_column("staff", pa.array([5] * 5))
    done = sync(dataset(table), str(repo))
    assert [str(change) for change in done.changes] == [
        "updated feature view counts (features)",
        "updated feature service shops (features)",
    ]
    assert done.materialized["counts"].start == NOON - 2 * HOUR
    with opened(str(repo), "feature_store.yaml", "test") as place:
        [found] = served(place, ["counts:staff"], [{"shop": "b"}])
    assert found.values == {"staff": 5}


def test_a_view_whose_source_lacks_a_column_is_named_before_anything_changes(repo, dataset):
    given = dataset(features(ROWS).drop_columns("price"))
    with pytest.raises(UserError) as raised:
        sync(given, str(repo))
    assert str(raised.value) == (
        "sync_features: features: feature view prices reads price, which the rows do not have. They have shop, "
        "event_timestamp, sold, created; compute it, or take it out of the view."
    )
    assert not (repo / "data" / "sales").exists()


def test_columns_that_were_there_may_neither_go_nor_change_their_type(repo, dataset):
    sync(dataset(features(ROWS).append_column("more", pa.array([1] * 4))), str(repo))
    with pytest.raises(UserError, match="the rows of source sales have more, and those of this dataset do not"):
        sync(dataset(features(ROWS)), str(repo))
    text = features(ROWS).append_column("more", pa.array(["1"] * 4))
    with pytest.raises(UserError, match=r"another type: more \(int64, now string\)"):
        sync(dataset(text), str(repo))


def apply_another(repo: Path) -> None:
    """Change the registry as another run would."""
    other = FeatureStore(repo_path=str(repo))
    other.apply([Entity(name="town", join_keys=["town"])])


def test_a_registry_that_another_run_changes_before_it_is_applied_is_left_alone(repo, dataset, monkeypatch):
    sync(dataset(features(ROWS)), str(repo))
    (repo / "definitions.py").write_text(DEFINITIONS.replace("hours=24", "hours=12"))
    plan = OpenStore.plan

    def while_planned(self):
        changes = plan(self)
        apply_another(repo)
        return changes

    monkeypatch.setattr(OpenStore, "plan", while_planned)
    with pytest.raises(UserError, match="another run changed the registry while the changes were planned; nothing was"):
        sync(dataset(features(ROWS)), str(repo))


def test_a_registry_that_another_run_changes_afterwards_is_told(repo, dataset, monkeypatch):
    real = module.materialize

    def then_changed(*arguments, **named):
        done = real(*arguments, **named)
        apply_another(repo)
        return done

    monkeypatch.setattr(module, "materialize", then_changed)
    with pytest.raises(UserError) as raised:
        sync(dataset(features(ROWS)), str(repo))
    assert "it now differs in deleted entity town" in str(raised.value)
    assert "Its rows are online by this repository's definitions" in str(raised.value)


def test_an_online_value_that_is_not_the_offline_store_s_is_named(repo, dataset, monkeypatch):
    real = module.materialize

    def spoiled(store, views, end, **named):
        done = real(store, views, end, **named)
        if views == ["counts"]:
            frame = features([("b", NOON - HOUR, 99, 0.1)]).to_pandas()[["shop", "sold", "event_timestamp", "created"]]
            store.write_to_online_store("counts", frame)
        return done

    monkeypatch.setattr(module, "materialize", spoiled)
    with pytest.raises(UserError) as raised:
        sync(dataset(features(ROWS)), str(repo))
    assert "the online store has sold=99 for shop=b" in str(raised.value)
    assert "and the offline store 10 of 2024-05-01 11:00:00" in str(raised.value)


def test_a_view_that_fails_says_which_are_online_and_which_are_not_and_the_next_run_goes_on(repo, dataset, monkeypatch):
    real = module.materialize

    def full(store, views, end, **named):
        if views == ["prices"]:
            raise OSError(28, "No space left on device")
        return real(store, views, end, **named)

    monkeypatch.setattr(module, "materialize", full)
    given = dataset(features(ROWS))
    with pytest.raises(UserError) as raised:
        sync(given, str(repo))
    assert "feature view prices cannot be brought online" in str(raised.value)
    assert "No space left on device" in str(raised.value)
    assert "Online up to 2024-05-01 12:00:00+00:00: counts. Not, or in part: prices." in str(raised.value)
    monkeypatch.setattr(module, "materialize", real)
    done = sync(given, str(repo))
    assert (done.added, done.resumed) == (0, True)
    assert online(repo, "b") == [{"sold": 10, "price": 0.1}]
    assert sync(given, str(repo)).materialized == {}


@pytest.mark.parametrize(
    "online_store",
    [
        "{type: redis, connection_string: '127.0.0.1:9,password=${SHOP_PASSWORD}'}",
        "{type: postgres, host: 127.0.0.1, port: 9, database: shops, user: shops, password: '${SHOP_PASSWORD}'}",
    ],
    ids=["redis", "postgres"],
)
def test_a_store_that_cannot_be_reached_is_told_in_one_line_without_its_secrets(
    tmp_path, dataset, monkeypatch, online_store
):
    monkeypatch.setenv("SHOP_PASSWORD", "hidden-password")
    config = CONFIG.replace("{type: sqlite, path: data/online.db}", online_store)
    repo = write_repo(tmp_path / "repo", config)
    with pytest.raises(UserError) as raised:
        sync(dataset(features(ROWS)), str(repo))
    line = str(raised.value)
    assert "\n" not in line
    assert "Check that the store is up" in line
    assert "hidden-password" not in line
    assert any(reason in line for reason in ("refused", "timeout", "couldn't get a connection")), line


def test_variables_that_are_not_set_are_named(tmp_path, dataset):
    config = CONFIG.replace("data/registry.db", "${NO_SUCH_PLACE}/registry.db  # not ${OF_A_COMMENT}")
    with pytest.raises(UserError, match="names variables that are not set: NO_SUCH_PLACE"):
        sync(dataset(features(ROWS)), str(write_repo(tmp_path / "repo", config)))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"definitions.py": "import nothing_at_all"}, ["definitions.py, line 1", "nothing_at_all"]),
        ({"definitions.py": DEFINITIONS + "\n1/0"}, ["ZeroDivisionError"]),
        ({"feature_store.yaml": "project: shops\nregistry: [\n"}, ["config", "feature_store.yaml cannot be used"]),
        ({"feature_store.yaml": CONFIG.replace("sqlite", "cupboard")}, ["cupboard"]),
        ({"definitions.py": DEFINITIONS.replace('name="prices"', 'name="counts"')}, ["counts"]),
        ({"definitions.py": DEFINITIONS.replace('path="data/sales"', 'path="sales.parquet"')}, ["cannot grow"]),
    ],
    ids=["import", "error", "yaml", "store", "names", "one-file"],
)
def test_a_repository_that_cannot_be_used_is_told_in_one_line(repo, dataset, files, words):
    for name, text in files.items():
        (repo / name).write_text(text)
    with pytest.raises(UserError) as raised:
        sync(dataset(features(ROWS)), str(repo))
    assert all(word in str(raised.value) for word in words), raised.value


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"source": "stock"}, ["source: there is no data source 'stock'", "sales"]),
        ({"views": ["stock"]}, ["views: 'stock'", "counts, prices"]),
        ({"until": "later"}, ["until: 'later' is no time"]),
        ({"sample": -1}, ["sample: -1"]),
        ({"config": "other.yaml"}, ["there is no other.yaml", "feature_store.yaml"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_arguments_that_mean_nothing_are_refused_with_what_there_is(repo, dataset, arguments, words):
    with pytest.raises(UserError) as raised:
        sync(dataset(features(ROWS)), str(repo), **arguments)
    assert all(word in str(raised.value) for word in words), raised.value


def test_two_runs_at_once_take_turns_and_the_wait_ends(repo, dataset, monkeypatch):
    given = dataset(features(ROWS))
    sync(given, str(repo))
    monkeypatch.setattr(stores, "LOCK_DEADLINE", 0.2)
    with (repo / "data" / ".registry.db.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another run has been writing"):
            sync(given, str(repo))
    assert sync(given, str(repo)).added == 0


def test_until_holds_later_rows_back_until_another_run(repo, dataset):
    given = dataset(features(ROWS))
    held = sync(given, str(repo), until=(NOON - HOUR).isoformat())
    assert held.added == 4
    assert online(repo, "a") == [{"sold": 2, "price": 2.5}]
    assert set(sync(given, str(repo)).materialized) == {"counts", "prices"}
    assert online(repo, "a") == [{"sold": 3, "price": None}]
