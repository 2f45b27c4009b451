"""Tables and JSON for the terminal."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.compile.catalog import Entry
from penstock.compile.errors import PenstockError
from penstock.compile.ports import Description, Port, shown
from penstock.compile.whole_files import write_text

# Wide enough that nothing is folded or cut where a program reads.
_UNFOLDED = 10_000


def console(stream: TextIO | None = None, *, folded: bool = True) -> Console:
    """Return a console on stdout, or the stream given; one that is not folded leaves long lines to the terminal."""
    file = stream or sys.stdout
    if file.isatty():
        return Console(file=file, width=None if folded else _UNFOLDED, highlight=False, soft_wrap=False)
    return Console(file=_Unpadded(file), width=_UNFOLDED, highlight=False, soft_wrap=False)  # type: ignore[arg-type]


class _Unpadded:
    """A stream that leaves out the spaces with which tables fill their last column."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return self._stream.write(re.sub(r"(?m) +$", "", text))


def print_json(value: Any) -> None:
    """Print `value` as JSON."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write(text: str, path: Path | None) -> None:
    """Write `text` to a file, whole or not at all; to stdout where there is none.

    Raises:
        PenstockError: The file cannot be written.
    """
    if path is None:
        sys.stdout.write(text)
        return
    try:
        write_text(path, text)
    except OSError as error:
        raise PenstockError(f"{path}: cannot be written: {error.strerror}") from error


def table(columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> Table:
    """Return a table without frames; the last column takes the room that is left."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        drawn.add_column(column, overflow="fold", no_wrap=False, ratio=None if index < len(columns) - 1 else 1)
    for row in rows:
        drawn.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return drawn


def print_entries(found: Sequence[Entry]) -> None:
    """Print the components and the pipelines."""
    out = console()
    for kind in ("component", "pipeline"):
        rows = [[entry.name, entry.sentence, entry.package] for entry in found if entry.kind == kind]
        if rows:
            out.print(Text(f"{kind.capitalize()}s", style="bold cyan"))
            out.print(table(["name", "what it does", "package"], rows))
            out.print()


def print_description(description: Description, package: str) -> None:
    """Print what a pipeline or component takes and gives."""
    out = console()
    origin = f" of {package}" if package else ""
    out.print(Text.assemble((description.name, "bold"), f"  {description.kind}{origin}"))
    if description.description:
        out.print()
        out.print(Text(description.description))
    out.print()
    for direction in ("input", "output"):
        ports = [port for port in description.ports if port.direction == direction]
        if not ports:
            continue
        out.print(Text(f"{direction.capitalize()}s", style="bold cyan"))
        if direction == "input":
            described = [(port.name, port.type, _default(port), port.description) for port in ports]
            out.print(table(["name", "type", "default", "description"], described))
        else:
            out.print(
                table(["name", "type", "description"], [[port.name, port.type, port.description] for port in ports])
            )
        out.print()
    for image in description.images:
        out.print(Text.assemble("image  ", image))


def _default(port: Port) -> Text:
    if port.required:
        return Text("required", style="yellow")
    if port.default is None:
        return Text("optional", style="dim")
    text = shown(port.default)
    return Text(text if len(text) <= 60 else text[:57] + "…")
