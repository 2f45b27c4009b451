"""Converted pipelines are compared whole: whatever changes in a job is seen and meant."""

import difflib

import pytest

from tests.compile.targets.azureml.goldens import FOLDER, golden, names


@pytest.mark.parametrize("name", names())
def test_the_job_is_the_golden_one(name):
    folder = FOLDER / name
    before = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}
    after = golden(name)
    lines: list[str] = []
    for path in sorted({*before, *after}):
        old, new = before.get(path, "").splitlines(), after.get(path, "").splitlines()
        lines += difflib.unified_diff(old, new, f"{folder / path}", "converted", lineterm="", n=2)
    if lines:
        pytest.fail(
            "\n".join([*lines[:60], "If this is meant: `make golden`, then read the difference like code."]), False
        )


def test_every_golden_job_is_of_a_pipeline():
    assert {path.name for path in FOLDER.iterdir()} == {*names()}
