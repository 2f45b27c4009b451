"""Which engine a step's parameters ask for, and what is said where it cannot be had."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from penstock.components._shared import beam
from penstock.components._shared.errors import UserError

DIRECT = beam.DIRECT
GOOGLE = {"project": "a", "region": "b", "temp_location": "gs://t/", "sdk_container_image": "i"}
CLUSTER = {
    "runner": "FlinkRunner",
    "job_endpoint": "flink:8099",
    "environment_type": "EXTERNAL",
    "environment_config": "localhost:50000",
    "temp_location": "s3://t",
}


@pytest.fixture
def installed(monkeypatch):
    """As if Beam were here."""
    monkeypatch.setattr(beam, "find_spec", lambda name: object())


def test_one_machine_is_asked_for_without_a_look_at_the_options():
    assert beam.chosen("validate", "local", {"runner": "nobody"}) is None


@pytest.mark.parametrize(
    ("engine", "options", "words"),
    [
        ("spark", DIRECT, "validate: engine: there is no engine 'spark'. Choose one of local, beam."),
        ("beam", {}, "validate: beam_options: they name no runner. Give one, as in"),
        ("beam", None, "beam_options: they name no runner"),
        ("beam", {"project": "acme"}, "beam_options: they name no runner"),
        (
            "beam",
            {"runner": "Direct"},
            'there is no runner \'Direct\'. Give one, as in {"runner": "DirectRunner"}; there are',
        ),
        ("beam", {"runner": "DataflowRunner", "project": "acme"}, "DataflowRunner needs region"),
        ("beam", {"runner": "DataflowRunner", **GOOGLE, "sdk_container_image": ""}, "needs sdk_container_image"),
        ("beam", {"runner": "FlinkRunner", "temp_location": "gs://a"}, "needs job_endpoint or flink_submit_uber_jar"),
        ("beam", {**CLUSTER, "environment_config": ""}, "FlinkRunner needs environment_config or environment_options"),
        (
            "beam",
            {**CLUSTER, "temp_location": "minio://a"},
            "temp_location 'minio://a' is no place that step and workers share. Give a URI of gs, s3, abfss, abfs, or",
        ),
        ("beam", {**CLUSTER, "temp_location": "tmp"}, "temp_location 'tmp' is no place that step and workers share"),
        (
            "beam",
            {**CLUSTER, "s3_secret_access_key": "x"},
            "s3_secret_access_key is of Beam's own access to storage, which is not used",
        ),
        ("beam", {**CLUSTER, "azure_connection_string": "x"}, "find credentials and endpoints in their environment"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(installed, engine, options, words):
    with pytest.raises(UserError) as error:
        beam.chosen("validate", engine, options)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_an_engine_that_is_not_installed_is_named_with_its_image_and_its_extra():
    with pytest.raises(
        UserError, match=r"'beam' needs apache_beam and no_such_module, which are not installed"
    ) as error:
        beam.chosen("validate", "beam", DIRECT, "no_such_module")
    assert "penstock/beam" in str(error.value)
    assert "pip install 'penstock[beam]'" in str(error.value)


def test_a_step_on_one_machine_imports_nothing_of_beam():
    script = "import sys, penstock.components.validation.validate; print([n for n in sys.modules if 'beam' in n])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"_KFP_RUNTIME": "true"}
    )
    found = done.stdout.strip()
    assert found == "['penstock.components._shared.beam', 'penstock.components.validation.beam_statistics']"


def test_workers_on_other_machines_are_given_a_uri_or_a_refusal(installed):
    flow = beam.chosen("validate", "beam", {"runner": "DataflowRunner", **GOOGLE})
    assert beam.place(flow, "dataset", "/gcs/a/b", "gs://a/b") == "gs://a/b"
    assert beam.scratch(flow, "/tmp").startswith("gs://t/penstock-")
    with pytest.raises(UserError, match=r"dataset: /here is on this machine, where DataflowRunner cannot read it"):
        beam.place(flow, "dataset", "/here", "/here")
    with pytest.raises(UserError, match="dataset: minio://a/b is in no store that workers of"):
        beam.place(flow, "dataset", "/here", "minio://a/b")
    here = beam.chosen("validate", "beam", DIRECT)
    assert beam.place(here, "dataset", "/here", "gs://a/b") == "/here"
    assert beam.scratch(here, "/scratch").startswith("/scratch/penstock-")


@pytest.mark.parametrize("runner", ["FlinkRunner", "SparkRunner", "PortableRunner"])
def test_a_cluster_is_asked_for_with_a_folder_that_all_have_mounted(installed, runner):
    engine = beam.chosen("validate", "beam", {**CLUSTER, "runner": runner, "temp_location": "/mnt/all"})
    assert not engine.here
    assert beam.scratch(engine, "/tmp").startswith("/mnt/all/penstock-")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            'Pipeline job-1 failed in state FAILED: Traceback (most recent call last):\n  File "x.py", line 1\n'
            "KeyError: 'a'\n\nDuring handling of the above exception, another exception occurred:\n"
            "Traceback (most recent call last):\nRuntimeError: KeyError: 'a' [while running 'work-ptransform-7']\n\n",
            "RuntimeError: KeyError: 'a'",
        ),
        (
            "penstock.components._shared.errors.UserError: evaluate: model: no. Train it. [while running 'predict']",
            "evaluate: model: no. Train it.",
        ),
        (
            "java.lang.RuntimeException: Error received from SDK harness\n\tat org.a(B.java:1)\n"
            "Caused by: java.io.IOException: no space\n\t... 5 more",
            "Caused by: java.io.IOException: no space",
        ),
        (
            "Traceback (most recent call last):\ngrpc._channel._InactiveRpcError: <_InactiveRpcError of RPC that "
            'terminated with:\n\tstatus = StatusCode.UNAVAILABLE\n\tdetails = "failed to connect"\n\tdebug = "x"\n>\n',
            "failed to connect",
        ),
        ("no line that says so", "no line that says so"),
        ("", "RuntimeError"),
    ],
)
def test_of_what_a_runner_says_the_line_is_told_that_says_what_is_wrong(said, told):
    assert beam._last_line(RuntimeError(said)) == told


def test_messages_of_a_runner_are_a_line_each(caplog):
    text = "Traceback (most recent call last):\n  File \"x.py\"\nKeyError: 'a'\n"
    with beam._one_line_each():
        logging.log(logging.ERROR, "%s", text)
        logging.getLogger("another").error(text)
    logging.log(logging.ERROR, text)
    assert caplog.messages == ["KeyError: 'a'", text, text]


def test_what_does_not_answer_is_left_behind():
    released = threading.Event()
    waiting = beam._Background(lambda: released.wait(20))
    with pytest.raises(TimeoutError):
        waiting.result(0.05)
    released.set()
    assert waiting.result(5) is True
    with pytest.raises(ZeroDivisionError):
        beam._Background(lambda: 1 / 0).result(5)


class Submitted:
    """A pipeline on a runner, which tells when it is cancelled."""

    def __init__(self, state: str, submission: float = 0.0, error: Exception | None = None) -> None:
        self.state, self.submission, self.error, self.cancelled = state, submission, error, False

    def run(self) -> "Submitted":
        time.sleep(self.submission)
        return self

    def wait_until_finish(self, duration: int) -> str:
        if self.state == "ENDLESS":
            os.kill(os.getpid(), signal.SIGTERM)
        if self.error:
            raise self.error
        return self.state

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
def flink(installed) -> beam.Engine:
    return beam.chosen("ingest", "beam", CLUSTER)


def test_a_pipeline_that_is_not_done_in_time_is_cancelled(flink):
    pipeline = Submitted("RUNNING")
    with pytest.raises(UserError, match="the pipeline on FlinkRunner is unfinished after 24 hours"):
        beam._run_there(flink, pipeline, threading.Event())
    assert pipeline.cancelled


def test_a_pipeline_that_fails_is_told_in_one_line(flink):
    pipeline = Submitted("", error=RuntimeError("ModuleNotFoundError: No module named 'penstock'"))
    with pytest.raises(UserError, match=r"failed: ModuleNotFoundError: .* Give workers this step's own image"):
        beam._run_there(flink, pipeline, threading.Event())


@pytest.mark.parametrize("submission", [0.0, 0.5])
def test_a_pipeline_is_cancelled_also_where_the_step_is_told_to_end_while_it_is_submitted(flink, submission):
    pipeline = Submitted("ENDLESS", submission)
    with beam._raised() as asked:
        if submission:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(SystemExit) as ended:
            beam._run_there(flink, pipeline, asked)
    assert ended.value.code == 143
    assert pipeline.cancelled


def test_a_runner_that_cannot_be_told_to_cancel_is_named(flink, monkeypatch, capsys):
    monkeypatch.setattr(beam, "_CANCELLING", 0.05)
    pipeline = Submitted("ENDLESS")
    pipeline.cancel = lambda: time.sleep(20)
    with beam._raised() as asked, pytest.raises(SystemExit):
        beam._run_there(flink, pipeline, asked)
    assert capsys.readouterr().err == "warning: ingest: the pipeline on FlinkRunner may go on: it does not answer\n"
