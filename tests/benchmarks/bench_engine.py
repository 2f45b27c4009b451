"""What the engine adds to tasks, beside kfp.local in the same environment, in the same run."""

import contextlib
import io
import json
import logging
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import kfp.local
from kfp import compiler, dsl

from penstock.compile import launcher
from penstock.compile.targets import local
from penstock.compile.targets.local import containers
from penstock.compile.targets.local.forkserver import ForkServer
from penstock.compile.targets.local.record import RunRecord, State

CHAIN = 100
SHELLS = 10
IMAGE = "python:3.11-slim"
ITERATIONS = (200, 1000)
BEST_OF = 2


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def successor(value: int) -> int:
    return value + 1


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def second(value: int) -> int:
    import time

    time.sleep(1)
    return value


@dsl.pipeline(name="chain")
def chain() -> int:
    task = successor(value=0)
    for _ in range(CHAIN - 1):
        task = successor(value=task.output)
    return task.output


@dsl.pipeline(name="side-by-side")
def side_by_side():
    for number in range(10):
        second(value=number)


@dsl.container_component
def shell(value: int, out: dsl.OutputPath(int)):
    return dsl.ContainerSpec(
        image=IMAGE, command=["sh", "-c"], args=['mkdir -p "$(dirname "$1")"; echo "$0" >"$1"', value, out]
    )


@dsl.pipeline(name="shells")
def shells():
    task = shell(value=0)
    for _ in range(SHELLS - 1):
        task = shell(value=task.outputs["out"])


@dsl.pipeline(name="loop")
def loop():
    with dsl.ParallelFor(list(range(ITERATIONS[-1]))) as value:
        successor(value=value)


def run(scratch: Path) -> list[dict]:
    return [*_chain(scratch), _reused(scratch), _side_by_side(scratch), _loop(scratch), *_in_containers(scratch)]


def _row(
    name: str, ours: float, goal: str, met: bool, *, baseline: float | None = None, unit: str = "s"
) -> dict[str, object]:
    ratio = None if baseline is None else ours / baseline
    return {"name": name, "ours": ours, "baseline": baseline, "unit": unit, "ratio": ratio, "goal": goal, "met": met}


def _chain(scratch: Path) -> list[dict]:
    spec = _compiled(chain, scratch)
    forked, alone, theirs = [], [], []
    for turn in range(BEST_OF):  # in turn, so that a slow minute of the machine meets all
        forked.append(_ours(spec, scratch / f"forked-{turn}"))
        with mock.patch.object(ForkServer, "run", staticmethod(launcher.run_process)):
            alone.append(_ours(spec, scratch / f"alone-{turn}"))
        theirs.append(_theirs(chain, scratch / f"theirs-{turn}"))
    ours, process, baseline = min(forked), min(alone), min(theirs)
    name = f"{CHAIN} trivial lightweight tasks in a chain"
    each = process / CHAIN
    return [
        _row(f"{name}, beside kfp.local", ours, "at most its time", ours <= baseline, baseline=baseline),
        _row(
            "a task's overhead in a process of its own, beside kfp.local",
            each,
            "at most 0.08 s",
            each <= 0.08,
            baseline=baseline / CHAIN,
        ),
    ]


def _reused(scratch: Path) -> dict:
    spec = _compiled(chain, scratch)
    _ours(spec, scratch / "reused")
    ours = min(_ours(spec, scratch / "reused") for _ in range(BEST_OF))
    return _row(f"{CHAIN} tasks in a chain, all reused", ours, "under 1 s", ours < 1)


def _in_containers(scratch: Path) -> Iterator[dict]:
    """Measure where an engine answers and Python's image is here, which brings no KFP: its part is a shell's."""
    if containers.available() or subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True).returncode:
        print(f"no engine, or no image {IMAGE}: containers are not measured", file=sys.stderr)
        return
    spec = _compiled(shells, scratch)
    ours = min(_ours(spec, scratch / f"shells-{turn}", runner="docker") for turn in range(BEST_OF)) / SHELLS
    yield _row("a task's overhead in a container", ours, "at most 0.4 s", ours <= 0.4)


def _side_by_side(scratch: Path) -> dict:
    spec = _compiled(side_by_side, scratch)
    ours = min(_ours(spec, scratch / f"ten-{turn}", jobs=10) for turn in range(BEST_OF))
    return _row("ten tasks of one second, --jobs 10", ours, "under 2 s", ours < 2)


def _loop(scratch: Path) -> dict:
    """Measure in a process of its own, whose memory is the engine's alone."""
    spec = _compiled(loop, scratch)
    command = [sys.executable, "-m", "tests.benchmarks.bench_engine", spec, scratch / "loop"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    (few, before), (many, after) = zip(ITERATIONS, found, strict=True)
    grown = (after - before) / (many - few)
    name = f"memory that a loop adds an iteration, {few:,} to {many:,}"
    return _row(name, grown, "at most 2 KiB", grown <= 2, unit="KiB")


def _measure_loop(spec: Path, root: Path) -> None:
    """Print the engine's memory in KiB when so many iterations were done."""
    found = [0] * len(ITERATIONS)

    def observe(record: RunRecord) -> None:
        done = sum(task.state is State.SUCCEEDED for task in record.tasks)
        for index, number in enumerate(ITERATIONS):
            if done <= number:
                found[index] = _memory()

    _ours(spec, root, observe=observe)
    print(json.dumps(found))


def _memory() -> int:
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize() // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # macOS: the most there was, in bytes


def _compiled(pipeline: Callable, scratch: Path) -> Path:
    spec = scratch / f"{pipeline.name}.yaml"
    compiler.Compiler().compile(pipeline, str(spec))
    return spec


def _ours(
    spec: Path,
    root: Path,
    jobs: int = 2,
    observe: Callable[[RunRecord], None] | None = None,
    runner: str = "subprocess",
) -> float:
    begin = time.perf_counter()
    record = local.run(spec, {}, root=root, jobs=jobs, observe=observe, runner=runner)
    seconds = time.perf_counter() - begin
    assert record.state is State.SUCCEEDED, record.error
    if spec.stem == "chain":
        assert record.outputs.parameters == {"Output": CHAIN}
    return seconds


def _theirs(pipeline: Callable, root: Path) -> float:
    kfp.local.init(runner=kfp.local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
    with _quiet():
        begin = time.perf_counter()
        outputs = pipeline().outputs
        seconds = time.perf_counter() - begin
    assert outputs == {"Output": CHAIN}
    return seconds


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logging.disable(logging.INFO)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


if __name__ == "__main__":
    _measure_loop(Path(sys.argv[1]), Path(sys.argv[2]))
