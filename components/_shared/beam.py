"""Apache Beam as the engine of a step: what its parameters ask for, and a pipeline that runs there to its end.

Only `run` imports Beam, so that a step which stays on one machine needs none of it.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import logging
import os
import re
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import FrameType
from typing import Any, NoReturn, TypeVar

from penstock.components._shared import places
from penstock.components._shared.errors import UserError, on_behalf_of

T = TypeVar("T")

LOCAL, BEAM = "local", "beam"
ENGINES = (LOCAL, BEAM)
DIRECT: Mapping[str, Any] = {"runner": "DirectRunner"}
EXIT_TERMINATED = 143
_HOURS = 24  # that a pipeline may take before it is cancelled
_ANSWER = 30.0  # seconds for a job server to answer at all
_SUBMISSION = 900.0  # seconds for it to have taken a pipeline
_CANCELLING = 8.0  # seconds for it to have been told that a pipeline is to end
# Options of Beam's own access to storage, secrets among them. Steps and workers reach storage another way; see places.
_STORAGE = ("s3_", "azure_", "blob_service_", "hdfs_")


@dataclass(frozen=True)
class Runner:
    """What Beam's runner of a name asks for.

    Attributes:
        needs: Options to give; of those in one group, one.
        here: Whether it runs in this process and on this machine's files.
    """

    needs: tuple[tuple[str, ...], ...] = ()
    here: bool = False


# Where workers come from: without it they would be Beam's own containers, which have no Penstock.
_WORKERS = ("environment_config", "environment_options")
_TEMP = ("temp_location",)

RUNNERS: Mapping[str, Runner] = {
    "DirectRunner": Runner(here=True),
    "DataflowRunner": Runner((("project",), ("region",), _TEMP, ("sdk_container_image",))),
    # Without one of the first Beam starts a server in Java here, which no image has.
    "FlinkRunner": Runner((("job_endpoint", "flink_submit_uber_jar"), _WORKERS, _TEMP)),
    "SparkRunner": Runner((("job_endpoint", "spark_submit_uber_jar"), _WORKERS, _TEMP)),
    "PortableRunner": Runner((("job_endpoint",), _WORKERS, _TEMP)),
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
    for name in options:
        if name.startswith(_STORAGE):
            problem = f"{name} is of Beam's own access to storage, which is not used, and options are kept with the run"
            remedy = "Let step and workers find credentials and endpoints in their environment, or in their identity"
            raise UserError(component, "beam_options", problem, remedy)
    if not RUNNERS[runner].here:
        _check_temp_location(component, str(options["temp_location"]))
    return str(runner)


def _check_temp_location(component: str, place: str) -> None:
    if not (place.partition("://")[0] in places.stores() if places.is_remote(place) else os.path.isabs(place)):
        problem = f"temp_location {place!r} is no place that step and workers share"
        remedy = f"Give a URI of {', '.join(places.stores())}, or the path of a folder that all of them have mounted"
        raise UserError(component, "beam_options", problem, remedy)


def run(engine: Engine, build: Callable[[Any], None]) -> None:
    """Run a pipeline to its end; where this step is told to end, so is the pipeline.

    Args:
        engine: From `chosen`.
        build: Puts transforms on the apache_beam.Pipeline that it is given.

    Raises:
        UserError: Beam does not know an option, no job server answers, or the pipeline fails.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Two hundred lines of which annotations it does not use.
    logging.getLogger("apache_beam.typehints").setLevel(logging.WARNING)
    import apache_beam as beam

    with _raised() as asked_to_end:
        options = _options(engine)
        if not engine.here:
            _await_job_server(engine)
        try:
            pipeline = beam.Pipeline(runner=_as_beam_knows_it(engine), options=options)
        except ValueError as error:  # options that do not go together
            raise UserError(engine.component, "beam_options", _last_line(error), "Change them") from None
        build(pipeline)
        if engine.here:
            _run_here(engine, pipeline, asked_to_end)
        else:
            _run_there(engine, pipeline, asked_to_end)


