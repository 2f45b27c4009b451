"""Trials a minute beside a bare Optuna loop over the same fits, and the memory of ten workers beside that of ten loops.

The loop makes its matrices once, before the first trial, as a user would; its start and ours are both counted. One
worker and the loop run at the same time, each on a core of its own, and change cores from turn to turn: one run after
the other met a machine that was a third faster or slower by then. Two workers are measured on two cores, one thread
each; what the machine itself has to give there, two loops at once show.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

# The rows of the example, and as many trials as tune runs where nobody says.
ROWS, TRIALS, ROUNDS = 150_000, 50, 60
WIDE = 400_000  # rows for the memory
TURNS = 3
# One thread a fit; and what a step of a pipeline has, which keeps kfp from being imported.
AS_STEPS = {"OMP_NUM_THREADS": "1", "_KFP_RUNTIME": "true"}
SPACE = {
    "eta": {"type": "float", "low": 0.02, "high": 0.4, "log": True},
    "max_depth": {"type": "int", "low": 4, "high": 7},
    "subsample": {"type": "float", "low": 0.6, "high": 1.0},
}
BARE = """
import sys, numpy as np, optuna, xgboost
from penstock.components._shared.fitting.prepare import Settings, prepare
trials, rounds = int(sys.argv[3]), int(sys.argv[4])
optuna.logging.set_verbosity(optuna.logging.ERROR)
job = prepare(sys.argv[1], sys.argv[2], Settings(target="big_tip"), {}).job
types = ["q" if count is None else "c" for count in job.categories]
def matrix(rows, ref=None):
    return xgboost.QuantileDMatrix(rows.matrix, label=rows.labels, feature_types=types, missing=np.nan, ref=ref)
train = matrix(job.train)
watch = matrix(job.eval, train)
def objective(trial):
    parameters = {"objective": "binary:logistic", "eval_metric": "logloss", "seed": 0,
                  "eta": trial.suggest_float("eta", 0.02, 0.4, log=True),
                  "max_depth": trial.suggest_int("max_depth", 4, 7),
                  "subsample": trial.suggest_float("subsample", 0.6, 1.0)}
    history = {}
    xgboost.train(parameters, train, rounds, evals=[(train, "train"), (watch, "eval")], evals_result=history,
                  verbose_eval=False)
    return history["eval"]["logloss"][-1]
study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
study.optimize(objective, n_trials=trials)
"""
OURS = """
import json, sys
from penstock.components.tuning.tune import Settings, tune
given = json.loads(sys.argv[5])
settings = Settings(target="big_tip", max_rounds=int(sys.argv[4]), early_stopping_rounds=0)
outputs = [f"{given['folder']}/{name}" for name in ("trials", "model", "report.html")]
tune(sys.argv[1], sys.argv[2], *outputs, settings=settings, space=given["space"], max_trials=int(sys.argv[3]),
     pruner="none", parallel_trials=given["workers"])
