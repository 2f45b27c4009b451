"""What is wrong with a pipeline, or might be: codes, and findings that carry them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """An error keeps a pipeline from running, or from running as written; a warning is a reader's to judge."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Code:
    """A kind of finding.

    Attributes:
        meaning: What it says of a pipeline, as docs list it.
    """

    name: str
    severity: Severity
    meaning: str


@dataclass(frozen=True)
class Finding:
    """Something about one place of a pipeline.

    Attributes:
        code: Name of its kind.
        path: Path of the task: the names of the tasks around it and its own, joined with dots; empty: the pipeline.
        message: What, in a sentence without a full stop; begins with the port or the field, where it is about one.
        remedy: How to mend it.
    """

    code: str
    severity: Severity
    path: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        where = f"task {self.path}: " if self.path else ""
        return f"{where}{self.message}{f'; {self.remedy}' if self.remedy else ''}"


def errors(found: Iterable[Finding]) -> list[Finding]:
    """Return the findings that are errors."""
    return [finding for finding in found if finding.severity is Severity.ERROR]


class Codes:
    """Kinds of findings by name: what can be found in one part of the tools.

    Args:
        rows: Name, severity and meaning of each.
    """

    def __init__(self, *rows: tuple[str, Severity, str]) -> None:
        self._known = {name: Code(name, severity, meaning) for name, severity, meaning in rows}

    def __iter__(self) -> Iterator[Code]:
        yield from self._known.values()

    def finding(self, code: str, path: str, message: str, remedy: str = "") -> Finding:
        """Return a finding of a kind that is in the table."""
        return Finding(code, self._known[code].severity, path, message, remedy)
