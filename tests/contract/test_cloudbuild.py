"""What cloudbuild.yaml promises, and its steps run in order against a registry on this machine."""

import io
import json
import os
import re
import subprocess
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from penstock.compile import images as images_of
from penstock.compile import rewrites
from tests.contract import ci
from tests.contract.ci import ROOT
from tests.contract.test_upload import program, repository  # noqa: F401  a fixture

DEFINITION = ci.read("cloudbuild.yaml")
ENVIRONMENTS = {path.parent.name for path in ROOT.glob("containers/*/requirements.lock")}
GIVEN_BY_CLOUD_BUILD = {"PROJECT_ID", "COMMIT_SHA", "BRANCH_NAME"}


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_every_substitution_is_used_and_every_one_used_has_a_value():
    text = (ROOT / "cloudbuild.yaml").read_text()
    used = set(re.findall(r"\$\{?(\w+)", text))
    assert used - GIVEN_BY_CLOUD_BUILD == set(DEFINITION["substitutions"])
    assert used & GIVEN_BY_CLOUD_BUILD == GIVEN_BY_CLOUD_BUILD
    assert DEFINITION["options"]["dynamicSubstitutions"] is True


def test_substitutions_resolve_to_the_places_of_the_project():
    words = {step.name: step.words for step in ci.cloudbuild(PROJECT_ID="acme", _REGION="us-east1", COMMIT_SHA="abc")}
    assert words["push"][-1] == "us-east1-docker.pkg.dev/acme/penstock"
    assert words["submit"][1:6] == ("compiled", "abc", "main", "main", "tabular_training")
    assert words["submit"][6:] == (
        "--project=acme",
        "--location=us-east1",
        "--pipeline-root=gs://acme-penstock/runs",
        "--service-account=penstock-pipelines@acme.iam.gserviceaccount.com",
    )
    assert words["upload"][1:] == ("compiled", "abc", "https://us-east1-kfp.pkg.dev/acme/penstock-specs")


def test_two_dollars_are_one_and_a_name_without_a_value_is_an_error():
    assert ci.resolved("$$A ${_A}$_B", {"_A": "${_B}!", "_B": "b"}) == "$A b!b"
    with pytest.raises(KeyError, match="_C"):
        ci.resolved("$_C", {})


def test_steps_wait_for_steps_before_them_and_end_within_the_time_of_the_build():
    ends: dict[str, int] = {}
    for step in DEFINITION["steps"]:
        # Without waitFor a step waits for all before it, and builds would not go side by side.
        waits = step["waitFor"] if ends else []
        ends[step["id"]] = max((ends[name] for name in waits), default=0) + seconds(step["timeout"])
    assert max(ends.values()) <= seconds(DEFINITION["timeout"])


def test_every_environment_is_built_and_smoked_beside_the_others():
    waits = {step["id"]: step.get("waitFor") for step in DEFINITION["steps"]}
    for verb, before in (("build", "check"), ("smoke", "build-{}")):
        assert {name for name in waits if name.startswith(f"{verb}-")} == {f"{verb}-{name}" for name in ENVIRONMENTS}
        assert all(waits[f"{verb}-{name}"] == [before.format(name)] for name in ENVIRONMENTS)
    assert set(waits["push"]) == {f"smoke-{name}" for name in ENVIRONMENTS}


def test_it_runs_as_a_service_account_of_its_own():
    values = {"PROJECT_ID": "acme", **DEFINITION["substitutions"]}
    account = ci.resolved(DEFINITION["serviceAccount"], values)
    assert account == "projects/acme/serviceAccounts/penstock-build@acme.iam.gserviceaccount.com"
    assert DEFINITION["options"]["logging"] == "CLOUD_LOGGING_ONLY"  # required with an account of one's own


BUILT = "tabular"


def content(name: str) -> bytes:
    """Return as tar what an image holds that nothing runs in: the package that lists of what is in it are to name."""
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()
    member = tarfile.TarInfo(f"opt/venv/lib/python3.11/site-packages/{name}-1.0.dist-info/METADATA")
    member.size = len(metadata)
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        archive.addfile(member, io.BytesIO(metadata))
    return written.getvalue()


