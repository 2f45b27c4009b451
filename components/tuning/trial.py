"""A trial in a container of its own: what the jobs of Vertex AI and Katib run.

    python3 -m penstock.components.tuning.trial --job '{…}' --eta=0.1 --max_depth=4

The job says what to fit, on which datasets, and how the metric is reported; the rest is the trial's point.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from penstock.components._shared.errors import UserError
from penstock.components._shared.fitting.prepare import Settings, prepare
from penstock.components.tuning.attempt import attempt
from penstock.components.tuning.remote import METRIC, typed
from penstock.components.tuning.search import Objective, Search
from penstock.components.tuning.space import parse


def job_text(search: Search, report: str) -> str:
    """Return the job as the one argument that trials share.

    Args:
        report: A row of REPORTS.
    """
    settings = {
        name: list(value) if isinstance(value, list | tuple) else dict(value) if isinstance(value, Mapping) else value
        for name, value in vars(search.settings).items()
    }
    objective = search.objectives[0]
    job = {
        "settings": settings,
        "space": search.space.description(),
        "hyperparameters": search.hyperparameters,
        "objective": [objective.name, objective.direction],
        "train_set": search.train_uri,
        "eval_set": search.eval_uri,
        "report": report,
    }
    return json.dumps(job, separators=(",", ":"), sort_keys=True)


def main(arguments: Sequence[str]) -> None:
    """Run the trial that the arguments describe, and report its metrics."""
    given = dict(argument.removeprefix("--").split("=", 1) for argument in arguments[2:])
    if list(arguments[:1]) != ["--job"]:
        raise UserError("tune", "trial", f"the first argument is {arguments[:1]}", "Give --job and its JSON")
    job = json.loads(arguments[1])
    space = {parameter.name: parameter for parameter in parse(job["space"]).parameters}
    point = {name: typed(space[name], text) for name, text in given.items()}
    settings = Settings(**job["settings"])
    with tempfile.TemporaryDirectory(prefix="penstock-trial-") as folder:
        train_set, eval_set = (_local(job[name], Path(folder) / name) for name in ("train_set", "eval_set"))
        hyperparameters = {**job["hyperparameters"], **point}
        prepared = prepare(train_set, eval_set, settings, hyperparameters, all_categories=True)
        job_here = replace(prepared.job, early_stopping_rounds=settings.early_stopping_rounds)
        metrics = attempt(prepared.row, settings.framework, job_here, prepared.columns, hyperparameters)
    objective = Objective(*job["objective"])
    REPORTS[job["report"]]({METRIC: objective.value(metrics), **metrics})


def _hypertune(metrics: Mapping[str, float]) -> None:
    """Write what Vertex AI reads: one JSON object a metric, in the file of the package cloudml-hypertune."""
    path = Path(os.environ.get("CLOUD_ML_HP_METRIC_FILE", "/tmp/hypertune/output.metrics"))  # noqa: S108
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for name, value in metrics.items():
            entry = {
                "timestamp": time.time(),
                "trial": os.environ.get("CLOUD_ML_TRIAL_ID", "0"),
                name: str(float(value)),
                "global_step": str(int(metrics["rounds"])),
                "checkpoint_path": "",
            }
            file.write(json.dumps(entry) + "\n")


def _lines(metrics: Mapping[str, float]) -> None:
    """Print what Katib's collector reads: name=value, one a line."""
    for name, value in metrics.items():
        print(f"{name}={value!r}", flush=True)


REPORTS: dict[str, Callable[[Mapping[str, float]], None]] = {"hypertune": _hypertune, "stdout": _lines}


def _local(uri: str, folder: Path) -> Path:
    """Return a dataset's folder on this machine, fetched where it is in a bucket."""
    if "://" not in uri:
        return Path(uri)
    from penstock.components._shared.remote import find  # not for datasets at a path

    folder.mkdir()
    for file in find(uri, lambda problem, remedy: UserError("tune", "dataset", problem, remedy)):
        file.fetch(folder / file.name.rpartition("/")[2])
    return folder


if __name__ == "__main__":
    main(sys.argv[1:])
