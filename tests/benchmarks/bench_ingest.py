"""ingest beside a bare DuckDB COPY of the same CSV, and its memory at one and five gigabytes."""

import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

GIGABYTES = float(os.environ.get("PENSTOCK_BENCH_INGEST_GB", "1"))
BEST_OF = 3


def run(scratch: Path) -> list[dict]:
    """Measure on sample trips, repeated until the file is large enough."""
    one = _trips(scratch, GIGABYTES)
    size = one.stat().st_size / 1e6
    ours, bare = [], []
    for _ in range(BEST_OF):  # in turn, so that a slow minute of the machine meets both
        ours.append(_measured("ingest", one, scratch))
        bare.append(_measured("copy", one, scratch))
    seconds, baseline = min(time for time, _ in ours), min(time for time, _ in bare)
    peak = max(memory for _, memory in ours)
    five = _measured("ingest", _trips(scratch, 5 * GIGABYTES), scratch)[1]
    rows = [
        {
            "name": f"ingest of a {size / 1e3:.1f} GB CSV, beside a bare DuckDB COPY to Parquet",
            "ours": size / seconds,
            "baseline": size / baseline,
            "unit": "MB/s",
            "ratio": baseline / seconds,
            "goal": "at least 0.8",
            "met": baseline / seconds >= 0.8,
        }
    ]
    for gigabytes, memory in ((size / 1e3, peak), (5 * size / 1e3, five)):
        rows.append(
            {
                "name": f"ingest, peak memory at {gigabytes:.0f} GB",
                "ours": memory,
                "baseline": None,
                "unit": "GiB",
                "ratio": None,
                "goal": "at most 1.5 GiB",
                "met": memory <= 1.5,
            }
        )
    return rows


def _trips(scratch: Path, gigabytes: float) -> Path:
    path = scratch / "trips.csv"
    path.unlink(missing_ok=True)
    penstock = Path(sys.executable).with_name("penstock")
    months = scratch / "months"
    if not months.exists():
        command = [penstock, "sample", "taxi", "--rows", "200000", "--output", months]
        subprocess.run(command, check=True, capture_output=True)
    with path.open("wb") as file:
        head, written = b"", 0
        while written < gigabytes * 1e9:
            for month in sorted(months.glob("*.csv")):
                header, _, rows = month.read_bytes().partition(b"\n")
                if not head:
                    head = header
                    file.write(head + b"\n")
                written += file.write(rows)
    return path


def _measured(what: str, source: Path, scratch: Path) -> tuple[float, float]:
    """Return seconds and peak memory in GiB of a process that does one thing."""
    output = scratch / "output"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    command = [sys.executable, __file__, what, source, output]
    done = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(done[0]), float(done[1])


def _main(what: str, source: str, output: Path) -> None:
    if what == "ingest":
        from penstock.components.ingestion.ingest import ingest

        start = time.perf_counter()
        ingest(source, output / "train", output / "eval", output / "rejects")
    else:
        import duckdb

        start = time.perf_counter()
        duckdb.execute(f"COPY (FROM '{source}') TO '{output / 'copy.parquet'}'")
    print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
