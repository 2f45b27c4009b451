"""Trials in processes of this machine, proposed by Optuna."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from penstock.components._shared.cores import cores
from penstock.components._shared.fitting.prepare import Prepared
from penstock.components.tuning.search import Backend, Run, Search, Trial
from penstock.components.tuning.space import Space
from penstock.components.tuning.study import ERROR, METRICS, StudyFile, suggested, told

Sampler = Callable[[int], optuna.samplers.BaseSampler]


SAMPLERS: dict[str, Sampler] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "grid": lambda seed: optuna.samplers.RandomSampler(seed=seed),  # its points are laid in the queue
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed),
}
PRUNERS: dict[str, Callable[[int], optuna.pruners.BasePruner]] = {
    "median": lambda rounds: optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=rounds // 10),
    "hyperband": lambda rounds: optuna.pruners.HyperbandPruner(min_resource=max(1, rounds // 27), max_resource=rounds),
    "none": lambda rounds: optuna.pruners.NopPruner(),
}
REPORTS = 64  # of a trial that runs to its last round: each costs a tenth of a millisecond


def cannot(search: Search) -> list[str]:
    """Return what of a search cannot be done here."""
    found = []
    if len(search.objectives) > 1 and search.pruner not in ("auto", "none"):
        found.append(f"pruner {search.pruner!r} with several objectives: a round has but one loss to judge by")
    return found


@contextmanager
def begin(search: Search) -> Iterator[Run]:
    """Start the workers, which import their libraries while the rows are prepared."""
    workers = _Workers(search)
    try:
        yield lambda prepared, folder: _trials(search, prepared, folder, workers)
    finally:
        workers.kill()


def _trials(search: Search, prepared: Prepared, folder: Path, workers: _Workers) -> list[Trial]:
    """Return the trials, those of the study file first."""
    study_file = StudyFile(search.study, search.definition(prepared), search.objectives)
    try:
        return _Run(search, prepared, study_file, folder, workers).trials()
    finally:
        study_file.close()


@dataclass
class _Worker:
    process: subprocess.Popen[str]
    trial: optuna.trial.Trial | None = None

    def say(self, line: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(line) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:  # its end is read next
            pass


class _Workers:
    """Worker processes, all that were started."""

    def __init__(self, search: Search) -> None:
        self._framework = search.settings.framework
        self._threads = str(max(1, cores() // search.parallel_trials))
        self._all: list[_Worker] = []
        self._idle = [self._start() for _ in range(min(search.parallel_trials, search.max_trials))]

    def take(self, folder: Path) -> _Worker:
        """Return a worker that is told where the rows are, a new one where none of the first is left."""
        worker = self._idle.pop() if self._idle else self._start()
        worker.say({"folder": str(folder)})
        return worker

    def kill(self) -> None:
        """End all of them, however often it is called."""
        for worker in self._all:
            worker.process.kill()
            worker.process.communicate()

    def _start(self) -> _Worker:
        threads = self._threads
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock.components.tuning.worker", self._framework],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # _KFP_RUNTIME keeps declarations, and kfp with them, from being imported.
            env={"OMP_NUM_THREADS": threads, **os.environ, "LOKY_MAX_CPU_COUNT": threads, "_KFP_RUNTIME": "true"},
        )
        self._all.append(_Worker(process))
        return self._all[-1]


class _Run:
    def __init__(
        self, search: Search, prepared: Prepared, study_file: StudyFile, folder: Path, workers: _Workers
    ) -> None:
        rounds = search.settings.max_rounds
        pruner = search.pruner if search.pruner != "auto" else "none" if len(search.objectives) > 1 else "median"
        self.search, self.file, self.folder, self.workers = search, study_file, folder, workers
        self.study = optuna.create_study(
            directions=[each.direction for each in search.objectives], pruner=PRUNERS[pruner](rounds)
        )
        self.study.add_trials(study_file.trials)
        self.ended = [told(trial, number) for number, trial in enumerate(study_file.trials)]
        self.sampler = SAMPLERS["tpe" if search.sampler == "auto" else search.sampler]
        self.waiting = self._grid(search.space) if search.sampler == "grid" else None
        self.asked = len(self.ended)
        self._write(prepared, max(1, rounds // REPORTS) if pruner != "none" else 0)

    def trials(self) -> list[Trial]:
        """Run what is left of the budget, and return all trials in the order in which they ended."""
        deadline = time.monotonic() + self.search.max_seconds
        workers: list[_Worker] = []
        selector = selectors.DefaultSelector()
        try:
            for _ in range(min(self.search.parallel_trials, self._left())):
                workers.append(self._start(selector))
            for worker in workers:
                self._next(worker)
            while any(worker.trial for worker in workers):
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready and time.monotonic() >= deadline:
                    print(f"tune: {self.search.max_seconds:g} s are over; unfinished trials are given up", flush=True)
                    break
                for key, _ in ready:
                    worker = key.data
                    if not self._heard(worker):
                        selector.unregister(key.fileobj)
                        workers.remove(worker)
                        if self._left() > 0 and time.monotonic() < deadline:
                            workers.append(self._start(selector))
                            self._next(workers[-1])
        finally:
            self.workers.kill()  # at once: what was given up would run on beside the report
            selector.close()
        return self.ended

    def _start(self, selector: selectors.BaseSelector) -> _Worker:
        worker = self.workers.take(self.folder)
        selector.register(worker.process.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]
        return worker

    def _left(self) -> int:
        left = self.search.max_trials - self.asked
        return left if self.waiting is None else min(left, len(self.waiting))

    def _next(self, worker: _Worker) -> None:
        """Give a worker its next trial, if there is one."""
        worker.trial = None
        if self._left() <= 0:
            return
        # By the number of the trial: a search that goes on after a kill proposes what it would have without it.
        self.study.sampler = self.sampler(self.search.settings.seed * 1_000_003 % 2**31 + self.asked)
        if self.waiting is not None:
            self.study.enqueue_trial(self.waiting.pop(0))
        self.asked += 1
        trial = worker.trial = self.study.ask()
        point = self.search.space.active(lambda each: suggested(trial, each))
        worker.say({"hyperparameters": {**self.search.hyperparameters, **point}})

    def _heard(self, worker: _Worker) -> bool:
        """Take in what a worker says; return whether it is still there."""
        assert worker.process.stdout is not None
        line = worker.process.stdout.readline()
        if worker.trial is None:
            return bool(line)
        if not line:
            code = worker.process.wait()
            cause = f"signal {-code}; it may have run out of memory" if code < 0 else f"exit code {code}"
            self._end(worker.trial, TrialState.FAIL, {}, f"its process ended with {cause}")
            worker.trial = None
            return False
        answer = json.loads(line)
        if "round" in answer:
            worker.say({"stop": self._reported(worker.trial, answer)})
            return True
        if "error" in answer:
            self._end(worker.trial, TrialState.FAIL, {}, answer["error"])
        elif "pruned" in answer:
            self._end(worker.trial, TrialState.PRUNED, answer["pruned"], "")
        else:
            self._end(worker.trial, TrialState.COMPLETE, answer["metrics"], "")
        self._next(worker)
        return True

    def _reported(self, trial: optuna.trial.Trial, answer: dict[str, Any]) -> bool:
        losses = {f"eval_{name}": value for name, value in answer["losses"].items()}
        objective = self.search.objectives[0]
        if objective.name and objective.name not in losses:
            return False
        trial.report(objective.value(losses), answer["round"])
        return bool(trial.should_prune())

    def _end(self, trial: optuna.trial.Trial, state: TrialState, metrics: dict[str, float], error: str) -> None:
        trial.set_user_attr(METRICS, metrics)
        trial.set_user_attr(ERROR, error)
        values = [each.value(metrics) for each in self.search.objectives] if state == TrialState.COMPLETE else None
        finished = self.study.tell(trial, values, state)
        self.file.add(finished)
        ended = told(finished, len(self.ended))
        self.ended.append(ended)
        why = error or ", ".join(f"{name} {value:.6g}" for name, value in metrics.items())
        print(f"tune: trial {ended.number} {ended.state}: {why}", flush=True)

    def _grid(self, space: Space) -> list[dict[str, Any]]:
        done = [trial.parameters for trial in self.ended]
        return [point for point in space.grid() if point not in done]

    def _write(self, prepared: Prepared, report_every: int) -> None:
        job = prepared.job
        about: dict[str, Any] = {
            "columns": prepared.columns,
            "report_every": report_every,
            "job": {
                "task": job.task,
                "classes": job.classes,
                "names": job.names,
                "categories": job.categories,
                "max_rounds": job.max_rounds,
                "early_stopping_rounds": self.search.settings.early_stopping_rounds,
                "seed": job.seed,
            },
        }
        if prepared.row.streams:
            first = next(self.search.space.corners())[1]
            about["settings"] = asdict(self.search.settings)
            about["hyperparameters"] = {**self.search.hyperparameters, **first}
        (self.folder / "job.json").write_text(json.dumps(about), encoding="utf-8")


BACKEND = Backend(
    samplers=("auto", *SAMPLERS),
    pruners=("auto", *PRUNERS),
    options={},
    cannot=cannot,
    begin=begin,
    remote=False,
)
