from pathlib import Path

from penstock.components._shared.paths import user_path


def test_a_relative_path_starts_where_the_run_was_started(monkeypatch):
    monkeypatch.setenv("PENSTOCK_CWD", "/home/ada")
    assert user_path("trips/*.csv") == Path("/home/ada/trips/*.csv")
    assert user_path("/data/trips.csv") == Path("/data/trips.csv")


def test_outside_a_run_it_starts_in_the_working_directory(monkeypatch):
    monkeypatch.delenv("PENSTOCK_CWD", raising=False)
    assert user_path("trips.csv") == Path("trips.csv")


def test_a_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert user_path("~/trips.csv") == Path("/home/ada/trips.csv")
