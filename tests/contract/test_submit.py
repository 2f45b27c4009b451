"""What .ci/submit submits, from which branch, and what it refuses."""

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from penstock.testing import Script, VertexStandIn
from tests.compile.targets import golden_requests
from tests.compile.targets.conftest import service_account  # noqa: F401  a fixture
from tests.contract import ci
from tests.contract.ci import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OPTIONS = ["--project", "acme", "--pipeline-root", "gs://acme-penstock/a folder"]


@pytest.fixture
def repository(tmp_path):
    """A folder with the script, two specs and a stand-in for penstock, which notes what it is called with."""
    program = tmp_path / "bin" / "penstock"
    script = tmp_path / ".ci" / "submit"
    for path in (program, script, tmp_path / "compiled" / "specs"):
        path.parent.mkdir()
    program.write_text(f"""#!/bin/sh\n[ "$2" != "$REFUSED" ] || exit 2\nprintf '%s\\n' "$@" >> {tmp_path}/calls\n""")
    program.chmod(0o755)
    shutil.copy(ROOT / ".ci" / "submit", script)
    for name in ("one", "two"):
        (tmp_path / "compiled" / f"{name}.yaml").write_text("a: spec\n")
    return tmp_path


def submit(repository, branch, names, commit=COMMIT, **env):
    path = f"{repository / 'bin'}{os.pathsep}{os.environ['PATH']}"
    command = [repository / ".ci" / "submit", "compiled", commit, branch, "main", names, *OPTIONS]
    return subprocess.run(
        command, cwd=repository, env={"PATH": path, **env}, capture_output=True, text=True, timeout=60
    )


def calls(repository):
    """Return the words of each call of penstock."""
    noted = repository / "calls"
    words = noted.read_text().splitlines() if noted.exists() else []
    starts = [index for index, word in enumerate(words) if word == "submit"]
    return [words[start:end] for start, end in pairwise([*starts, len(words)])]


def expected(name, *given, target="vertex"):
    named = ["submit", f"compiled/{name}.yaml", "--target", target, "--idempotency-key", COMMIT]
    return [*named, "--label", f"commit={COMMIT}", *given, *OPTIONS]


@pytest.mark.parametrize("names", ["one,two", "one, two"])
def test_each_named_pipeline_is_submitted_once_a_commit(repository, names):
    done = submit(repository, "main", names)
    assert done.returncode == 0, done.stderr
    assert calls(repository) == [expected("one"), expected("two")]


def test_another_target_is_named_by_the_environment(repository):
    assert submit(repository, "main", "one", TARGET="azureml").returncode == 0
    assert calls(repository) == [expected("one", target="azureml")]


def test_a_pipeline_takes_the_parameters_that_the_repository_has_for_it(repository):
    (repository / ".ci" / "parameters").mkdir()
    file = repository / ".ci" / "parameters" / "two.yaml"
    file.write_text("rows: 1\n")
    assert submit(repository, "main", "one,two").returncode == 0
    assert calls(repository) == [expected("one"), expected("two", "--params", str(file))]


@pytest.mark.parametrize(("branch", "said"), [("feature/main", "this is feature/main"), ("", "this is no branch")])
def test_from_another_branch_nothing_is_submitted(repository, branch, said):
    done = submit(repository, branch, "one")
    assert done.returncode == 0
    assert done.stdout == f"submit: nothing, for runs are submitted from main, and {said}\n"
    assert calls(repository) == []


def test_without_names_nothing_is_submitted(repository):
    done = submit(repository, "main", "")
    assert (done.returncode, done.stdout) == (0, "submit: nothing, for no pipeline is named\n")
    assert calls(repository) == []


@pytest.mark.parametrize(
    ("names", "commit", "reason"),
    [("one,three", COMMIT, "there is no compiled/three.yaml"), ("one", "main", "«main» is no git commit")],
)
def test_what_cannot_be_is_refused_before_anything_is_submitted(repository, names, commit, reason):
    done = submit(repository, "main", names, commit)
    assert done.returncode == 2
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert calls(repository) == []


def test_a_submission_that_is_refused_fails_the_step(repository):
    done = submit(repository, "main", "one,two", REFUSED="compiled/one.yaml")
    assert done.returncode == 2
    assert calls(repository) == []


def test_too_few_words_are_refused_with_an_example(repository):
    done = subprocess.run([repository / ".ci" / "submit", "compiled"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "tabular_training" in done.stderr


@pytest.mark.slow
def test_the_step_of_cloud_build_begins_one_run_a_commit(tmp_path, service_account):  # noqa: F811
    pytest.importorskip("google.cloud.aiplatform")
    (tmp_path / "compiled").mkdir()
    path = golden_requests.GOLDEN / "tabular_training.yaml"
    (tmp_path / "compiled" / path.name).write_text(golden_requests.pinned(path))
    step = next(step for step in ci.cloudbuild(PROJECT_ID="acme", COMMIT_SHA=COMMIT) if step.name == "submit")
    words = [word.replace(ci.WORKSPACE, str(ROOT)) for word in step.words]
    with VertexStandIn(Script("RUNNING")) as stand_in:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM": f"{stand_in.url}/",
            "GOOGLE_APPLICATION_CREDENTIALS": str(service_account),
        }
        for _ in range(2):
            done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
        [job] = stand_in.pipeline_jobs.kept.all()
    assert job["name"].startswith("projects/acme/locations/europe-west1/pipelineJobs/tabular-training-")
    assert job["labels"]["commit"] == COMMIT
    assert job["serviceAccount"] == "penstock-pipelines@acme.iam.gserviceaccount.com"
    assert job["runtimeConfig"]["gcsOutputDirectory"] == "gs://acme-penstock/runs"