@pytest.fixture
def workspace(tmp_path, registry) -> Iterator[Path]:
    """A clone of the project in which one image has to be built; a registry has those of all other environments.

    So it is at most pushes. These are of a few bytes here, where nine real ones are 11 GB to compress and send; that
    each of them can be built is for the tests of containers to say.
    """
    folder = tmp_path / "workspace"
    subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
    # Of a version of its own, so that no other test has these images.
    project = folder / "pyproject.toml"
    text, found = re.subn('(?m)^version = "(.+)"', r'version = "\1.dev1"', project.read_text(), count=1)
    assert found
    project.write_text(text)
    others = sorted(ENVIRONMENTS - {BUILT})
    for name in others:
        with (folder / "containers" / name / "requirements.lock").open("a") as lock:
            lock.write("# other dependencies than those that this machine may have\n")
    author = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    subprocess.run(["git", *author, "commit", "-qam", "Change all but one image"], cwd=folder, check=True)
    with images_of.Engine(print) as engine:
        for environment in images_of.environments(folder, others):
            there = f"{registry}/penstock/{environment.name}:{environment.tag(engine._base_id(environment))}"
            for command, given in ((["import", "-", there], content(environment.name)), (["push", "-q", there], None)):
                subprocess.run(["docker", *command], input=given, check=True, capture_output=True)
            subprocess.run(["docker", "rmi", there], check=True, capture_output=True)
    yield folder
    with images_of.Engine(print) as engine:
        for environment in images_of.environments(folder):
            name = f"{environment.repository}:{environment.tag(engine._base_id(environment))}"
            subprocess.run(["docker", "rmi", name, environment.image], capture_output=True)


@pytest.mark.slow
@pytest.mark.docker
@pytest.mark.timeout(2400)
def test_the_steps_run_in_order_against_a_registry_on_this_machine(tmp_path, registry, repository, workspace):  # noqa: F811
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=workspace, capture_output=True, text=True, check=True
    ).stdout.strip()
    # Not what a test session sets for itself, and of the tests in `make check` a few: these run inside of them.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTEST"))}
    inherited |= {"ARGS": "tests/contract/test_layers.py", "PATH": repository.path}
    program(tmp_path / "programs" / "penstock", f'echo "$@" >> {tmp_path}/submitted')  # what submits, without a cloud
    for step in ci.cloudbuild(
        COMMIT_SHA=commit, _REGISTRY=f"{registry}/penstock", _SPECS=f"{repository.url}/acme/penstock-specs"
    ):
        if step.name.startswith("smoke-") and step.name != f"smoke-{BUILT}":
            continue  # one stands for all: they differ by a name
        words = [word.replace(ci.WORKSPACE, str(workspace)) for word in step.words]
        env = {name: value.replace(ci.WORKSPACE, str(workspace)) for name, value in step.env.items()}
        done = subprocess.run(words, cwd=workspace, env={**inherited, **env}, capture_output=True, text=True)
        assert done.returncode == 0, f"{step.name}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"

    specs = [path.read_text() for path in sorted((workspace / "compiled").glob("*.yaml"))]
    images = {image for spec in specs for image in rewrites.images(yaml.safe_load(spec))}
    images.remove(f"gcr.io/ml-pipeline/google-cloud-pipeline-components:{version('google-cloud-pipeline-components')}")
    assert images
    for image in images:
        name, digest = re.fullmatch(rf"{registry}/(\S+)@(sha256:[0-9a-f]{{64}})", image).groups()
        assert answers(f"http://{registry}/v2/{name}/manifests/{digest}"), f"{image} is not in the registry"
    assert repository.uploads == [(commit, spec) for spec in specs]
    (submitted,) = (tmp_path / "submitted").read_text().splitlines()
    assert submitted.startswith(f"submit compiled/tabular_training.yaml --target vertex --idempotency-key {commit} ")
    boms = [json.loads(path.read_text()) for path in (workspace / "dist").glob("*.cdx.json")]
    assert images <= set(re.findall(r"oci://([^\"]+)", json.dumps(boms))), "the lists name images as specs do"
    assert {bom["metadata"]["component"]["name"] for bom in boms} == {
        "penstock",
        *(f"penstock/{name}" for name in ENVIRONMENTS),
    }


def answers(url: str) -> bool:
    manifest = "application/vnd.docker.distribution.manifest.v2+json"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": f"{manifest}, */*"}), timeout=10):
            return True
    except urllib.error.URLError:
        return False
