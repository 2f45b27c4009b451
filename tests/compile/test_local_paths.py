"""Parameters that name files of this machine are found, and nothing else is shown to a container."""

import os
from pathlib import Path

import pytest

from penstock.compile.local_paths import named


@pytest.fixture
def here(tmp_path):
    for path in ("data/a.csv", "data/b.csv", "other/c.csv"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    return tmp_path


def test_files_and_folders_are_found_relative_and_absolute(here):
    parameters = {"a": "data/a.csv", "b": str(here / "other"), "c": "missing", "d": 3, "e": None}
    assert named(parameters, here) == [here / "data" / "a.csv", here / "other"]


def test_texts_are_found_however_deep(here):
    assert named({"a": {"b": [{"c": "other/c.csv"}]}}, here) == [here / "other" / "c.csv"]


def test_of_a_glob_that_matches_its_folder_is_found(here):
    assert named({"source": "data/*.csv"}, here) == [here / "data"]
    assert named({"source": str(here / "*" / "c.csv")}, Path("/")) == [here]
    assert named({"source": "data/*.parquet"}, here) == []


def test_a_folder_holds_what_is_in_it(here):
    assert named({"a": "data/a.csv", "b": "data", "c": "data/*.csv"}, here) == [here / "data"]


def test_ways_back_are_straightened(here):
    assert named({"a": "data/../other/c.csv"}, here) == [here / "other" / "c.csv"]


@pytest.mark.parametrize(
    "text", ["", "/", "/usr", "/usr/bin", "/etc/passwd", "/tmp", "/proc/self", "/*", "SELECT * FROM source", "gs://b/*"]
)
def test_what_is_part_of_any_system_or_no_path_is_left_out(here, text):
    assert named({"a": text}, here) == []


def test_a_text_that_no_path_can_be_is_left_out(here):
    assert named({"a": "data\n", "b": "a\0b", "c": "x" * 5000}, here) == []


def test_a_link_is_seen_by_its_own_name(here):
    os.symlink("data", here / "link")
    assert named({"a": "link/a.csv"}, here) == [here / "link" / "a.csv"]
