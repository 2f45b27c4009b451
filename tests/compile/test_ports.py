"""Ports are what the declaration says, in its order."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.compile import catalog, ports
from penstock.compile.errors import PenstockError
from penstock.compile.to_kfp import compiled, load_function

FEATURES = Path(__file__).parent / "user" / "features.py"


def described(name: str, *, from_function: bool = True) -> ports.Description:
    function = load_function(f"{FEATURES}:{name}")
    return ports.describe(ports.parse_spec(compiled(function).text, name), function if from_function else None)


def test_ports_come_in_the_order_of_the_signature_with_their_descriptions() -> None:
    made = described("make")
    assert made.kind == "component"
    assert made.images == ("python:3.11",)
    assert made.ports == (
        ports.Port("rows", "input", "int", None, True, "How many."),
        ports.Port("settings", "input", "dict", {"b": 1, "a": 2}, False, "By name, in two lines."),
        ports.Port("data", "output", "Dataset", None, False, "The rows."),
        ports.Port("count", "output", "int", None, False, "How many there are."),
        ports.Port("names", "output", "list", None, False, "Their names."),
    )


def test_spec_without_its_source_says_as_much_as_it_can() -> None:
    names = [port.name for port in described("make", from_function=False).ports]
    assert names == ["rows", "settings", "data", "count", "names"]


def test_optional_artifacts_and_defaults_are_told_from_required_ones() -> None:
    found = {port.name: port for port in described("measure").ports}
    assert (found["data"].required, found["data"].type) == (True, "Dataset")
    assert (found["extra"].required, found["extra"].default, found["extra"].type) == (False, None, "Artifact")
    assert (found["name"].required, found["name"].default) == (False, "x")
    assert found["Output"].type == "float"


def test_pipeline_lists_its_images_and_integers_are_integers() -> None:
    found = described("features")
    assert found.kind == "pipeline"
    assert found.images == ("alpine", "python:3.11")
    rows = next(port for port in found.ports if port.name == "rows")
    assert rows.default == 3
    assert isinstance(rows.default, int)


@pytest.mark.parametrize("entry", catalog.entries(), ids=lambda entry: entry.name)
def test_every_port_of_ours_is_described(entry: catalog.Entry) -> None:
    found = ports.describe(ports.parse_spec(compiled(entry.function).text, entry.name), entry.function)
    assert found.kind == entry.kind
    assert [port.name for port in found.ports if not port.description] == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no compiled pipeline"),
        ("- 1\n", "no compiled pipeline"),
        ("a: [\n", "not YAML"),
        ("name: x\nimplementation: {}\n", "it has no pipelineInfo and root"),
    ],
)
def test_file_that_is_no_spec_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(text)
    with pytest.raises(PenstockError, match=problem) as caught:
        ports.read_spec(path)
    assert str(path) in str(caught.value)


@pytest.mark.corpus
def test_specs_of_others_are_described(kfp_specs: Path) -> None:
    paths = sorted((kfp_specs / "valid").rglob("*.yaml"))
    assert paths
    for path in paths:
        assert ports.describe(ports.read_spec(path)).name
