"""What the CI definitions promise: all three do the same, pinned, with least permissions and without keys."""

import re

import pytest

from tests.contract import ci
from tests.contract.ci import ROOT

DEFINITIONS = ["cloudbuild.yaml", ".github/workflows/ci.yml", "azure-pipelines.yml"]
STEPS = {"cloudbuild": ci.cloudbuild(), "github": ci.github(), "azure": ci.azure()}
WORKFLOW = ci.read(".github/workflows/ci.yml")
PIPELINES = ci.read("azure-pipelines.yml")
# Tasks that come with Azure DevOps; others would be third parties' code that no commit pins.
TASKS_OF_AZURE = {"AzureCLI@2", "UsePythonVersion@0"}


@pytest.mark.parametrize(
    "step", [pytest.param(step, id=f"{where}: {step.name}") for where, steps in STEPS.items() for step in steps]
)
def test_every_command_exists(step):
    assert ci.flaw(step.words) is None


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("make chekc", "the Makefile has no target chekc"),
        (".venv/bin/penstock imags build", "penstock has no command «imags»"),
        (".venv/bin/penstock compile --everything", "--everything"),
        (".ci/no-such-script", ".ci/no-such-script is no executable file"),
        ("curl https://example.com", "curl is neither ours nor on the machines of CI"),
    ],
)
def test_a_command_that_does_not_exist_is_told(line, reason):
    [words] = ci.commands(line)
    assert reason in ci.flaw(words)


def published(steps: list[ci.Step]) -> list[str]:
    """Return what steps do that publish, without where to and without the names of images."""
    names = {path.parent.name for path in ROOT.glob("containers/*/requirements.lock")}
    found = []
    for step in steps:
        words = [word.rpartition("/")[2] if word.endswith("/penstock") else word for word in step.words]
        words = [word.removeprefix(f"{ci.WORKSPACE}/") for word in words if word not in names]
        if words[0] == "penstock" and "--registry" in words:
            at = words.index("--registry")
            del words[at : at + 2]
        if words[0].startswith(".ci/"):
            words = words[:2]
        line = " ".join(words)
        if words[0] not in ci.ELSEWHERE and line not in ("make setup", *found):
            found.append(line)
    return found


def test_the_three_run_the_same_commands_in_the_same_order():
    github = [step for step in STEPS["github"] if not step.name.startswith("images:")]
    assert published(STEPS["cloudbuild"]) == published(github)
    assert published(STEPS["azure"]) == published(github)
    assert published(github)[0] == "make check"
    assert published(github)[-1] == ".ci/submit compiled"


@pytest.mark.parametrize("path", DEFINITIONS)
def test_no_key_and_no_secret_is_named(path):
    text = (ROOT / path).read_text()
    for word in (
        r"secrets\.",
        "secretEnv",
        "availableSecrets",
        "password:",
        "credentials_json",
        r"_KEY\b",
        r"key\.json",
    ):
        assert not re.search(word, text), f"{path} names {word}"


def test_github_actions_are_pinned_by_commit_with_the_version_beside_it():
    used = re.findall(r"uses: (.*)", (ROOT / ".github/workflows/ci.yml").read_text())
    assert used
    for line in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_github_jobs_have_least_permissions():
    assert WORKFLOW["permissions"] == {}
    read_only = {"contents": "read"}
    permissions = {name: job["permissions"] for name, job in WORKFLOW["jobs"].items()}
    assert permissions.pop("publish") == {"contents": "read", "id-token": "write"}
    assert all(given == read_only for given in permissions.values())
    for job in WORKFLOW["jobs"].values():
        assert job["timeout-minutes"] <= 120
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
            assert "${{" not in step.get("run", ""), "values reach the shell by its environment, not by its text"


def test_only_main_is_published():
    assert "github.ref == 'refs/heads/main'" in WORKFLOW["jobs"]["publish"]["if"]
    assert "github.event_name == 'push'" in WORKFLOW["jobs"]["publish"]["if"]
    # `on:` is a boolean to YAML 1.1.
    assert "pull_request_target" not in WORKFLOW[True]
    [publish] = [stage for stage in PIPELINES["stages"] if stage["stage"] == "publish"]
    assert "eq(variables['Build.SourceBranch'], 'refs/heads/main')" in publish["condition"]
    assert "ne(variables['Build.Reason'], 'PullRequest')" in publish["condition"]


def test_azure_submits_to_azure_ml():
    assert PIPELINES["variables"]["TARGET"] == "azureml"


def test_azure_runs_no_third_party_task_and_every_job_ends():
    for stage in PIPELINES["stages"]:
        for job in stage["jobs"]:
            assert int(job["timeoutInMinutes"]) <= 120
            assert {step["task"] for step in job["steps"] if "task" in step} <= TASKS_OF_AZURE
