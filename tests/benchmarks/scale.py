"""Measures how seconds and memory grow with rows, on this machine, and writes the table into docs/scale.md.

    python -m tests.benchmarks.scale --rows 1e5 1e6 1e7 --scratch /a/disk

Each step runs in a process of its own, on Parquet files of made-up rows (an id, ten numbers, a text of 26 values); its
peak is that of the process. Of steps that were measured before, rows are written anew and others are left.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.bench_predict import NUMBERS, QUERY

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "scale.md"
BEGIN, END = "<!-- curves -->\n", "<!-- /curves -->\n"
ROUNDS = 20
PART = 10_000_000  # rows of a file
EXTERNAL = ("", "_external")
STEPS = (
    "ingest",
    "validate",
    *(f"train_{framework}{how}" for framework in ("xgboost", "lightgbm") for how in EXTERNAL),
    "predict_batch",
)


def source(folder: Path, rows: int) -> None:
    """Write Parquet files of as many rows."""
    import duckdb

    folder.mkdir(parents=True)
    with duckdb.connect() as connection:
        for place, first in enumerate(range(0, rows, PART)):
            query = QUERY.format(numbers=NUMBERS, rows=f"{first}, {min(first + PART, rows)}")
            # The target is a sum, so that there is something to learn.
            connection.execute(
                f"COPY (SELECT *, n0 + n1 * (zone < 'm')::INTEGER + n9 / 10 AS y FROM ({query})) "
                f"TO '{folder}/{place:03}.parquet'"
            )


def ingest(scratch: Path) -> None:
    from penstock.components.ingestion.ingest import ingest

    ports = [scratch / name for name in ("train_set", "eval_set", "rejects")]
    ingest(f"{scratch}/source/*.parquet", *ports, split_keys=["id"], eval_fraction=0.1)


def validate(scratch: Path) -> None:
    from penstock.components.validation.validate import validate

    ports = [scratch / name for name in ("statistics", "schema", "anomalies", "report.html")]
    validate(scratch / "train_set", *ports)


def train(scratch: Path, framework: str, external: bool) -> None:
    from penstock.components.training.fit import fit

    fit(
        scratch / "train_set", scratch / "eval_set", scratch / "model", target="y", exclude=["id"],
        framework=framework, max_rounds=ROUNDS, early_stopping_rounds=0, external_memory=external,
    )  # fmt: skip


def predict_batch(scratch: Path) -> None:
    from penstock.components.prediction.predict import predict

    predict(scratch / "model", scratch / "train_set", scratch / "predictions", scratch / "bad", keep=["id"])


def step(name: str, scratch: Path) -> None:
    """Run one step in this process, and print seconds, those of all its processors together, and peak memory."""
    began, processors = time.perf_counter(), time.process_time()
    if name.startswith("train_"):
        train(scratch, name.split("_")[1], name.endswith("_external"))
    else:
        {each.__name__: each for each in (ingest, validate, predict_batch)}[name](scratch)
    seconds, processors = time.perf_counter() - began, time.process_time() - processors
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print(json.dumps({"seconds": seconds, "processors": processors, "bytes": int(peak.split()[1]) * 1024}))


def measured(name: str, scratch: Path) -> str:
    """Return a cell of the table: what a step took, or why it was not done."""
    command = [sys.executable, "-m", "tests.benchmarks.scale", "--step", name, "--scratch", scratch]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [""])[-1]
        print(f"{name}: {said}", file=sys.stderr)
        return "refused" if "UserError" in said else "failed"
    found = json.loads(done.stdout.splitlines()[-1])
    return f"{found['seconds']:,.3g} s ({found['processors']:,.3g} s), {found['bytes'] / 2**30:.2f} GiB"


def updated(page: str, cells: dict[tuple[str, int], str]) -> str:
    """Return the page with the cells in its table, those of other rows and steps left as they are."""
    before, _, rest = page.partition(BEGIN)
    table, _, after = rest.partition(END)
    lines = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
    if lines:
        counts = [int(each.removesuffix(" rows").replace(",", "")) for each in lines[0][1:]]
        known = {(line[0], count): cell for line in lines[2:] for count, cell in zip(counts, line[1:], strict=True)}
        cells = {**{each: cell for each, cell in known.items() if cell != "–"}, **cells}
    counts = sorted({count for _, count in cells})
    lines = [["step", *(f"{count:,} rows" for count in counts)], ["---"] * (len(counts) + 1)]
    lines += [[name, *(cells.get((name, count), "–") for count in counts)] for name in STEPS]
    return before + BEGIN + "".join(f"| {' | '.join(line)} |\n" for line in lines) + END + after


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale", description=__doc__)
    arguments.add_argument("--rows", nargs="+", type=float, default=[1e5, 1e6, 1e7])
    arguments.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    arguments.add_argument("--scratch", type=Path, required=True)
    arguments.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.step:
        step(given.step, given.scratch)
        return
    for rows in map(int, given.rows):
        scratch = given.scratch / f"{rows}"
        source(scratch / "source", rows)
        for name in given.steps:
            load = os.getloadavg()[0]
            cell = measured(name, scratch)
            print(f"{rows:,} rows: {name}: {cell} (load before: {load:.1f})", flush=True)
            PAGE.write_text(updated(PAGE.read_text(), {(name, rows): cell}))
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