def _run_here(engine: Engine, pipeline: Any, asked_to_end: threading.Event) -> None:
    try:
        state = pipeline.run().wait_until_finish()
    except BaseException:
        if not asked_to_end.is_set():
            raise
        raise SystemExit(EXIT_TERMINATED) from None  # Beam makes an error of the one that was raised in a worker
    if state != "DONE":
        raise _unfinished(engine, f"ended as {state}")


def _run_there(engine: Engine, pipeline: Any, asked_to_end: threading.Event) -> None:
    """Run a pipeline on a runner that has processes of its own, none of whose calls is waited for without an end."""
    submission = _Background(pipeline.run)
    try:
        with _one_line_each():
            running = submission.result(_SUBMISSION)
            state = running.wait_until_finish(duration=_HOURS * 3600 * 1000)
    except BaseException as error:
        if asked_to_end.is_set():
            _cancel(engine, submission)
            raise SystemExit(EXIT_TERMINATED) from None
        if isinstance(error, TimeoutError):
            raise _unfinished(engine, f"was not taken in {_SUBMISSION:.0f} s") from None
        if isinstance(error, Exception):
            raise _failed(engine, error) from error
        _cancel(engine, submission)
        raise
    if state != "DONE":
        _cancel(engine, submission)
        ended = state in ("FAILED", "CANCELLED", "DRAINED", "UPDATED")
        raise _unfinished(engine, f"ended as {state}" if ended else f"is unfinished after {_HOURS} hours")


def _cancel(engine: Engine, submission: _Background) -> None:
    """Tell a runner to end a pipeline, within seconds, also where it has only just been submitted."""
    try:
        _Background(lambda: submission.result(_CANCELLING).cancel()).result(_CANCELLING)
    except Exception as error:
        why = "it does not answer" if isinstance(error, TimeoutError) else _last_line(error)
        print(f"warning: {engine.component}: the pipeline on {engine.runner} may go on: {why}", file=sys.stderr)


@contextlib.contextmanager
def _one_line_each() -> Iterator[None]:
    """Shorten what Beam logs of the messages of a runner, which has tracebacks in full in its own log."""

    def shorten(record: logging.LogRecord) -> bool:
        record.msg, record.args = _last_line_of(record.getMessage()), ()
        return True

    root = logging.getLogger()  # Beam logs them there, and a filter of it sees nothing else
    root.addFilter(shorten)
    try:
        yield
    finally:
        root.removeFilter(shorten)


