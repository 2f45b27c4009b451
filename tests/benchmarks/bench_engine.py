"""What the engine adds to a task, beside kfp.local in the same environment, in the same run."""

import contextlib
import io
import logging
import time
import warnings
from pathlib import Path

import kfp.local
from kfp import compiler, dsl

from penstock.compile.targets import local
from penstock.compile.targets.local.record import State

TASKS = 20


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def successor(value: int) -> int:
    return value + 1


@dsl.pipeline(name="chain")
def chain() -> int:
    task = successor(value=0)
    for _ in range(TASKS - 1):
        task = successor(value=task.output)
    return task.output


def run(scratch: Path) -> list[dict]:
    """Return the seconds a trivial task takes in a chain, which are nearly all overhead."""
    spec = scratch / "chain.yaml"
    compiler.Compiler().compile(chain, str(spec))
    ours = min(_ours(spec, scratch / "ours") for _ in range(2)) / TASKS
    baseline = min(_kfp_local(scratch / "theirs") for _ in range(2)) / TASKS
    return [
        {
            "name": f"a task's overhead, {TASKS} lightweight tasks in a chain",
            "ours": ours,
            "baseline": baseline,
            "unit": "s",
            "ratio": ours / baseline,
            "goal": "at most 0.1 s",
            "met": ours <= 0.1,
        }
    ]


def _ours(spec: Path, root: Path) -> float:
    begin = time.perf_counter()
    record = local.run(spec, {}, root=root, jobs=2)
    seconds = time.perf_counter() - begin
    assert record.state is State.SUCCEEDED
    assert record.outputs.parameters == {"Output": TASKS}
    return seconds


def _kfp_local(root: Path) -> float:
    kfp.local.init(runner=kfp.local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
    logging.disable(logging.INFO)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        begin = time.perf_counter()
        outputs = chain().outputs
        seconds = time.perf_counter() - begin
    logging.disable(logging.NOTSET)
    assert outputs == {"Output": TASKS}
    return seconds
