"""Runs every bench_*.py beside this file, prints one table and writes it into docs/benchmarks.md.

Of a part of them, it writes the rows that were measured.

Each has a function run(scratch) that measures ours and the plain alternative in the same run, and returns rows:
name, ours, baseline (None where there is nothing to compare with), unit, ratio (ours to baseline), goal, met.
"""

import argparse
import importlib
import os
import platform
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- benchmarks -->\n", "<!-- /benchmarks -->\n"
COLUMNS = ("measured", "ours", "beside it", "ratio", "goal", "met")


def cells(row: dict) -> tuple[str, ...]:
    def shown(value: float | None) -> str:
        return "–" if value is None else f"{value:,.3g} {row['unit']}"

    ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}"
    met = {True: "yes", False: "**no**", None: "–"}[row["met"]]
    return (row["name"], shown(row["ours"]), shown(row["baseline"]), ratio, row["goal"], met)


def markdown(rows: list[dict]) -> str:
    machine = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    lines = [" | ".join(COLUMNS), " | ".join(["---"] * len(COLUMNS)), *(" | ".join(cells(row)) for row in rows)]
    return "\n".join([f"Measured by `make bench` on {machine}.", "", *(f"| {line} |" for line in lines), ""])


def updated(table: str, part: str) -> str:
    """Return a table in which the rows of a part of the benchmarks are those measured now, new ones last."""
    lines, new = table.splitlines(), {name(line): line for line in part.splitlines() if line.startswith("| ")}
    lines = [new.pop(name(line), line) if line.startswith("| ") else line for line in lines]
    end = next(index for index in range(len(lines), 0, -1) if lines[index - 1].startswith("| "))
    return "\n".join([*lines[:end], *new.values(), *lines[end:], ""])


def name(line: str) -> str:
    return line.split(" | ")[0]


def main() -> int:
    names = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    arguments = argparse.ArgumentParser(prog="make bench", description=__doc__)
    arguments.add_argument("names", nargs="*", metavar="NAME", help=f"which to run: {', '.join(names)} (default: all)")
    chosen = arguments.parse_args().names or names
    if unknown := sorted(set(chosen) - set(names)):
        arguments.error(f"unknown: {', '.join(unknown)}; there are {', '.join(names)}")
    rows = []
    for name in chosen:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
            rows += importlib.import_module(f"tests.benchmarks.bench_{name}").run(Path(scratch))
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*cells(row))
    Console(width=140).print(table)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    shown, _, after = rest.partition(END)
    now = markdown(rows) if chosen == names else updated(shown, markdown(rows))
    PAGE.write_text(before + BEGIN + now + END + after)
    return 0 if all(row["met"] is not False for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