"""


def run(scratch: Path) -> list[dict]:
    sets = _datasets(scratch, ROWS)
    turns = []
    for turn in range(TURNS):
        one, bare = _at_once(partial(_ours, scratch, sets, 1), partial(_timed, BARE, sets), first=turn % 2)
        alone = _ours(scratch, sets, 1, cores={turn % 2})
        both = _ours(scratch, sets, 2, cores={0, 1})
        loop = _timed(BARE, sets, cores={turn % 2})
        turns.append((one, bare, alone, both, loop, max(_at_once(*[partial(_timed, BARE, sets)] * 2))))
        print("seconds of a turn:", *(f"{seconds:.1f}" for seconds in turns[-1]), file=sys.stderr, flush=True)
    one, bare, alone, both, loop, loops = (
        [60 * trials / seconds for seconds in times]
        for trials, times in zip([*[TRIALS] * 5, 2 * TRIALS], zip(*turns, strict=True), strict=True)
    )
    held, plain, data = _memory(scratch, _datasets(scratch, WIDE))
    return [
        _row("tune, one worker on one core, beside a bare Optuna loop", one, bare, "at least 0.9 of it", 0.9),
        _row("tune, two workers on two cores, beside one", both, alone, "at least 1.7 times", 1.7),
        _row("two bare loops at once on two cores, beside one", loops, loop, "–", None),
        _row("tune, two workers, beside two bare loops at once", both, loops, "at least 0.85 of them", 0.85),
        {
            "name": f"tune, what {data / 1e6:.0f} MB of rows add to the memory of ten workers, beside ten bare loops",
            "ours": held / 1e6,
            "baseline": plain / 1e6,
            "unit": "MB",
            "ratio": held / plain,
            "goal": "at least nine copies of the rows less",
            "met": plain - held >= 9 * data,
        },
    ]


def _row(name: str, ours: list[float], baseline: list[float], goal: str, least: float | None) -> dict:
    """Return the turn whose ratio is the median: a machine that is slower now and then is so for a whole turn."""
    turns = sorted(zip(ours, baseline, strict=True), key=lambda turn: turn[0] / turn[1])
    ours, baseline = turns[len(turns) // 2]
    ratio = ours / baseline
    return {"name": name, "ours": ours, "baseline": baseline, "unit": "trials/min", "ratio": ratio, "goal": goal,
            "met": None if least is None else ratio >= least}  # fmt: skip


def _datasets(scratch: Path, rows: int) -> tuple[str, str]:
    from penstock.components.ingestion.ingest import ingest
    from penstock.pipelines.tabular_training import TIPS

    folder = scratch / str(rows)
    sets = folder / "train", folder / "eval"
    ingest(f"sample://taxi?rows={rows}", *sets, folder / "rejects", query=TIPS)
    return str(sets[0]), str(sets[1])


def _timed(program: str, sets: tuple[str, str], *more: str, cores: set[int]) -> float:
    command = [sys.executable, "-c", program, *sets, str(TRIALS), str(ROUNDS), *more]
    started = time.perf_counter()
    subprocess.run(
        command,
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **AS_STEPS},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    return time.perf_counter() - started


def _at_once(*timed: Callable[..., float], first: int = 0) -> tuple[float, ...]:
    """Return the seconds of two programs at the same time, each on a core of its own."""
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(each, cores={place ^ first}) for place, each in enumerate(timed)]
        return tuple(each.result() for each in running)


def _ours(scratch: Path, sets: tuple[str, str], workers: int, cores: set[int]) -> float:
    given = {"folder": str(scratch / "out"), "space": SPACE, "workers": workers}
    (scratch / "out").mkdir(exist_ok=True)
    return _timed(OURS, sets, json.dumps(given), cores=cores)


def _memory(scratch: Path, sets: tuple[str, str]) -> tuple[float, float, float]:
    """Return what rows add to the memory of ten workers, and of ten bare loops, and the size of the rows.

    A page that several processes map counts by its share of each: PSS, of /proc/PID/smaps_rollup. What they hold of
    hardly any rows is subtracted.
    """
    temporary = scratch / "temporary"
    temporary.mkdir(exist_ok=True)
    environment = {**os.environ, **AS_STEPS, "TMPDIR": str(temporary)}
    given = {"folder": str(scratch / "out"), "space": SPACE, "workers": 10}

    def start(program: str, chosen: tuple[str, str], *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-c", program, *chosen, *arguments]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)

    workers, loops, data = [], [], 0.0
    for chosen in (_datasets(scratch, 2_000), sets):
        process, most = start(OURS, chosen, "40", str(ROUNDS), json.dumps(given)), 0
        while process.poll() is None:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            pids = children.read_text().split() if children.exists() else []
            if len(pids) == 10:
                most = max(most, sum(map(_pss, pids)))
            data = max([data, *(file.stat().st_size for file in temporary.glob("*/train.arrow"))])
            time.sleep(0.2)
        assert process.returncode == 0
        workers.append(most)
        processes, most = [start(BARE, chosen, "4", str(ROUNDS)) for _ in range(10)], 0
        while all(process.poll() is None for process in processes):
            most = max(most, sum(_pss(str(process.pid)) for process in processes))
            time.sleep(0.2)
        assert not any(process.wait() for process in processes)
        loops.append(most)
    return workers[1] - workers[0], loops[1] - loops[0], data


def _pss(pid: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
