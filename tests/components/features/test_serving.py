"""Training and serving: the same values for the same entity and time, and what is said where they differ."""

import pytest

from penstock.components._shared.errors import UserError
from penstock.components.features.retrieve import retrieve
from penstock.components.features.serving import check
from penstock.components.features.store import opened
from penstock.components.features.sync import sync
from tests.components.features.conftest import HOUR, NOON, ROWS, entities, features

ASKED = {"service": "shops", "timestamp": "time"}


@pytest.fixture
def trained(repo, dataset, tmp_path):
    """A training set of a store that is online up to noon; of shop c the online store knows nothing."""
    sync(dataset(features(ROWS), "features"), str(repo))
    rows = [("a", NOON - HOUR), ("b", NOON), ("a", NOON + HOUR), ("c", NOON)]
    retrieve(dataset(entities(rows), "entities"), tmp_path / "trained", str(repo), **ASKED)
    return tmp_path / "trained"


def test_what_training_saw_is_what_is_served(trained, repo):
    done = check(trained, str(repo), **ASKED)
    assert (done.entities, done.values, done.repeated, done.expired) == (2, 6, 12, 0)


def test_features_that_were_corrected_since_the_training_are_named(trained, repo, dataset):
    corrected = [*ROWS[:3], ("b", NOON - HOUR, 12, 0.1)]
    sync(dataset(features(corrected, created=NOON + HOUR), "features"), str(repo))
    with pytest.raises(UserError, match=r"dataset: sold was 10 in training and is 12 by now \(row of 2024-05-01 12:00"):
        check(trained, str(repo), **ASKED)


def test_an_online_value_that_training_would_not_see_is_named(trained, repo):
    with opened(str(repo), "feature_store.yaml", "test") as place:
        frame = features([("b", NOON - HOUR, 10, 0.25)]).to_pandas()[["shop", "price", "event_timestamp", "created"]]
        place.store.write_to_online_store("prices", frame)
    with pytest.raises(UserError) as raised:
        check(trained, str(repo), **ASKED)
    assert "for shop=b at 2024-05-01 11:00:00+00:00 the online store returns price=0.25" in str(raised.value)
    assert "training would see 0.1" in str(raised.value)


def test_a_training_set_of_entities_that_nobody_serves_is_refused(repo, dataset, tmp_path):
    sync(dataset(features([*ROWS, ("d", NOON, 1, 1.0)]), "features"), str(repo), until=(NOON - HOUR).isoformat())
    retrieve(dataset(entities([("d", NOON)]), "entities"), tmp_path / "trained", str(repo), **ASKED)
    with pytest.raises(UserError, match=r"the online store has none of the 1 entities that were looked for \(shop\)"):
        check(tmp_path / "trained", str(repo), **ASKED)
