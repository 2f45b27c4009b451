"""From a pipeline function to the bytes of its spec; the one module that needs kfp's compiler.

kfp's own writer prints dict defaults in hash order into a comment, breaks that comment at the first default of several
lines, and stamps embedded files with the time. What is written here depends on the source alone.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.util
import io
import re
import struct
import sys
import tarfile
import traceback
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from google.protobuf import json_format
from kfp.dsl.base_component import BaseComponent

from penstock.compile.catalog import python_function
from penstock.compile.errors import PenstockError
from penstock.compile.sharing import share
from penstock.compile.whole_files import write_text
from penstock.compile.yaml_writer import printable, to_yaml

_ARCHIVE = re.compile(r"(?<=__KFP_EMBEDDED_ARCHIVE_B64 = ')[A-Za-z0-9+/=]+(?=')")


@dataclass(frozen=True)
class CompiledSpec:
    """A compiled pipeline or component.

    Attributes:
        name: Name of the pipeline in the spec.
        text: The YAML: the spec and, where there is one, the platform spec as a second document.
        sha256: Of the text in UTF-8.
    """

    name: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write the text to `path`, whole or not at all."""
        write_text(path, self.text)


def compiled(function: Any, rewrite: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> CompiledSpec:
    """Return the spec of a pipeline, or of a component as a pipeline of one task; what is the same in it is there once.

    Args:
        function: What `@dsl.pipeline`, `@dsl.component`, `@dsl.container_component` or `kfp.components.load_…` gave.
        rewrite: Makes of the PipelineSpec the one that is written.
    """
    spec = json_format.MessageToDict(function.pipeline_spec)
    if rewrite:
        spec = rewrite(spec)
    found = share(_with_settled_archives(spec), json_format.MessageToDict(function.platform_spec))
    name = spec["pipelineInfo"]["name"]
    text = _heading(name, function.description or "") + "---\n".join(to_yaml(each) for each in found if each)
    return CompiledSpec(name, text)


def is_compilable(value: Any) -> bool:
    """Return whether `value` is a pipeline or a component."""
    return isinstance(value, BaseComponent)


def load_function(reference: str) -> Any:
    """Return the pipeline or component that "FILE.py:function" names.

    Raises:
        PenstockError: Where there is no such file or function, the file cannot be imported, or the function is
            neither a pipeline nor a component.
    """
    file, _, name = reference.rpartition(":") if not reference.endswith(".py") else (reference, "", "")
    path = Path(file)
    if not path.is_file():
        raise PenstockError(f"{file}: there is no such file")
    module = _imported(path)
    known = {key: value for key, value in vars(module).items() if is_compilable(value) and not key.startswith("_")}
    own = [key for key, value in known.items() if getattr(python_function(value), "__module__", "") == module.__name__]
    listed = ", ".join(f"{file}:{key}" for key in own or known) or "none; is @dsl.pipeline missing?"
    if not name:
        raise PenstockError(f"{file}: say which function; its pipelines and components: {listed}")
    if not hasattr(module, name):
        raise PenstockError(f"{file} has no {name}; its pipelines and components: {listed}")
    function = getattr(module, name)
    if not is_compilable(function):
        raise PenstockError(
            f"{reference} is neither a pipeline nor a component but a {type(function).__name__}; "
            f"decorate it with @dsl.pipeline, or use one of: {listed}"
        )
    return function


def _heading(name: str, description: str) -> str:
    # kfp reads the description back from the third line on.
    first, *more = [printable(line) for line in description.strip().split("\n")]
    lines = ["PIPELINE DEFINITION", f"Name: {printable(name)}"]
    if first:
        lines += [f"Description: {first}", *(f"             {line}" for line in more)]
    return "".join(f"# {line}\n" for line in lines)


def _imported(path: Path) -> ModuleType:
    """Return the module of a user's file, imported as if Python had been started in its folder."""
    folder = str(path.resolve().parent)
    with _first_on_path(folder), contextlib.redirect_stdout(sys.stderr):
        spec = importlib.util.spec_from_file_location(_module_name(path), path.resolve())
        assert spec is not None  # for it ends in .py
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[spec.name]
            said = error.msg if isinstance(error, SyntaxError) else error
            raise PenstockError(f"{_place(error, path)}: {type(error).__name__}: {said}") from error
    return module


@contextlib.contextmanager
def _first_on_path(folder: str) -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path[:] = before


def _module_name(path: Path) -> str:
    """Return the name a neighbour would import the file by, or another where that name is taken."""
    name = path.stem
    if not name.isidentifier() or name in sys.stdlib_module_names or name in sys.modules:
        return "penstock_loaded_" + re.sub(r"\W", "_", name)
    return name


def _place(error: BaseException, path: Path) -> str:
    """Return the file and the last line in it that led to the error."""
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).name == path.name:
        return f"{path}:{error.lineno}"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path.resolve())
    ]
    return f"{path}:{lines[-1]}" if lines else str(path)


def _with_settled_archives(value: Any) -> Any:
    """Return a spec whose embedded archives depend on the embedded files' names and content alone."""
    if isinstance(value, dict):
        return {key: _with_settled_archives(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_settled_archives(item) for item in value]
    if isinstance(value, str) and "__KFP_EMBEDDED_ARCHIVE_B64" in value:
        return _ARCHIVE.sub(lambda match: _settled(match[0]), value)
    return value


def _settled(archive: str) -> str:
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(base64.b64decode(archive)), mode="r:gz") as old,
        tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            if "__pycache__" in Path(member.name).parts:
                continue  # byte-code differs between Python versions
            member.mtime = 0
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isreg() else None)
    data = out.getvalue()
    # gzip's header has fields that Python's versions fill differently.
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    body = deflate.compress(data) + deflate.flush()
    packed = b"\x1f\x8b\x08\0\0\0\0\0\x02\xff" + body + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
    return base64.b64encode(packed).decode()
