from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.components._shared.mlflow_registry import open_registry
from penstock.components.registry.register import BACKENDS, register

README = (Path(__file__).parents[3] / "components" / "registry" / "README.md").read_text()


def test_tags_are_those_listed(
    make_model: Callable[..., Path], registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_IMAGE", "penstock/tabular@sha256:abc")
    (tmp_path / "schema").write_text("")
    register(
        make_model(),
        {},
        model_name="tips",
        schema=tmp_path / "schema",
        statistics=tmp_path / "schema",
        registry=registry,
        run_id="run-1",
        spec_sha256="s",
        git_commit="c",
    )
    tags = open_registry(registry, "test").client.get_model_version("tips", "1").tags
    listed = [
        tag for line in README.splitlines() if line.startswith("| `penstock.") for tag in line.split("|")[1].split(",")
    ]
    assert {tag.strip(" `") for tag in listed} == set(tags)


def test_platforms_are_those_listed() -> None:
    platforms = re.findall(r"^\| `(\w+)` \| `\w+://", README, re.MULTILINE)
    assert set(platforms) == set(BACKENDS)