class _Background:
    """What a function returns or raises, in a thread that nobody waits for longer than he wants to."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._outcome: list[Any] = []
        self._failure: list[BaseException] = []
        self._done = threading.Event()  # Thread.join forgets a thread that is still running when a signal comes
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self._outcome.append(work())
        except BaseException as error:
            self._failure.append(error)
        self._done.set()

    def result(self, seconds: float) -> Any:
        """Return or raise it.

        Raises:
            TimeoutError: It is not there yet.
        """
        if not self._done.wait(seconds):
            raise TimeoutError
        if self._failure:
            raise self._failure[0]
        return self._outcome[0]


def _unfinished(engine: Engine, what: str) -> UserError:
    problem = f"the pipeline on {engine.runner} {what}"
    return UserError(engine.component, "beam_options", problem, "Look at the runner's own log of the job")


def _failed(engine: Engine, error: Exception) -> UserError:
    said = _last_line(error)
    remedy = "Look at the runner's own log of the job"
    if re.search("No module named|the workers have", said):
        remedy = "Give workers this step's own image, by environment_type and environment_config or sdk_container_image"
    return UserError(engine.component, "beam_options", f"the pipeline on {engine.runner} failed: {said}", remedy)


# How Python and Java begin the line that says what is wrong, among those that say where.
_SAYS = re.compile(r"(?:Caused by: )?(?:[\w.$]+\.)?\w*(?:Error|Exception|Interrupt|Exit)\b: ")


def _last_line(error: BaseException) -> str:
    """Return what an error says, of which runners tell with the traceback of a worker, in one line."""
    if callable(details := getattr(error, "details", None)):  # of gRPC
        return f"{getattr(error, 'code', str)()}: {details()}".removeprefix("StatusCode.")
    return _last_line_of(str(error)) or type(error).__name__


def _last_line_of(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = [line for line in lines if _SAYS.match(line)] or lines or [""]
    said = re.sub(r" \[while running '[^']*'\]", "", found[-1])
    if "of RPC that terminated with" in said and (details := re.findall(r'^\s*details = "(.*)"', text, re.MULTILINE)):
        said = details[-1]
    return said.replace(f"{UserError.__module__}.{UserError.__name__}: ", "")[:500]


def _await_job_server(engine: Engine) -> None:
    endpoint = engine.options.get("job_endpoint")
    if not endpoint:
        return
    import grpc

    with grpc.insecure_channel(str(endpoint)) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_ANSWER)
        except grpc.FutureTimeoutError:
            problem = f"no job server answers at job_endpoint {endpoint} within {_ANSWER:.0f} s"
            remedy = "Start it, or give host:port as this step reaches it"
            raise UserError(engine.component, "beam_options", problem, remedy) from None


def items(pipeline: Any, given: Iterable[Any]) -> Any:
    """Put items at the beginning of a pipeline, spread over its workers, once these are known to have our versions."""
    import apache_beam

    from penstock.components._shared.beam_workers import Items

    found = pipeline | "start" >> apache_beam.Impulse() | "items" >> apache_beam.ParDo(Items(given))
    return found | "spread" >> apache_beam.Reshuffle()


def tell_all(lines: Any, target: str) -> None:
    """Have a pipeline write lines, few of them, to a file; see told."""
    import apache_beam

    from penstock.components._shared.beam_workers import write_lines

    _ = lines | "together" >> apache_beam.combiners.ToList() | "tell" >> apache_beam.Map(write_lines, target)


def told(engine: Engine, target: str) -> bytes:
    """Return what a pipeline wrote to a file of scratch(), and remove it.

    Raises:
        UserError: It cannot be read.
    """
    folder, _, name = target.rpartition("/")
    with on_behalf_of(engine.component):
        found = places.read(target)
        places.remove(folder, [name])
    return found


def spread(engine: Engine, given: Sequence[T], work: Callable[[T], Any], folder: str | os.PathLike[str]) -> list[Any]:
    """Return what is made of each item by itself, in the order of the items, wherever and whenever it was made.

    Args:
        engine: From `chosen`.
        given: What workers are sent.
        work: Returns JSON values, few of them. It may be called again for an item, also while another call lasts.
        folder: Of this machine, for files in passing; see scratch().

    Raises:
        UserError: That of the first item for which there is one; or Beam cannot run so.
    """
    target = scratch(engine, folder)

    def build(pipeline: Any) -> None:
        import apache_beam

        tell_all(items(pipeline, enumerate(given)) | "work" >> apache_beam.Map(tell, work), target)

    run(engine, build)
    with on_behalf_of(engine.component):
        return made(told(engine, target).splitlines())


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
    if not engine.here:
        _prepare(options)
    return options


def _prepare(options: Any) -> None:
    """Set what follows from where this runs."""
    from apache_beam.options.pipeline_options import DebugOptions, PortableOptions

    # It would ask pip, which no image has; items() compares what matters.
    options.view_as(DebugOptions).add_experiment("disable_logging_submission_environment")
    # Beam stops following a pipeline, too, after so long at some job servers; _run_there has deadlines of its own.
    portable = options.view_as(PortableOptions)
    portable.job_server_timeout = max(portable.job_server_timeout, _HOURS * 3600)


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
    if not places.is_remote(uri):
        raise UserError(
            engine.component,
            argument,
            f"{uri or path} is on this machine, where {engine.runner} cannot read it",
            "Run with a pipeline root in a bucket, or with the DirectRunner",
        )
    if uri.partition("://")[0] not in places.stores():
        problem = f"{uri} is in no store that workers of {engine.runner} reach"
        remedy = f"Run with a pipeline root of {', '.join(places.stores())}, or with the DirectRunner"
        raise UserError(engine.component, argument, problem, remedy)
    return uri
