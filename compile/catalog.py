"""Finds components, pipelines and samples: by entry points, so that those of other packages are listed beside ours.

A package declares the groups penstock.components and penstock.pipelines (a module whose `__all__` lists them) and
penstock.samples (a function `write(output: Path, rows: int, seed: int = 0) -> list[Path]`) in its metadata.
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from penstock.compile.errors import PenstockError

GROUPS = {"component": "penstock.components", "pipeline": "penstock.pipelines"}
SAMPLES = "penstock.samples"


@dataclass(frozen=True)
class Entry:
    """A component or a pipeline that an installed package offers.

    Attributes:
        name: Name of the function.
        kind: "component" or "pipeline".
        package: Name of the distribution.
        function: The KFP component or pipeline.
    """

    name: str
    kind: str
    package: str
    function: Any

    @cached_property
    def sentence(self) -> str:
        """First sentence of its description."""
        return first_sentence(self.function.description or "")

    @cached_property
    def source(self) -> Path | None:
        """File of its declaration."""
        function = python_function(self.function)
        file = inspect.getsourcefile(function) if function else None
        return Path(file).resolve() if file else None


@dataclass(frozen=True)
class Sample:
    """A function that writes sample data.

    Attributes:
        name: Name of the data.
        sentence: First sentence of the function's docstring.
        write: Takes output (a folder), rows and seed, returns the files written.
    """

    name: str
    sentence: str
    write: Callable[..., list[Path]]


def entries(kind: str | None = None) -> list[Entry]:
    """Return the components, then the pipelines, by name.

    What cannot be imported is left out with a warning.
    """
    found, left_out = _listed(kind)
    for reason in left_out:
        warnings.warn(reason, stacklevel=2)
    return found


def find(name: str) -> Entry:
    """Return the entry of that name: train, tabular_training, tabular-training or penstock/train.

    Raises:
        PenstockError: Where no package, or more than one, has it.
    """
    known, left_out = _listed()
    package, _, wanted = name.rpartition("/")
    wanted = wanted.replace("-", "_")
    found = [entry for entry in known if entry.name == wanted and package in ("", entry.package)]
    if not found:
        names = [entry.name for entry in known]
        reasons = "".join(f"; {reason}" for reason in left_out)  # any of them may be why it is not there
        raise PenstockError(f"there is no component or pipeline {name}{_known(wanted, names)}{reasons}")
    if len(found) > 1:
        choices = ", ".join(sorted(f"{entry.package}/{entry.name} (a {entry.kind})" for entry in found))
        raise PenstockError(f"{name} can be any of {choices}; give the package too, or FILE.py:function")
    return found[0]


def sample_names() -> list[str]:
    """Return the names of the samples without importing them."""
    return sorted({point.name for point in entry_points(group=SAMPLES)})


def known_sample(name: str) -> EntryPoint:
    """Return where the sample of that name is, without importing it.

    Raises:
        PenstockError: Where there is none.
    """
    points = list(entry_points(group=SAMPLES, name=name))
    if not points:
        raise PenstockError(f"there is no sample {name}{_known(name, sample_names())}")
    return points[0]


def find_sample(name: str) -> Sample:
    """Return the sample of that name.

    Raises:
        PenstockError: Where there is none, or it cannot be imported.
    """
    point = known_sample(name)
    try:
        write = point.load()
    except (ImportError, AttributeError) as error:
        raise PenstockError(
            f"the sample {name} cannot be loaded: {error}; is the extra that it needs installed?"
        ) from error
    return Sample(name, first_sentence(inspect.getdoc(write) or ""), write)


def first_sentence(text: str) -> str:
    """Return the first paragraph of a docstring up to its first full stop."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    sentence, stop, _ = paragraph.partition(". ")
    return sentence + "." if stop else paragraph


def python_function(component: Any) -> Callable[..., Any] | None:
    """Return the function that was decorated, or None for what came from YAML."""
    return getattr(component, "python_func", None) or getattr(component, "pipeline_func", None)


def _listed(kind: str | None = None) -> tuple[list[Entry], list[str]]:
    """Return what there is, and why each module that cannot be imported is left out."""
    found, left_out = [], []
    for group_kind, group in GROUPS.items():
        if kind in (None, group_kind):
            listed: list[Entry] = []
            for point in entry_points(group=group):
                package = point.dist.name if point.dist else point.module
                try:
                    module = point.load()
                    listed += [Entry(name, group_kind, package, getattr(module, name)) for name in module.__all__]
                except Exception as error:
                    left_out.append(f"{package}: {point.value} is left out: {type(error).__name__}: {error}")
            found += sorted(listed, key=lambda entry: (entry.name, entry.package))
    return found, left_out


def _known(wanted: str, names: Iterable[str]) -> str:
    names = sorted(set(names))
    close = difflib.get_close_matches(wanted, names, n=1)
    guess = f"; did you mean {close[0]}?" if close else ";"
    return f"{guess} known: {', '.join(names) or 'none'}"
