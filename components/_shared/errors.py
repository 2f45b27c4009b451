"""Errors that a user can mend: one line that says what, where, why and what to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

USER_ERROR_EXIT_CODE = 65  # EX_DATAERR of sysexits.h; a bug of ours exits with 1 and a traceback


class UserError(Exception):
    """Bad input of a component.

    Attributes:
        component: Name of the component, for example "ingest".
        argument: The argument that is wrong.
    """

    def __init__(self, component: str, argument: str, problem: str, remedy: str) -> None:
        self.component, self.argument, self.problem, self.remedy = component, argument, problem, remedy
        super().__init__(component, argument, problem, remedy)

    def __str__(self) -> str:
        line = f"{self.component}: {self.argument}: {self.problem.rstrip('.')}. {self.remedy.rstrip('.')}."
        return " ".join(line.split())


@contextmanager
def on_behalf_of(component: str, argument: str = "") -> Iterator[None]:
    """Let errors of a block be those of the component, and the argument, that a user knows, whoever shares the code."""
    try:
        yield
    except UserError as error:
        raise UserError(component, argument or error.argument, error.problem, error.remedy) from error.__cause__


def _print_one_line(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if not isinstance(error, UserError):
        sys.__excepthook__(kind, error, traceback)
        return
    sys.stdout.flush()
    print(f"error: {error}", file=sys.stderr, flush=True)
    raise SystemExit(USER_ERROR_EXIT_CODE)


# KFP's executor sets this where it calls a component in a process of its own. There a user's mistake
# ends as one line and a distinct exit code; in a notebook or a test it stays an ordinary exception.
if os.environ.get("_KFP_RUNTIME") == "true":
    sys.excepthook = _print_one_line
