"""Apache Beam as the engine of a step: what its parameters ask for, and a pipeline that runs there to its end.

Only `run` imports Beam, so that a step which stays on one machine needs none of it.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import FrameType
from typing import Any, NoReturn, TypeVar

from penstock.components._shared.errors import UserError

T = TypeVar("T")

LOCAL, BEAM = "local", "beam"
ENGINES = (LOCAL, BEAM)
DIRECT: Mapping[str, Any] = {"runner": "DirectRunner"}
EXIT_TERMINATED = 143
_HOURS = 24  # that a pipeline may take before it is cancelled


@dataclass(frozen=True)
class Runner:
    """What Beam's runner of a name asks for.

    Attributes:
        needs: Options to give; of those in one group, one.
        here: Whether it runs in this process and on this machine's files.
    """

    needs: tuple[tuple[str, ...], ...] = ()
    here: bool = False


RUNNERS: Mapping[str, Runner] = {
    "DirectRunner": Runner(here=True),
    "DataflowRunner": Runner((("project",), ("region",), ("temp_location",))),
    # Without one of these Beam starts a server in Java here, which no image has.
    "FlinkRunner": Runner((("job_endpoint", "flink_submit_uber_jar"), ("temp_location",))),
    "SparkRunner": Runner((("job_endpoint", "spark_submit_uber_jar"), ("temp_location",))),
}


@dataclass(frozen=True)
class Engine:
    """Beam as a step's parameters ask for it.

    Attributes:
        component: Name of the component.
        runner: A name of RUNNERS.
        options: Beam's own options, the runner among them.
    """

    component: str
    runner: str
    options: Mapping[str, Any]

    @property
    def here(self) -> bool:
        """Whether it runs in this process and on this machine's files."""
        return RUNNERS[self.runner].here


def chosen(
    component: str, engine: str, options: Mapping[str, Any] | None, *packages: str, parameter: str = "engine"
) -> Engine | None:
    """Return Beam where a step's parameters choose it, None where they choose this machine.

    Args:
        component: Name of the component, for errors.
        engine: "local" or "beam".
        options: Beam's options by name; looked at only with "beam".
        packages: Modules that the step needs beside Beam.
        parameter: What `engine` is called.

    Raises:
        UserError: There is no such engine, its packages are not installed, or the options name no runner or lack what
            it needs.
    """
    if engine not in ENGINES:
        known = ", ".join(ENGINES)
        raise UserError(component, parameter, f"there is no engine {engine!r}", f"Choose one of {known}")
    if engine == LOCAL:
        return None
    runner = _runner(component, options)
    if missing := [name for name in ("apache_beam", *packages) if find_spec(name) is None]:
        raise UserError(
            component,
            parameter,
            f"'beam' needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed here",
            "Run the step in the image penstock/beam, task.set_container_image(image('beam')), or, with glibc 2.39, "
            "pip install 'penstock[beam]'",
        )
    return Engine(component, runner, dict(options or {}))


def _runner(component: str, options: Mapping[str, Any] | None) -> str:
    runner = (options or {}).get("runner")
    example = 'Give one, as in {"runner": "DirectRunner"}; there are ' + ", ".join(RUNNERS)
    if not runner:
        raise UserError(component, "beam_options", "they name no runner", example)
    if runner not in RUNNERS:
        raise UserError(component, "beam_options", f"there is no runner {runner!r}", example)
    assert options is not None
    for group in RUNNERS[runner].needs:
        if not any(options.get(name) for name in group):
            raise UserError(
                component, "beam_options", f"{runner} needs {' or '.join(group)}", "Give it beside the runner"
            )
    return str(runner)


