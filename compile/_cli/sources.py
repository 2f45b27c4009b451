"""Finds what a user names: a component or pipeline by name, a function in a file, a compiled spec."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.compile import catalog
from penstock.compile.errors import PenstockError

if TYPE_CHECKING:
    from penstock.compile.to_kfp import CompiledSpec

Rewrite = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Source:
    """What a user named.

    Attributes:
        name: Name for files made of it.
        package: Distribution it came from; empty for files.
        function: The KFP pipeline or component; None for a compiled spec.
        file: File it came from, where known.
    """

    name: str
    package: str
    function: Any
    file: Path | None

    def compiled(self, rewrite: Rewrite | None = None) -> CompiledSpec:
        """Return the compiled spec of a function, rewritten."""
        from penstock.compile.to_kfp import compiled

        return compiled(self.function, rewrite)

    def text(self) -> str:
        """Return the text of the compiled spec, which is compiled now where it is a function."""
        if self.function is not None:
            return self.compiled().text
        from penstock.compile.documents import text_of

        assert self.file is not None
        return text_of(self.file)

    def spec(self) -> dict[str, Any]:
        """Return the PipelineSpec."""
        if self.function is None:
            from penstock.compile.ports import read_spec

            assert self.file is not None
            return read_spec(self.file)
        from penstock.compile.ports import parse_spec

        return parse_spec(self.compiled().text, self.name)


def find_source(what: str) -> Source:
    """Return what the user named.

    Raises:
        PenstockError: Where there is no such thing.
    """
    if what.endswith((".yaml", ".yml", ".json")):
        path = Path(what)
        if not path.is_file():
            raise PenstockError(f"{what}: {'is a folder' if path.is_dir() else 'there is no such file'}")
        if path.stem == "job":
            _refuse_job(path)
        return Source(path.stem, "", None, path)
    if what.endswith(".py") or ".py:" in what:
        from penstock.compile.to_kfp import load_function

        file, _, name = what.rpartition(":")
        return Source(name, "", load_function(what), Path(file))
    try:
        entry = catalog.find(what)
    except PenstockError:
        if Path(what).is_dir():
            _refuse_job(Path(what))
            raise PenstockError(f"{what}: is a folder; name a file in it, or give --each where there is one") from None
        raise
    return Source(entry.name, entry.package, entry.function, entry.source)


def _refuse_job(path: Path) -> None:
    """Refuse a converted job, as its folder or its job.yml, which is no spec."""
    from penstock.compile.targets.azureml import convert, emit

    folder = path if path.is_dir() else path.parent
    if path in (folder, folder / emit.JOB) and (folder / convert.MARK).is_file():
        raise PenstockError(
            f"{path}: is a job that was converted for Azure ML: penstock run {path} --target azureml-local"
        )


def compile_all(
    names: Sequence[str], everything: bool, folder: Path, rewrite: Rewrite | None = None
) -> list[tuple[Path, CompiledSpec]]:
    """Compile what is named, or all that is listed, into `folder`; return paths and specs.

    Args:
        rewrite: Makes of each PipelineSpec the one that is written.

    Raises:
        PenstockError: Where something is not there, is compiled already, or two would have one file.
    """
    if everything:
        sources = [Source(entry.name, entry.package, entry.function, None) for entry in catalog.entries()]
    else:
        sources = [find_source(name) for name in names]
    specs: dict[Path, CompiledSpec] = {}
    for source in sources:
        if source.function is None:
            raise PenstockError(f"{source.file} is compiled already")
        path = folder / f"{source.name}.yaml"
        if path in specs:
            raise PenstockError(f"two would be written to {path}; compile them into folders of their own")
        specs[path] = source.compiled(rewrite)
    for path, spec in specs.items():
        try:
            spec.write(path)
        except OSError as error:
            raise PenstockError(f"{path}: cannot be written: {error.strerror}") from error
    return list(specs.items())
