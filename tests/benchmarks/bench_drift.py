"""detect_drift (all distances, tests, report) beside one bare DuckDB pass over the same Parquet files.

The pass takes the count, the least and the greatest value of each column; nothing that reads every value does less. The
reference is statistics, as validate writes them, and rows. PENSTOCK_BENCH_VALIDATE_ROWS sets the number of rows.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from tests.benchmarks.bench_validate import GIB, ROWS, TURNS, write

ROOT = Path(__file__).parents[2]


def run(scratch: Path) -> list[dict]:
    dataset, statistics = scratch / "dataset", scratch / "statistics"
    write(str(dataset))
    measure("statistics", dataset, statistics)
    ours, bare, memory = [], [], []
    for _ in range(TURNS):  # in turn, so that a slow minute of the machine meets both
        bare.append(measure("bare", dataset)["seconds"])
        found = measure("statistics_as_reference", dataset, statistics, scratch / "outputs")
        ours.append(found["seconds"])
        memory.append(found["bytes"])
    by_rows = measure("rows_as_reference", dataset, scratch / "outputs")["seconds"]
    seconds, baseline, peak = median(ours), median(bare), max(memory)
    what = f"detect_drift on {ROWS:,} rows × 18 columns"
    return [
        {
            "name": f"{what}, beside one pass of DuckDB",
            "ours": seconds,
            "baseline": baseline,
            "unit": "s",
            "ratio": seconds / baseline,
            "goal": "at most 2 times",
            "met": seconds <= 2 * baseline,
        },
        {
            "name": f"{what} with as many of reference, beside two passes of DuckDB",
            "ours": by_rows,
            "baseline": 2 * baseline,
            "unit": "s",
            "ratio": by_rows / baseline / 2,
            "goal": "–",
            "met": None,
        },
        {
            "name": f"{what}: peak memory",
            "ours": peak / GIB,
            "baseline": None,
            "unit": "GiB",
            "ratio": None,
            "goal": "at most 2 GiB",
            "met": peak <= 2 * GIB,
        },
    ]


def measure(*command: str | Path) -> dict:
    """Run one of the jobs below in a process of its own; return its seconds, without imports, and its peak memory."""
    program = [sys.executable, "-m", "tests.benchmarks.bench_drift", *command]
    return json.loads(subprocess.run(program, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout.splitlines()[-1])


def bare(folder: str) -> None:
    import duckdb

    files = f"'{folder}/*.parquet'"
    names = [name for name, *_ in duckdb.sql(f"DESCRIBE FROM {files}").fetchall()]
    parts = ", ".join(f"count({name}), min({name}), max({name})" for name in names)
    duckdb.sql(f"SELECT {parts} FROM {files}").fetchall()


def statistics(folder: str, path: str) -> None:
    from penstock.components.validation.validate import validate

    others = (Path(path).with_name(name) for name in ("schema", "anomalies", "page"))
    validate(folder, path, *others, on_anomaly="report")


def statistics_as_reference(folder: str, path: str, outputs: str) -> None:
    _detect(folder, outputs, reference_statistics=path)


def rows_as_reference(folder: str, outputs: str) -> None:
    _detect(folder, outputs, reference=folder)


def _detect(folder: str, outputs: str, **reference: str) -> None:
    from penstock.components.monitoring.drift import detect

    found = detect(folder, *(Path(outputs) / name for name in ("drift", "report", "prometheus")), **reference)
    assert not found.drifted


def main(name: str, *arguments: str) -> None:
    jobs = {job.__name__: job for job in (bare, statistics, statistics_as_reference, rows_as_reference)}
    import duckdb  # noqa: F401 - what all import is not what is compared

    import penstock.components.monitoring.drift  # noqa: F401

    start = time.perf_counter()
    jobs[name](*arguments)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "bytes": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
