"""Runs every bench_*.py beside this file, prints one table and writes it where the README shows it.

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
README = HERE.parents[1] / "README.md"
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
    if chosen == names:  # a part of the table does not replace the whole
        before, _, rest = README.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        README.write_text(before + BEGIN + markdown(rows) + END + after)
    return 0 if all(row["met"] is not False for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
