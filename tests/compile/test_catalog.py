"""Names are found, and what is wrong with them is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from penstock.compile import catalog
from penstock.compile.errors import PenstockError


def installed(folder: Path, name: str, module: str, text: str) -> None:
    """Put a package with an entry point for components into a folder, as an installer would."""
    (folder / f"{module}.py").write_text(text)
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[penstock.components]\nany = {module}\n")


COMPONENT = """
from kfp import dsl

__all__ = ["{name}"]

@dsl.component(base_image="python:3.11")
def {name}() -> int:
    '''Count to one. Slowly.'''
    return 1
"""


def test_finds_ours_by_name_and_by_kfp_name() -> None:
    assert catalog.find("train").kind == "component"
    assert catalog.find("tabular-training") == catalog.find("tabular_training")
    assert catalog.find("penstock/train").package == "penstock"


def test_unknown_name_lists_known_ones_and_the_closest() -> None:
    with pytest.raises(PenstockError, match=r"no component or pipeline trian; did you mean train\? known: .*ingest.*"):
        catalog.find("trian")


def test_components_of_other_packages_are_found_beside_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, "other-things", "other_things", COMPONENT.format(name="count_to_one"))
    monkeypatch.syspath_prepend(tmp_path)
    found = catalog.find("count-to-one")
    assert (found.package, found.kind, found.sentence) == ("other-things", "component", "Count to one.")
    assert found.source == tmp_path / "other_things.py"


def test_name_of_two_packages_asks_for_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, "rival", "rival_things", COMPONENT.format(name="train"))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PenstockError, match=r"train can be any of penstock/train \(a component\), rival/train"):
        catalog.find("train")
    assert catalog.find("rival/train").package == "rival"


def test_package_that_does_not_import_is_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, "broken", "broken_things", "import nowhere_to_be_found\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(UserWarning, match="broken: broken_things is left out: ModuleNotFoundError"):
        names = [entry.name for entry in catalog.entries()]
    assert "train" in names


def test_unknown_sample_lists_known_ones() -> None:
    with pytest.raises(PenstockError, match=r"there is no sample taxis; did you mean taxi\? known: taxi"):
        catalog.find_sample("taxis")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Fit a model. Then rest.", "Fit a model."),
        ("Fit a\n    model on\n    rows\n\nMore. Text.", "Fit a model on rows"),
        ("", ""),
        ("Keep 0.5 of it.", "Keep 0.5 of it."),
    ],
)
def test_first_sentence(text: str, sentence: str) -> None:
    assert catalog.first_sentence(text) == sentence


def test_names_of_samples_are_known_without_importing_kfp() -> None:
    code = (
        "import sys; from penstock.compile.catalog import sample_names; sample_names(); assert 'kfp' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
