"""validate (statistics, schema, anomalies, report) beside one bare DuckDB SUMMARIZE of the same Parquet files.

PENSTOCK_BENCH_VALIDATE_ROWS sets the number of rows, 10 million if it is not set.
"""

import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

ROWS = int(os.environ.get("PENSTOCK_BENCH_VALIDATE_ROWS", 10_000_000))
PARTS = 4
TURNS = 3
GIB = 2**30
# 18 columns like those of taxi trips; h(k) stands for the k-th random number of row i.
TRIPS = """
SELECT 1 + h(1) % 2 AS vendor_id,
       TIMESTAMP '2018-01-01' + to_seconds(h(2) % 31536000) AS pickup_datetime,
       TIMESTAMP '2018-01-01' + to_seconds(h(2) % 31536000 + 60 + h(3) % 3600) AS dropoff_datetime,
       CASE WHEN h(4) % 100 > 0 THEN h(4) % 7 END AS passenger_count,
       round(-2.9 * ln((h(5) % 1000000 + 1) / 1000001), 2) AS trip_distance,
       1 + h(6) % 6 AS rate_code_id,
       CASE WHEN h(7) % 200 = 0 THEN 'Y' ELSE 'N' END AS store_and_fwd_flag,
       1 + h(8) % 265 AS pickup_location_id,
       1 + h(9) % 265 AS dropoff_location_id,
       1 + h(10) % 4 AS payment_type,
       round(2.5 + h(5) % 1000000 / 20000, 1) AS fare_amount,
       h(11) % 3 * 0.5::DOUBLE AS extra,
       0.5::DOUBLE AS mta_tax,
       h(12) % 2000 / 100 AS tip_amount,
       CASE WHEN h(13) % 20 = 0 THEN 5.76 ELSE 0 END::DOUBLE AS tolls_amount,
       0.3::DOUBLE AS improvement_surcharge,
       h(14) % 10000 / 100 AS total_amount,
       CASE WHEN h(15) % 2 = 0 THEN 2.5 END::DOUBLE AS congestion_surcharge
FROM range({low}, {high}) trips(i)
"""
TRIPS = re.sub(r"h\((\d+)\)", r"(hash(i, \1) >> 1)::BIGINT", TRIPS)


def run(scratch: Path) -> list[dict]:
    dataset = scratch / "dataset"
    measure("write", dataset)
    ours, bare, memory = [], [], []
    for _ in range(TURNS):
        bare.append(measure("summarize", dataset)["seconds"])
        found = measure("validate", dataset, scratch / "outputs")
        ours.append(found["seconds"])
        memory.append(found["bytes"])
    seconds, baseline, peak = median(ours), median(bare), max(memory)
    what = f"{ROWS:,} rows × 18 columns"
    return [
        {
            "name": f"validate {what}, beside SUMMARIZE",
            "ours": seconds,
            "baseline": baseline,
            "unit": "s",
            "ratio": seconds / baseline,
            "goal": "at most 3 times",
            "met": seconds <= 3 * baseline,
        },
        {
            "name": f"validate {what}: peak memory",
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
    return json.loads(subprocess.run([sys.executable, __file__, *command], check=True, stdout=subprocess.PIPE).stdout)


def write(folder: str) -> None:
    import duckdb
    import pyarrow.parquet

    from penstock.components._shared.dataset import KIND
    from penstock.components._shared.sealed import new_folder, seal

    with new_folder(folder) as dataset:
        for part in range(PARTS):
            trips = duckdb.sql(TRIPS.format(low=ROWS * part // PARTS, high=ROWS * (part + 1) // PARTS))
            trips.write_parquet(str(dataset / f"part-{part:05d}.parquet"), compression="zstd")
        schema = pyarrow.parquet.read_schema(dataset / "part-00000.parquet")
        columns = [{"name": field.name, "type": str(field.type)} for field in schema]
        seal(dataset, KIND, {"rows": ROWS, "schema": columns, "fingerprint": "synthetic"})


def summarize(folder: str) -> None:
    import duckdb

    duckdb.sql(f"SUMMARIZE SELECT * FROM '{folder}/*.parquet'").fetchall()


def validate(folder: str, outputs: str) -> None:
    from penstock.components.validation.validate import validate

    names = ("statistics", "schema", "anomalies", "report")
    assert validate(folder, *(Path(outputs) / name for name in names)).valid


def main(name: str, *arguments: str) -> None:
    jobs: dict[str, Callable[..., None]] = {"write": write, "summarize": summarize, "validate": validate}
    if name != "write":  # what both import is not what is compared
        import duckdb  # noqa: F401

        import penstock.components.validation.validate  # noqa: F401
    start = time.perf_counter()
    jobs[name](*arguments)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "bytes": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
