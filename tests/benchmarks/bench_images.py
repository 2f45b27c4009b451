"""What the tabular image weighs, starts in and is rebuilt in, beside a plain `pip install` on the same base."""

import contextlib
import datetime
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from kfp import compiler, dsl

from penstock.compile import images
from penstock.compile.targets import local
from penstock.compile.targets.local.containers import available
from penstock.components.images import image

ROOT = Path(__file__).parents[2]
BASE = "python:3.11-slim"
MEGABYTE = 1e6
BEST_OF = 3
SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "components", "pipelines", "compile")
# What anybody would write, at our versions; pip's cache is left out of the comparison.
PLAIN = """\
FROM {base}
COPY . /source
RUN pip install --quiet --no-cache-dir --constraint /source/constraints.txt "/source[{extras}]"
"""
SIZES = """
import pathlib, sysconfig
def size(path):
    return sum(file.lstat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
site = pathlib.Path(sysconfig.get_path("purelib"))
for total, name in sorted(((size(path), path.name) for path in site.iterdir()), reverse=True)[:15]:
    print(f"{total / 1e6:8.1f} MB  {name}")
"""


@dsl.component(base_image=image("tabular"), install_kfp_package=False)
def first_line() -> float:
    import time

    return time.time()


def run(scratch: Path) -> list[dict]:
    if reason := available():
        print(f"{reason}: images are not measured", file=sys.stderr)
        return []
    if subprocess.run(["docker", "image", "inspect", BASE], capture_output=True).returncode:
        print(f"the base image {BASE} is not here: images are not measured", file=sys.stderr)
        return []
    with images.Engine(lambda line: None) as engine:
        built = engine.build(images.environments(ROOT, ["tabular"])[0])
        print("what takes the space in the tabular image:", file=sys.stderr)
        print(_docker("run", "--rm", "--network", "none", built.name, "python3", "-c", SIZES), file=sys.stderr)
        return [*_size(built, scratch), _start(scratch), _rebuild(engine, scratch)]


def _size(built: images.Image, scratch: Path) -> Iterator[dict]:
    ours, plain = built.size / MEGABYTE, _plain(scratch / "plain") / MEGABYTE
    yield _row("the tabular image, uncompressed", ours, "at most 900 MB", ours <= 900, unit="MB")
    yield _row(
        "the tabular image, beside pip install on the same base",
        ours,
        "at most 0.8",
        ours <= 0.8 * plain,
        baseline=plain,
        unit="MB",
    )


def _plain(folder: Path) -> int:
    """Return the bytes of an image that pip has installed the same requirements in."""
    folder.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    lock = (ROOT / "requirements.lock").read_text()
    pins = re.findall(r"^([^\s=]+==[^\\\n]+?) *\\?$", lock, re.MULTILINE)
    (folder / "constraints.txt").write_text("\n".join(pins))
    extras = re.search(r"\[(.*)\]", (ROOT / "containers" / "tabular" / "requirements.in").read_text())
    assert extras
    (folder / "Dockerfile").write_text(PLAIN.format(base=BASE, extras=extras[1]))
    name = "penstock-bench-plain"
    _docker("build", "--quiet", "--network", "host", "--tag", name, str(folder))
    size = int(_docker("image", "inspect", "--format", "{{.Size}}", name))
    _docker("image", "rm", "--force", name)
    return size


def _start(scratch: Path) -> dict:
    """Measure from the start of a task to the first line of its component."""
    spec = scratch / "first_line.yaml"
    compiler.Compiler().compile(first_line, str(spec))
    best = min(_seconds_to_first_line(spec, scratch / f"start-{turn}") for turn in range(BEST_OF))
    return _row("from a container's start to the first line of its component", best, "at most 1.0 s", best <= 1)


def _seconds_to_first_line(spec: Path, root: Path) -> float:
    (task,) = local.run(spec, {}, root=root, jobs=1, runner="docker", reuse=False).tasks
    assert task.started
    return float(task.outputs.parameters["Output"]) - datetime.datetime.fromisoformat(task.started).timestamp()


def _rebuild(engine: images.Engine, scratch: Path) -> dict:
    """Measure a build after a change of our code, in a copy whose images have names of their own."""
    folder = scratch / "repository"
    for name in images.environments(ROOT, ["tabular"])[0].files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copy(ROOT / ".dockerignore", folder)
    project = folder / "pyproject.toml"
    project.write_text(project.read_text().replace('name = "penstock"', 'name = "penstock-bench"', 1))
    made = [engine.build(images.environments(folder)[0])]
    code = folder / "compile" / "__init__.py"
    code.write_text(f"{code.read_text()}\nCHANGED = {time.time()}\n")
    made.append(engine.build(images.environments(folder)[0]))
    seconds = made[-1].seconds
    assert seconds is not None
    for each in made:
        with contextlib.suppress(subprocess.CalledProcessError):
            _docker("image", "rm", "--force", each.name, each.environment.image, each.dependencies)
    return _row("a rebuild of the image after a change of our code", seconds, "under 20 s", seconds < 20)


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


def _row(name: str, ours: float, goal: str, met: bool, *, baseline: float | None = None, unit: str = "s") -> dict:
    ratio = ours / baseline if baseline else None
    return {
        "name": name,
        "ours": ours,
        "baseline": baseline,
        "unit": unit,
        "ratio": ratio,
        "goal": goal,
        "met": met,
    }
