"""What workers of a pipeline on Beam are sent, whatever the pipeline: items to work on, and lines to tell.

It is a module of its own because it imports Beam, and is known to workers by its name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

import apache_beam

from penstock.components._shared import places


def versions() -> dict[str, str]:
    """Return the versions that step and workers have to have in common."""
    python = ".".join(map(str, sys.version_info[:2]))
    return {"Python": python, **{name: version(name) for name in ("apache-beam", "penstock")}}


class Items(apache_beam.DoFn):
    """Items to work on, for workers of the step's own versions: what one Python pickles another may misread."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = list(items)
        self._versions = versions()

    def process(self, element: bytes) -> Iterator[Any]:
        """Yield them.

        Raises:
            RuntimeError: A version is another.
        """
        pairs = zip(versions().items(), self._versions.values(), strict=True)
        if differing := [f"{name} {here}, not {wanted}" for (name, here), wanted in pairs if here != wanted]:
            raise RuntimeError(f"the workers have {' and '.join(differing)} as the step")
        yield from self._items


def write_lines(lines: Sequence[str], target: str) -> None:
    """Write lines to a place."""
    places.write("\n".join(lines).encode(), target)
