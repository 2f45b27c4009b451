"""Which engine a step's parameters ask for, and what is said where it cannot be had."""

import subprocess
import sys

import pytest

from penstock.components._shared import beam
from penstock.components._shared.errors import UserError

DIRECT = beam.DIRECT


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
        ("beam", {"runner": "FlinkRunner", "temp_location": "gs://a"}, "needs job_endpoint or flink_submit_uber_jar"),
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
    flow = beam.chosen(
        "validate", "beam", {"runner": "DataflowRunner", "project": "a", "region": "b", "temp_location": "gs://t/"}
    )
    assert beam.place(flow, "dataset", "/gcs/a/b", "gs://a/b") == "gs://a/b"
    assert beam.scratch(flow, "/tmp").startswith("gs://t/penstock-")
    with pytest.raises(UserError, match=r"dataset: /here is on this machine, where DataflowRunner cannot read it"):
        beam.place(flow, "dataset", "/here", "/here")
    here = beam.chosen("validate", "beam", DIRECT)
    assert beam.place(here, "dataset", "/here", "gs://a/b") == "/here"
    assert beam.scratch(here, "/scratch").startswith("/scratch/penstock-")