def run(engine: Engine, build: Callable[[Any], None]) -> None:
    """Run a pipeline to its end; where this step is told to end, so is the pipeline.

    Args:
        engine: From `chosen`.
        build: Puts transforms on the apache_beam.Pipeline that it is given.

    Raises:
        UserError: Beam does not know an option, or the pipeline fails.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import apache_beam as beam

    with _raised() as asked_to_end:
        pipeline = beam.Pipeline(runner=_as_beam_knows_it(engine), options=_options(engine))
        build(pipeline)
        running = None
        try:
            running = pipeline.run()
            state = running.wait_until_finish(duration=None if engine.here else _HOURS * 3600 * 1000)
        except BaseException:
            if not asked_to_end.is_set():
                raise
            if running is not None:
                running.cancel()
            raise SystemExit(EXIT_TERMINATED) from None  # Beam makes an error of the one that was raised in a worker
        if state != "DONE":
            running.cancel()
            raise UserError(
                engine.component,
                "beam_options",
                f"the pipeline on {engine.runner} ended as {state or f'unfinished after {_HOURS} hours'}",
                "Look at the runner's own log of the job",
            )


def spread(engine: Engine, items: Sequence[T], work: Callable[[T], Any], folder: str | os.PathLike[str]) -> list[Any]:
    """Return what is made of each item by itself, in the order of the items, wherever and whenever it was made.

    Args:
        engine: From `chosen`.
        items: What workers are sent.
        work: Returns JSON values, few of them. It may be called again for an item, also while another call lasts.
        folder: Of this machine, for files in passing; see scratch().

    Raises:
        UserError: That of the first item for which there is one; or Beam cannot run so.
    """
    target = scratch(engine, folder)

    def build(pipeline: Any) -> None:
        import apache_beam

        (
            pipeline
            | "items" >> apache_beam.Create(list(enumerate(items)))
            | "spread" >> apache_beam.Reshuffle()
            | "work" >> apache_beam.Map(tell, work)
            | "tell" >> apache_beam.io.WriteToText(target, shard_name_template="")
        )

    run(engine, build)
    from apache_beam.io.filesystems import FileSystems

    with FileSystems.open(target) as file:
        lines = file.read().splitlines()
    FileSystems.delete([target])
    return made(lines)


def made(lines: Iterable[str | bytes]) -> list[Any]:
    """Return what was made of items, in their order, from what tell() says of each.

    Raises:
        UserError: That of the first item for which there is one.
    """
    told = [result for _, result in sorted(dict(json.loads(line) for line in lines).items())]
    for each in told:
        if "refused" in each:
            raise UserError(*each["refused"])
    return [each["made"] for each in told]


def tell(item: tuple[int, T], work: Callable[[T], Any]) -> str:
    """Return in a line what came of an item; a user's mistake does not become better by trying again, as Beam would."""
    try:
        result = {"made": work(item[1])}
    except UserError as error:
        result = {"refused": [error.component, error.argument, error.problem, error.remedy]}
    return json.dumps([item[0], result])


def _as_beam_knows_it(engine: Engine) -> Any:
    if not engine.here:
        return engine.runner
    # By its name, Beam would first look for another runner, and fetch its program from the network.
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    return FnApiRunner()


def _options(engine: Engine) -> Any:
    from apache_beam.options.pipeline_options import PipelineOptions

    known = set(PipelineOptions([]).get_all_options())
    for name in engine.options:
        if name not in known and name.removeprefix("no_") not in known:
            close = difflib.get_close_matches(name, known, 1)
            remedy = f"Did you mean {close[0]}?" if close else "See the runner's page in Beam's documentation"
            raise UserError(engine.component, "beam_options", f"Beam knows no option {name!r}", remedy)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = PipelineOptions.from_dictionary(dict(engine.options))
            options.get_all_options()
    except SystemExit:
        why = said.getvalue().strip().rpartition("error: ")[2]
        raise UserError(engine.component, "beam_options", why, "Give what Beam expects there") from None
    return options


@contextlib.contextmanager
def _raised() -> Iterator[threading.Event]:
    """Turn SIGTERM into SystemExit for the length of a block, and note that it came."""
    came = threading.Event()

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        came.set()
        raise SystemExit(EXIT_TERMINATED)

    try:
        before: Any = signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # another thread than the main one, to which no signal comes
        yield came
        return
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def scratch(engine: Engine, folder: str | os.PathLike[str]) -> str:
    """Return a new name below a folder that both this process and the workers can write to.

    Args:
        folder: Used where the pipeline runs on this machine; else it is below the option temp_location.
    """
    root = os.fspath(folder) if engine.here else str(engine.options["temp_location"]).rstrip("/")
    return f"{root}/penstock-{uuid.uuid4().hex}"


def place(engine: Engine, argument: str, path: str, uri: str = "") -> str:
    """Return where workers find a file or folder of this step.

    Args:
        argument: What holds it, for errors.
        path: Where it is here.
        uri: Where it is for others; empty: only here.

    Raises:
        UserError: The workers are on other machines, and it is only here.
    """
    if engine.here:
        return path
    if "://" not in uri:
        raise UserError(
            engine.component,
            argument,
            f"{uri or path} is on this machine, where {engine.runner} cannot read it",
            "Run with a pipeline root in a bucket, or with the DirectRunner",
        )
    return uri
