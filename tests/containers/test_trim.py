"""What images are trimmed of is of no use to what loads the rest."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.containers.conftest import ROOT

LOAD = """
import importlib.machinery, importlib.util, sys
loader = importlib.machinery.ExtensionFileLoader(sys.argv[1], sys.argv[2])
module = importlib.util.module_from_spec(importlib.util.spec_from_loader(sys.argv[1], loader))
loader.exec_module(module)
print(module.__file__)
"""


@pytest.fixture
def trim(monkeypatch, tmp_path):
    """containers/trim.py, at work on a folder of its own."""
    spec = importlib.util.spec_from_file_location("trim", ROOT / "containers" / "trim.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SITE", tmp_path)
    return module


@pytest.fixture
def library(tmp_path) -> Path:
    """An extension module with symbols, as its wheel brought it."""
    yaml = pytest.importorskip("yaml._yaml")
    return Path(shutil.copy(yaml.__file__, tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have libraries of another format")
def test_a_library_loads_without_what_follows_its_segments(trim, library):
    before = library.stat().st_size
    trim.cut_symbols(library)
    after = library.stat().st_size
    assert after < before / 2
    done = subprocess.run([sys.executable, "-c", LOAD, "_yaml", library], capture_output=True, text=True)
    assert done.stdout.strip() == str(library), done.stderr
    trim.cut_symbols(library)
    assert library.stat().st_size == after


def test_what_is_no_library_is_left_alone(trim, tmp_path):
    file = tmp_path / "script.so"
    file.write_text("GROUP ( libm.so.6 )\n")
    trim.cut_symbols(file)
    assert file.read_text() == "GROUP ( libm.so.6 )\n"


def test_one_is_kept_of_libraries_that_are_the_same(trim, tmp_path):
    for name, content in (("a.libs/libx.so.1", "x"), ("b.libs/libx.so.1", "x"), ("b.libs/libx.so", "x"), ("c.so", "y")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    trim.link_copies()
    links = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.so*") if path.is_symlink()}
    assert links == {"b.libs/libx.so", "b.libs/libx.so.1"}
    assert (tmp_path / "b.libs" / "libx.so").resolve() == tmp_path / "a.libs" / "libx.so.1"
