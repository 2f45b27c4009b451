"""The whole of tabular_training: real trips where they are at hand, sample trips of the same size elsewhere."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

TRIPS = 150_000
PENSTOCK = Path(sys.executable).with_name("penstock")


def run(scratch: Path) -> list[dict]:
    shared = Path(os.environ.get("PENSTOCK_SHARED", Path(__file__).parents[3] / "shared"))
    trips = shared / "data" / "taxi"
    kind = "real"
    if not trips.is_dir():
        kind, trips = "sample", scratch / "trips"
        subprocess.run([PENSTOCK, "sample", "taxi", "--rows", str(TRIPS), "--output", trips], check=True)
    command = [PENSTOCK, "run", "tabular_training", "--json", "--root", scratch / "out", "-p", f"source={trips}/*.csv"]
    start = time.perf_counter()
    record = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    seconds = time.perf_counter() - start
    assert record["state"] == "SUCCEEDED"
    return [
        {
            "name": f"tabular_training on {TRIPS:,} {kind} trips",
            "ours": seconds,
            "baseline": None,
            "unit": "s",
            "ratio": None,
            "goal": "under 40 s on 2 cores",
            "met": seconds < 40,
        }
    ]
