"""Tells others of a run, as the options of `penstock run` ask for."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from penstock.compile.targets.local import events, lineage
from penstock.compile.targets.local.record import RunRecord

Observe = Callable[[RunRecord], None]


@dataclass(frozen=True)
class Watch:
    """Who is told of a run.

    Attributes:
        events: File, FIFO or "-" for lines of JSON.
        openlineage: URL of a backend; the environment's OPENLINEAGE_URL where it is not given.
    """

    events: str | None = None
    openlineage: str | None = None

    @property
    def takes_stdout(self) -> bool:
        """Whether nothing else may go to stdout."""
        return self.events == events.STDOUT

    @contextlib.contextmanager
    def observers(self) -> Iterator[list[Observe]]:
        """Give the observers; at the end, a warning for each that could not tell everything.

        Raises:
            PenstockError: one of them cannot begin.
        """
        told = [lineage.configured(self.openlineage), events.Events(self.events) if self.events else None]
        observers = [each for each in told if each]
        try:
            yield [*observers]
        finally:
            for each in observers:
                if warning := each.close():
                    print(f"warning: {warning}", file=sys.stderr)
