"""How long the commands that read specs take on one of 500 tasks, each a process of its own."""

import subprocess
import sys
import time
from pathlib import Path

from kfp import compiler, dsl

TASKS = 500
BEST_OF = 3


@dsl.component(base_image="python:3.11")
def work(value: int, rate: float = 0.5) -> float:
    return value * rate


@dsl.pipeline(name="fan-out")
def fan_out(start: int = 0):
    for _ in range(TASKS):
        work(value=start)


def large_spec(folder: Path) -> Path:
    """Return a spec of 500 tasks as KFP's compiler writes it, each with a component of its own."""
    path = folder / "large.yaml"
    compiler.Compiler().compile(fan_out, str(path))
    return path


def run(scratch: Path) -> list[dict]:
    spec = large_spec(scratch)
    changed, slim, job = scratch / "changed.yaml", scratch / "slim.yaml", scratch / "job"
    changed.write_text(spec.read_text().replace("image: python:3.11", "image: python:3.12"))
    rows = [
        _timed("penstock --help", 0.3, "--help"),
        _timed(f"check of {TASKS} tasks", 0.5, "check", spec),
        _timed(f"check --target vertex of {TASKS} tasks", 0.5, "check", spec, "--target", "vertex"),
        _timed(f"describe of {TASKS} tasks", 1, "describe", spec),
        _timed(f"describe --draw svg of {TASKS} tasks", 1, "describe", spec, "--draw", "svg"),
        _timed(f"diff of {TASKS} tasks, each changed", 1, "diff", spec, changed, expected=1),
        _timed(f"convert to Azure ML of {TASKS} tasks", 2, "convert", spec, "--to", "azureml", "--output", job),
        _timed(f"slim of {TASKS} tasks", 1, "slim", spec, "--output", slim),
    ]
    before, after = spec.stat().st_size / 1000, slim.stat().st_size / 1000
    rows.append(
        {
            "name": f"a slimmed fan-out of {TASKS} lightweight tasks, beside what KFP's compiler writes",
            "ours": after,
            "baseline": before,
            "unit": "kB",
            "ratio": after / before,
            "goal": "under 700 kB",
            "met": after < 700,
        }
    )
    return rows


def _timed(name: str, goal: float, *arguments: object, expected: int = 0) -> dict:
    command = [Path(sys.executable).with_name("penstock"), *map(str, arguments)]
    found = []
    for _ in range(BEST_OF):
        begin = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        found.append(time.perf_counter() - begin)
        assert done.returncode == expected, done.stderr
    ours = min(found)
    goal_text = f"under {goal:g} s"
    return {
        "name": name,
        "ours": ours,
        "baseline": None,
        "unit": "s",
        "ratio": None,
        "goal": goal_text,
        "met": ours < goal,
    }
