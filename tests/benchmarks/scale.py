"""Measures how seconds and memory grow with rows, on this machine, and writes the table into docs/scale.md.

    python -m tests.benchmarks.scale --rows 1e5 1e6 1e7 --scratch /a/disk
    python -m tests.benchmarks.scale --rows 1e5 1e6 --scratch /a/disk --beam

Each step runs in a process of its own, on Parquet files of made-up rows (an id, ten numbers, a text of 26 values); its
peak is that of the process. Those on Beam run by its DirectRunner in the image penstock/beam, which is built where it
is not there. Of steps that were measured before, rows are written anew and others are left.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.benchmarks.bench_predict import NUMBERS, QUERY

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "scale.md"
BEGIN, END = "<!-- curves -->\n", "<!-- /curves -->\n"
ROUNDS = 20
PART = 10_000_000  # rows of a file


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


def ingest(scratch: Path, engine: str = "local") -> None:
    from penstock.components.ingestion.ingest import ingest

    ports = [scratch / name for name in ("train_set", "eval_set", "rejects")]
    ingest(f"{scratch}/source/*.parquet", *ports, split_keys=["id"], eval_fraction=0.1, engine=engine)


def validate(scratch: Path, engine: str = "local") -> None:
    from penstock.components.validation.validate import validate

    ports = [scratch / name for name in ("statistics", "schema", "anomalies", "report.html")]
    validate(scratch / "train_set", *ports, engine=engine)


def transform(scratch: Path) -> None:
    from penstock.components.transformation.transform import transform

    ports = [scratch / name for name in ("transformed_train", "transformed_eval", "graph")]
    features = {**{f"n{place}": "scale" for place in range(10)}, "zone": {"vocabulary": 26}}
    transform((str(scratch / "train_set"), ""), (str(scratch / "eval_set"), ""), *ports, features=features, keep=["y"])


def train(scratch: Path, framework: str, external: bool = False) -> None:
    from penstock.components.training.fit import fit

    fit(
        scratch / "train_set", scratch / "eval_set", scratch / "model", target="y", exclude=["id"],
        framework=framework, max_rounds=ROUNDS, early_stopping_rounds=0, external_memory=external,
    )  # fmt: skip


def predict_batch(scratch: Path, engine: str = "local") -> None:
    from penstock.components.prediction.predict import predict

    ports = [scratch / name for name in ("model", "train_set", "predictions", "bad")]
    predict(*ports, keep=["id"], engine=engine)


def evaluate(scratch: Path, slices: tuple[str, ...] = (), engine: str = "local") -> None:
    from penstock.components.evaluation.evaluate import evaluate

    ports = [scratch / name for name in ("model", "train_set", "evaluation", "page.html")]
    evaluate(*ports, slices=slices, engine=engine)


def explain(scratch: Path) -> None:
    from penstock.components.explanation.explain import explain

    ports = [scratch / name for name in ("attributions", "explanation", "vertex", "explained.html")]
    explain(scratch / "model", scratch / "train_set", *ports)


def detect_drift(scratch: Path) -> None:
    from penstock.components.monitoring.drift import detect

    ports = [scratch / name for name in ("drift", "drift.html", "drift.prom")]
    detect(scratch / "train_set", *ports, reference=scratch / "eval_set")


def monitor_performance(scratch: Path) -> None:
    from penstock.components.monitoring.performance import monitor

    ports = [scratch / name for name in ("performance", "performance.html", "performance.prom")]
    monitor(scratch / "predictions", scratch / "train_set", *ports, target="y", keys=["id"], time_column="")


def compute_features(scratch: Path) -> None:
    from penstock.components.features.compute import compute

    aggregates = {"rides": "count", "mean": "mean(n0)", "most": "max(n1)"}
    compute(scratch / "timed", scratch / "features", entities=["zone"], timestamp="at", aggregates=aggregates)


def timed(scratch: Path) -> None:
    """Write the rows of a year for compute_features."""
    from penstock.components.ingestion.ingest import ingest

    query = "SELECT zone, n0, n1, make_timestamp(1767225600000000 + id * 31536000 % 31536000000000) AS at FROM source"
    ingest(f"{scratch}/source/*.parquet", scratch / "timed", scratch / "e", scratch / "r", query=query, eval_fraction=0)


@dataclass(frozen=True)
class Step:
    """What is measured.

    Attributes:
        image: Environment that it runs in; empty: this one.
        before: What writes its rows, where those of the others do not do.
    """

    run: Callable[[Path], None]
    image: str = ""
    before: Callable[[Path], None] | None = None


STEPS = {
    "ingest": Step(ingest),
    "ingest_beam": Step(partial(ingest, engine="beam"), "beam"),
    "validate": Step(validate),
    "validate_beam": Step(partial(validate, engine="beam"), "beam"),
    "transform": Step(transform, "beam"),
    "train_xgboost": Step(partial(train, framework="xgboost")),
    "train_xgboost_external": Step(partial(train, framework="xgboost", external=True)),
    "train_lightgbm": Step(partial(train, framework="lightgbm")),
    "train_lightgbm_external": Step(partial(train, framework="lightgbm", external=True)),
    "evaluate": Step(evaluate),
    "evaluate_by_zone": Step(partial(evaluate, slices=("zone",))),
    "evaluate_by_zone_beam": Step(partial(evaluate, slices=("zone",), engine="beam"), "beam"),
    "explain": Step(explain),
    "predict_batch": Step(predict_batch),
    "predict_batch_beam": Step(partial(predict_batch, engine="beam"), "beam"),
    "monitor_performance": Step(monitor_performance),
    "detect_drift": Step(detect_drift),
    "compute_features": Step(compute_features, before=timed),
}
HERE = [name for name, each in STEPS.items() if not each.image]


def step(name: str, scratch: Path) -> None:
    """Run one step in this process, and print seconds, those of all its processors together, and peak memory."""
    if before := STEPS[name].before:
        writing = multiprocessing.get_context("spawn").Process(target=before, args=(scratch,))
        writing.start()
        writing.join()
    began, processors = time.perf_counter(), time.process_time()
    STEPS[name].run(scratch)
    seconds, processors = time.perf_counter() - began, time.process_time() - processors
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print(json.dumps({"seconds": seconds, "processors": processors, "bytes": int(peak.split()[1]) * 1024}))


def measured(name: str, scratch: Path) -> str:
    """Return a cell of the table: what a step took, or why it was not done."""
    command = [sys.executable, "-m", "tests.benchmarks.scale", "--step", name, "--scratch", scratch]
    if image := STEPS[name].image:
        command = [*in_image(image, scratch), *command[1:]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [""])[-1]
        print(f"{name}: {said}", file=sys.stderr)
        return "refused" if "UserError" in said else "failed"
    found = json.loads(done.stdout.splitlines()[-1])
    return f"{found['seconds']:,.3g} s ({found['processors']:,.3g} s), {found['bytes'] / 2**30:.2f} GiB"


def in_image(environment: str, scratch: Path) -> list[str | Path]:
    """Return the command that runs Python in an image, which is built where its inputs have changed."""
    from penstock.compile import images  # what is measured imports this module, too

    with images.Engine(print) as engine:
        image = engine.build(images.environments(ROOT, [environment])[0]).name
    command = ["docker", "run", "--rm", "--network", "none", "--user", f"{os.getuid()}:{os.getgid()}"]
    command += ["--env", "_KFP_RUNTIME=true", "--workdir", "/checkout", "--volume", f"{ROOT}/tests:/checkout/tests:ro"]
    return [*command, "--volume", f"{scratch}:{scratch}", image, "python3"]


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
    arguments.add_argument("--steps", nargs="+", choices=STEPS, help="default: all that run on this machine itself")
    arguments.add_argument("--beam", action="store_true", help="by default those on Beam, and what they need")
    arguments.add_argument("--scratch", type=Path, required=True)
    arguments.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.step:
        step(given.step, given.scratch)
        return
    on_beam = ["ingest", "train_lightgbm", *(name for name, each in STEPS.items() if each.image)]
    steps = given.steps or (on_beam if given.beam else HERE)
    for rows in map(int, given.rows):
        scratch, model = (given.scratch.resolve() / name for name in (f"{rows}", "model"))
        source(scratch / "source", rows)
        if model.exists():  # of fewer rows, for steps that need one where these are too many to train on
            shutil.copytree(model, scratch / "model")
        for name in steps:
            load = os.getloadavg()[0]
            cell = measured(name, scratch)
            print(f"{rows:,} rows: {name}: {cell} (load before: {load:.1f})", flush=True)
            PAGE.write_text(updated(PAGE.read_text(), {(name, rows): cell}))
        if (scratch / "model").exists():
            shutil.rmtree(model, ignore_errors=True)
            (scratch / "model").rename(model)
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
