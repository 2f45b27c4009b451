"""A worker process of the local backend: reads trials from its input, one JSON object a line, and answers in kind.

    {"folder": "…"}              where the rows are; comes first, and is not answered
    {"hyperparameters": {…}}     a trial to run; answered by any number of
    {"round": 8, "losses": {…}}  for which it waits to be told {"stop": false}, or true to prune; and at last by one of
    {"metrics": {…}}   {"pruned": {…}}   {"error": "…"}

The argument is the framework, which is imported while the rows are prepared elsewhere. They are those of a folder of
shared_rows, with job.json beside them; a framework that streams reads the datasets that the folder links to.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock.components._shared.errors import UserError
from penstock.components._shared.fitting.frameworks import Job, framework
from penstock.components.tuning.attempt import attempt
from penstock.components.tuning.shared_rows import FILES, read_rows

# They import scikit-learn, which takes longer than they do, for wrappers that no trial uses.
WITHOUT_SKLEARN = ("lightgbm", "xgboost")


class Pruned(Exception):
    """The search has given a trial up."""


def main(name: str) -> None:
    """Answer trials until there are none left."""
    # Libraries print; the answers have a channel of their own.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    if name in WITHOUT_SKLEARN:
        sys.modules["sklearn"] = None  # type: ignore[assignment]  # by which an import fails, and they do without
    try:
        row = framework(name)
    except UserError:  # told by the process that prepares the rows, which needs it too
        return
    first = sys.stdin.readline()
    if not first:
        return
    folder = Path(json.loads(first)["folder"])
    told: dict[str, Any] = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    job = _streamed(folder, told) if "settings" in told else _mapped(folder, told)
    every: int = told["report_every"]

    def say(**answer: Any) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    def report(number: int, losses: Mapping[str, float]) -> None:
        if every and number % every == 0:
            say(round=number, losses=losses)
            if json.loads(sys.stdin.readline())["stop"]:
                raise Pruned({"rounds": float(number), **{f"eval_{name}": value for name, value in losses.items()}})

    for line in sys.stdin:
        try:
            given = json.loads(line)["hyperparameters"]
            metrics = attempt(row, name, job, told["columns"], given, report if every else None)
        except Pruned as pruned:
            say(pruned=pruned.args[0])
        except UserError as error:
            say(error=f"{error.argument}: {error.problem}")
        except Exception as error:
            traceback.print_exc()
            say(error=f"{type(error).__name__}: {' '.join(str(error).split())}")
        else:
            say(metrics=metrics)


def _mapped(folder: Path, told: Mapping[str, Any]) -> Job:
    about: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in told["job"].items()
    }
    train, watched = (read_rows(folder / name) for name in FILES.values())
    return Job(**about, train=train, eval=watched, hyperparameters={}, kept={})


def _streamed(folder: Path, told: Mapping[str, Any]) -> Job:
    from penstock.components._shared.fitting.prepare import Settings, prepare  # half a second that others need not wait

    settings = Settings(**told["settings"])
    job = prepare(folder / "train", folder / "eval", settings, told["hyperparameters"], all_categories=True).job
    return replace(job, early_stopping_rounds=settings.early_stopping_rounds)


def _end_with_parent(parent: int) -> None:
    """End this process soon after the one that started it was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
