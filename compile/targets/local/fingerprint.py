"""What Python code a process can import, as one hash: a step is not reused once any of it has changed."""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_LARGEST = 1 << 20  # bytes of a file that is not Python: beyond, it is data
_NOT_CODE = {"__pycache__", "node_modules"}


def fingerprint() -> str:
    """Return a hash of the Python version, all installed distributions, and the sources that are on sys.path.

    Installed distributions count by their RECORD, which lists every file with its hash; editable installs and the
    folders of PYTHONPATH count by the content of their files.
    """
    whole = hashlib.sha256(f"{sys.version}\0{sys.platform}\0".encode())
    sources = [Path(folder).absolute() for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    for folder in sorted({Path(entry) for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))}):
        if not folder.is_dir():
            continue
        for name in sorted(os.listdir(folder)):
            path = folder / name
            if name.endswith(".dist-info"):
                whole.update(f"{name}\0".encode())
                if (path / "RECORD").is_file():
                    whole.update((path / "RECORD").read_bytes())
            elif name.endswith(".egg-info") or (name.endswith((".py", ".pth")) and path.is_file()):
                whole.update(f"{name}\0".encode())
                if path.is_file():
                    whole.update(path.read_bytes())
                sources += _editable(path)
    for source in sorted(set(sources)):
        whole.update(f"{source.name}\0".encode())
        for name, content in _files(source):
            whole.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\0".encode())
    return whole.hexdigest()


def _editable(path: Path) -> Iterator[Path]:
    """Yield the folders that a .pth file, or the finder of an editable install, makes importable."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.suffix in (".pth", ".py") else ""
    if path.suffix == ".pth":
        for line in text.splitlines():
            if line.strip() and not line.startswith(("#", "import ", "import\t")) and (path.parent / line).is_dir():
                yield path.parent / line
    elif path.name.startswith("__editable__"):
        for node in ast.parse(text).body:
            if isinstance(node, ast.AnnAssign | ast.Assign) and node.value:
                targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
                if any(isinstance(target, ast.Name) and target.id == "MAPPING" for target in targets):
                    yield from (Path(folder) for folder in ast.literal_eval(node.value).values())


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of a package's files: Python anywhere, small other files beside Python only."""
    if source.with_suffix(".py").is_file() and not source.is_dir():
        source = source.with_suffix(".py")
    if source.is_file():
        yield source.name, source.read_bytes()
    for folder, folders, names in os.walk(source, followlinks=True):
        folders[:] = sorted(
            name
            for name in folders
            if name not in _NOT_CODE
            and not name.startswith(".")
            and not (Path(folder, name, "pyvenv.cfg").exists() or Path(folder, name, "run.json").exists())
        )
        is_package = any(name.endswith(".py") for name in names)
        for name in sorted(names):
            path = Path(folder, name)
            if name.endswith((".py", ".so")) or (is_package and path.is_file() and path.stat().st_size <= _LARGEST):
                yield str(path.relative_to(source)), path.read_bytes()
