import sys

import pytest

from penstock.components._shared import platforms
from penstock.components._shared.errors import UserError

TABLE = {"here": "tabular", "there": "clouds"}


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "rows_of_a_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "here.py").write_text("ROW = 7\n")
    (folder / "there.py").write_text("import no_such_client.deep\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder.name
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


def test_only_the_module_of_the_platform_is_imported(package):
    assert platforms.module(package, "here", TABLE, "deploy", "platform").ROW == 7
    assert f"{package}.there" not in sys.modules


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("moon", "deploy: platform: 'moon' is unknown. Choose one of here, there."),
        (
            "there",
            "deploy: platform: there needs no_such_client, which is not installed. pip install 'penstock[clouds]'.",
        ),
    ],
)
def test_what_is_not_there_is_named(package, name, problem):
    with pytest.raises(UserError) as caught:
        platforms.module(package, name, TABLE, "deploy", "platform")
    assert str(caught.value) == problem


def test_a_module_of_ours_that_is_missing_is_our_own_fault(package, tmp_path):
    (tmp_path / package / "there.py").write_text("import penstock.no_such_module\n")
    with pytest.raises(ModuleNotFoundError, match=r"penstock\.no_such_module"):
        platforms.module(package, "there", TABLE, "deploy", "platform")
