"""What is done with versions that stand in a registry: an alias moves, the statistics of training rows are fetched."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.components._shared.errors import UserError
from penstock.components._shared.mlflow_registry import open_registry
from penstock.components.registry.entry import Registered
from penstock.components.registry.promote import fetch_reference, promote
from penstock.components.registry.register import register

Make = Callable[..., Path]


@pytest.fixture
def versions(make_model: Make, registry: str, tmp_path: Path) -> str:
    """A registry with a champion, version 1, and two challengers, the last of them with statistics."""
    statistics = tmp_path / "statistics"
    statistics.write_bytes(b"statistics of version 3")
    for number in (1, 2, 3):
        register(
            make_model(weights=str(number)),
            {},
            model_name="tips",
            registry=registry,
            run_id=f"run-{number}",
            alias="champion" if number == 1 else "challenger",
            statistics=statistics if number == 3 else None,
        )
    return registry


def aliases(registry: str) -> dict[str, str]:
    return open_registry(registry, "test").aliases("tips")


def test_a_challenger_becomes_the_champion_and_says_whom_it_replaces(versions: str) -> None:
    done = promote("tips", "3", expected_version="1", registry=versions, run_id="run-4")
    assert done == Registered("3", "models:/tips/3", "1")
    assert aliases(versions) == {"champion": "3", "challenger": "3"}
    tags = open_registry(versions, "test").client.get_model_version("tips", "3").tags
    assert (tags["penstock.replaces"], tags["penstock.alias.champion"]) == ("1", "set")


def test_a_champion_that_another_run_made_meanwhile_stays(versions: str) -> None:
    promote("tips", "2", expected_version="1", registry=versions)
    with pytest.raises(UserError) as refused:
        promote("tips", "3", expected_version="1", registry=versions)
    assert str(refused.value) == (
        "promote: alias: champion of tips is now version 2, not version 1: it is left there. "
        "Evaluate against it and promote again."
    )
    assert aliases(versions)["champion"] == "2"


@pytest.mark.parametrize("expected", ["1", "any"])
def test_a_retry_finds_it_done(versions: str, expected: str) -> None:
    first = promote("tips", "3", expected_version=expected, registry=versions)
    assert promote("tips", "3", expected_version=expected, registry=versions) == first


def test_of_those_that_race_one_wins(versions: str) -> None:
    said: list[Any] = []

    def race(version: str) -> None:
        try:
            said.append(promote("tips", version, expected_version="1", registry=versions).version)
        except UserError as error:
            said.append(error)

    threads = [threading.Thread(target=race, args=(version,)) for version in ("2", "3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [winner] = [each for each in said if isinstance(each, str)]
    assert aliases(versions)["champion"] == winner


def test_the_first_champion_is_expected_to_replace_none(make_model: Make, registry: str) -> None:
    register(make_model(), {}, model_name="tips", registry=registry, alias="challenger", run_id="a")
    assert promote("tips", "1", expected_version="", registry=registry).previous_version == ""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"version": "9"}, "promote: version: sqlite://.* has no version 9 of 'tips'"),
        ({"version": "latest"}, "promote: version: 'latest' is not a version"),
        ({"alias": "boss"}, "promote: alias: 'boss' is not a known alias. Known are champion, challenger"),
        ({"expected_version": "v1"}, "promote: expected_version: 'v1' is not a version"),
        ({"platform": "vertex"}, "promote: platform: 'vertex' is not a known kind of registry. Known are mlflow"),
        ({"model_name": "a/b"}, "promote: model_name: 'a/b' contains /"),
    ],
)
def test_wrong_arguments_are_refused_and_move_nothing(versions: str, given: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        promote(**{"model_name": "tips", "version": "2", "registry": versions, **given})
    assert aliases(versions)["champion"] == "1"


def test_the_statistics_of_a_version_come_back_byte_for_byte(versions: str, tmp_path: Path) -> None:
    found = fetch_reference("tips", tmp_path / "out" / "fetched", alias="challenger", registry=versions)
    assert found == Registered("3", "models:/tips/3", "")
    assert (tmp_path / "out" / "fetched").read_bytes() == b"statistics of version 3"


def test_a_version_without_statistics_is_told(versions: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        fetch_reference("tips", tmp_path / "fetched", registry=versions)
    assert "version 1 of 'tips' was registered without the statistics of its training rows" in str(refused.value)
    assert not (tmp_path / "fetched").exists()


def test_a_registry_without_a_champion_is_told(registry: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        fetch_reference("fares", tmp_path / "fetched", registry=registry)
    assert str(refused.value).startswith(f"fetch_reference: model_name: {registry} has no champion of 'fares'. Train")


def test_components_hand_over_what_there_is(versions: str, tmp_path: Path) -> None:
    from kfp import dsl

    from penstock import components

    statistics = dsl.Artifact(uri=str(tmp_path / "fetched"))
    found = components.fetch_reference.python_func(
        statistics=statistics, model_name="tips", alias="challenger", registry=versions
    )
    assert found == ("3", "models:/tips/3")
    assert (tmp_path / "fetched").read_bytes() == b"statistics of version 3"
    done = components.promote.python_func(model_name="tips", version="3", expected_version="1", registry=versions)
    assert done == ("models:/tips/3", "1")
