"""The folders of the tree are the packages of the wheel."""

import hashlib
import importlib
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {"components": "components", "pipelines": "pipelines", "compile/testing": "testing", "compile": "compile"}


def packaged(name: str) -> str:
    """Return where a file of the folders is in the package; the first folder that it lies in decides."""
    folder = next(folder for folder in FOLDERS if name.startswith(f"{folder}/"))
    return FOLDERS[folder] + name.removeprefix(folder)


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_folders_and_no_test(tmp_path):
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "-q", ROOT, source], check=True)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, source]
    subprocess.run(build, check=True, capture_output=True)
    [wheel], [sdist] = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    in_git = subprocess.run(["git", "ls-files", *FOLDERS], cwd=source, capture_output=True, text=True, check=True)
    files = [name for name in in_git.stdout.splitlines() if not name.endswith(".md")]
    expected = {f"penstock/{packaged(name)}" for name in files}
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == expected
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert set(files) <= names


@pytest.mark.slow
def test_one_commit_gives_the_same_wheel_whatever_the_folder_umask_time_zone_and_locale(tmp_path):
    digests = set()
    for name, umask, settings in (
        ("here", 0o022, {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "1"}),
        ("a folder/elsewhere", 0o077, {"TZ": "Asia/Kolkata", "LC_ALL": "C", "PYTHONHASHSEED": "2"}),
    ):
        source = tmp_path / name
        subprocess.run(["git", "clone", "-q", ROOT, source], check=True, umask=umask)
        (source / "compile" / "left_over.py").write_text("a file that is not part of the project")
        (source / ".venv").mkdir()
        (source / ".venv" / ".ready").touch()
        make = ["make", "wheel", f"BIN={Path(sys.executable).parent}"]
        subprocess.run(make, cwd=source, env={**os.environ, **settings}, umask=umask, check=True, capture_output=True)
        [wheel] = (source / "dist").glob("*.whl")
        digests.add(hashlib.sha256(wheel.read_bytes()).hexdigest())
        with zipfile.ZipFile(wheel) as archive:
            assert "penstock/compile/left_over.py" not in archive.namelist()
    assert len(digests) == 1


def test_the_editable_install_is_a_folder_of_links_that_type_checkers_follow():
    from penstock import components

    assert Path(components.__file__).resolve() == ROOT / "components" / "__init__.py"
    assert {path.name for path in (ROOT / ".links" / "penstock").iterdir()} == set(FOLDERS.values())


def test_a_folder_that_is_mapped_by_itself_is_one_package():
    from penstock import testing

    assert Path(testing.__file__).resolve() == ROOT / "compile" / "testing" / "__init__.py"
    with pytest.raises(ImportError, match=r"this package is penstock\.testing"):
        importlib.import_module("penstock.compile.testing")
