"""Tables follow the declarations."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from penstock.compile import catalog
from penstock.compile.docs import refresh
from penstock.compile.errors import PenstockError
from penstock.compile.to_kfp import load_function

PAGE = "# A stage\n\nBy hand.\n\n<!-- ports -->\n<!-- /ports -->\n\nBelow.\n"
ROOT_PAGE = "# All\n\n<!-- components -->\nold\n<!-- /components -->\n"
COMPONENT = '''
from kfp import dsl
from kfp.dsl import Dataset, Input


@dsl.component(base_image="python:3.11")
def weigh(data: Input[Dataset], unit: str = "kg|lb") -> float:
    """Weigh a dataset. On scales.

    Args:
        data: What to weigh.
        unit: Of the result, "kg" | "lb".
    """
    return 1.0
'''


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    stage = tmp_path / "components" / "weighing"
    stage.mkdir(parents=True)
    (stage / "declared_here.py").write_text(COMPONENT)
    (stage / "README.md").write_text(PAGE)
    (tmp_path / "README.md").write_text(ROOT_PAGE)
    function = load_function(f"{stage / 'declared_here.py'}:weigh")
    entry = catalog.Entry("weigh", "component", "scales", function)
    monkeypatch.setattr(catalog, "entries", lambda kind=None: [entry])
    yield tmp_path
    sys.modules.pop("declared_here", None)


def test_tables_are_written_between_the_lines_and_nothing_else_changes(repository: Path) -> None:
    stage = repository / "components" / "weighing" / "README.md"
    assert refresh(repository, write=True) == [stage, repository / "README.md"]
    assert stage.read_text() == (
        "# A stage\n\nBy hand.\n\n<!-- ports -->\n\n"
        "| Input | type | default | description |\n| --- | --- | --- | --- |\n"
        "| `data` | Dataset | required | What to weigh. |\n"
        '| `unit` | str | `"kg\\|lb"` | Of the result, "kg" \\| "lb". |\n'
        "\n| Output | type | description |\n| --- | --- | --- |\n| `Output` | float |  |\n"
        "\n<!-- /ports -->\n\nBelow.\n"
    )
    assert "| [weigh](components/weighing/README.md) | Weigh a dataset. |" in (repository / "README.md").read_text()


def test_second_time_finds_nothing_to_do(repository: Path) -> None:
    refresh(repository, write=True)
    assert refresh(repository, write=False) == []


def test_check_names_what_is_stale_and_leaves_it(repository: Path) -> None:
    stage = repository / "components" / "weighing" / "README.md"
    assert refresh(repository, write=False) == [stage, repository / "README.md"]
    assert stage.read_text() == PAGE


def test_missing_lines_and_missing_pages_are_named(repository: Path) -> None:
    stage = repository / "components" / "weighing" / "README.md"
    stage.write_text("# A stage\n")
    with pytest.raises(PenstockError, match=r"README\.md: put the lines <!-- ports --> and <!-- /ports -->"):
        refresh(repository, write=True)
    stage.unlink()
    with pytest.raises(PenstockError, match=r"README\.md: there is no such file"):
        refresh(repository, write=True)


def test_repository_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(ROOT_PAGE)
    with pytest.raises(PenstockError, match="none of the installed components is declared below this folder"):
        refresh(tmp_path, write=True)
