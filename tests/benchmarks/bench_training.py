"""train on parts that are read from disk in every round beside train on the same rows in memory."""

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from tests.benchmarks import bench_predict

ROOT = Path(__file__).parents[2]
ROWS = 2_000_000
ROUNDS = 20
TURNS = 2


def run(scratch: Path) -> list[dict]:
    bench_predict.measure("write", scratch / "rows", str(ROWS))
    bench_predict.measure("write", scratch / "few", str(ROWS // 10))
    return [row for framework in ("xgboost", "lightgbm") for row in compared(framework, scratch)]


def compared(framework: str, scratch: Path) -> list[dict]:
    found: dict[str, list[dict]] = {"whole": [], "parts": []}
    for _ in range(TURNS):  # in turn, so that a slow minute of the machine meets both
        for how, each in found.items():
            each.append(measure(framework, how, scratch / "rows", scratch / "few", scratch / "model"))
    whole, parts = (median(each["seconds"] for each in found[how]) for how in ("whole", "parts"))
    most, least = (max(each["bytes"] for each in found[how]) for how in ("whole", "parts"))
    what = f"train {framework} with external_memory, {ROWS:,} rows × 11 columns"
    return [
        {
            "name": f"{what}, beside all rows in memory",
            "ours": parts,
            "baseline": whole,
            "unit": "s",
            "ratio": parts / whole,
            "goal": "at most 3 times",
            "met": parts <= 3 * whole,
        },
        {
            "name": f"{what}: peak memory",
            "ours": least / 2**30,
            "baseline": most / 2**30,
            "unit": "GiB",
            "ratio": least / most,
            "goal": "–",
            "met": None,
        },
    ]


def measure(*command: str | Path) -> dict:
    program = [sys.executable, "-m", "tests.benchmarks.bench_training", *command]
    return json.loads(subprocess.run(program, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout.splitlines()[-1])


def main(framework: str, how: str, train_set: str, eval_set: str, model: str) -> None:
    import importlib

    from penstock.components.training.fit import fit

    importlib.import_module(framework)  # what both import is not what is compared
    start = time.perf_counter()
    fit(
        train_set, eval_set, model, target="n0", exclude=["id"], framework=framework, max_rounds=ROUNDS,
        external_memory=how == "parts",
    )  # fmt: skip
    seconds = time.perf_counter() - start
    # getrusage() would tell the peak of the process that started this one, where that is the higher.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print(json.dumps({"seconds": seconds, "bytes": int(peak.split()[1]) * 1024}))


if __name__ == "__main__":
    main(*sys.argv[1:])
