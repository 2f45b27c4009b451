"""There is one schedule of a name on a platform, whatever was there before and whatever happens on the way."""

import contextlib
import json
from dataclasses import dataclass
from typing import Any

import pytest

from penstock.compile import scheduling
from penstock.compile.errors import PenstockError
from penstock.testing import AzureMLStandIn, Fault, KubeflowStandIn, Script, VertexStandIn
from tests.compile.targets.conftest import sha256

CREATE = {"kubeflow": "POST */recurringruns", "vertex": "POST */schedules", "azureml": "PUT */schedules/*"}


@dataclass
class Platform:
    """A stand-in, and the options that lead there."""

    name: str
    stand_in: Any
    options: tuple[str, ...]
    own: tuple[str, ...]

    def schedules(self) -> list[dict[str, Any]]:
        """Return what is scheduled there, each with its name, cron expression and state."""
        if self.name == "vertex":
            found = self.stand_in.schedules.kept.all()
            return [{"name": each["displayName"], "cron": each["cron"], "state": each["state"]} for each in found]
        if self.name == "azureml":
            return [
                {
                    "name": name,
                    "cron": each.given["trigger"]["expression"],
                    "state": "ACTIVE" if each.given["isEnabled"] else "PAUSED",
                }
                for name, each in self.stand_in.schedules._kept.items()
            ]
        states = {"ENABLED": "ACTIVE", "DISABLED": "PAUSED"}
        return [
            {
                "name": each["display_name"],
                "cron": each["trigger"]["cron_schedule"]["cron"],
                "state": states[each["status"]],
            }
            for each in self.stand_in.recurring_runs._kept.values()
        ]


@contextlib.contextmanager
def azureml():
    """Azure ML, and the options that lead there."""
    pytest.importorskip("azure.ai.ml")
    with AzureMLStandIn(Script()) as stand_in, stand_in.connected():
        scope = stand_in.scope
        where = ("--subscription", scope.subscription, "--resource-group", scope.group, "--workspace", scope.workspace)
        yield stand_in, ("--target", "azureml", *where)


@pytest.fixture(params=["kubeflow", "vertex", pytest.param("azureml", marks=pytest.mark.xdist_group("azureml"))])
def platform(request, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    if request.param == "azureml":
        with azureml() as (stand_in, options):
            yield Platform("azureml", stand_in, options, ())
        return
    if request.param == "kubeflow":
        with KubeflowStandIn(Script()) as stand_in:
            yield Platform("kubeflow", stand_in, ("--target", "kubeflow", "--host", stand_in.url), ())
        return
    pytest.importorskip("google.cloud.aiplatform")
    with VertexStandIn(Script()) as stand_in, stand_in.connected():
        yield Platform("vertex", stand_in, ("--target", "vertex"), ("--pipeline-root", "gs://bucket/runs"))


@pytest.fixture
def schedule(platform, call, spec):
    """Schedule the pipeline there, and return what came of it."""

    def make(*options: str, code: int = 0) -> Any:
        result = call("schedule", spec, *platform.options, *platform.own, "--json", *options)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout) if code == 0 else result.output

    return make


def test_a_schedule_begins_runs_of_the_spec_with_its_parameters(platform, schedule, spec):
    more = () if platform.name == "azureml" else ("--max-concurrent", "2")
    answer = schedule("--cron", "30 6 * * 1", "--name", "nightly", "-p", "number=9", *more)
    assert answer["sha256"] == sha256(spec)
    assert (answer["outcome"], answer["schedule"]["cron"]) == ("made", "30 6 * * 1")
    assert [each["name"] for each in platform.schedules()] == ["nightly"]
    platform.stand_in.fire(answer["schedule"]["id"])
    if platform.name == "vertex":
        [job] = platform.stand_in.pipeline_jobs.kept.all()
        assert job["runtimeConfig"]["parameterValues"]["number"] == 9
        assert job["labels"]["penstock-spec-sha256"] == sha256(spec)[:63]
    elif platform.name == "azureml":
        [job] = [each.kept.given for each in platform.stand_in.jobs._kept.values()]
        assert job["inputs"]["number"]["value"] == "9"
        assert job["tags"]["penstock.spec_sha256"] == sha256(spec)
    else:
        [run] = platform.stand_in.runs.current()
        assert run["runtime_config"]["parameters"]["number"] == 9
        [package] = platform.stand_in.pipelines.packages.values()
        assert package.sha256 == sha256(spec)
        assert platform.schedules()[0]["cron"] == "0 30 6 * * 1"


def test_the_same_schedule_twice_changes_nothing_and_says_so(platform, schedule, call, spec):
    first = schedule("--cron", "0 4 * * *")
    again = schedule("--cron", " 0  4 * * * ")
    assert again["outcome"] == "unchanged"
    assert again["schedule"]["id"] == first["schedule"]["id"]
    assert len(platform.schedules()) == 1
    said = call("schedule", spec, *platform.options, *platform.own, "--cron", "0 4 * * *").stdout
    assert "active: there already, and the same: nothing was changed" in said


@pytest.mark.parametrize("options", [("--cron", "0 5 * * *"), ("--cron", "0 4 * * *", "-p", "number=4")])
def test_another_schedule_of_that_name_is_refused_or_replaced(platform, schedule, options):
    first = schedule("--cron", "0 4 * * *")
    refused = schedule(*options, code=2)
    assert (
        f"there is another schedule weekly-doubling: {first['schedule']['id']} (0 4 * * *); give --replace" in refused
    )
    replaced = schedule(*options, "--replace")
    assert replaced["outcome"] == "replaced"
    # On Azure ML a schedule's name is its id, and the new one is put over the other.
    assert (replaced["schedule"]["id"] == first["schedule"]["id"]) is (platform.name == "azureml")
    assert len(platform.schedules()) == 1
    assert schedule(*options)["outcome"] == "unchanged"


@pytest.mark.parametrize("fault", [Fault.lost, Fault.answer, Fault.reset], ids=["lost answer", "503", "reset"])
def test_a_fault_of_creation_leaves_one_schedule(platform, schedule, fault):
    platform.stand_in.add_faults(fault(CREATE[platform.name]))
    schedule("--cron", "0 4 * * *")
    assert len(platform.schedules()) == 1


def test_a_schedule_is_paused_resumed_listed_and_deleted_by_name(platform, schedule, call):
    made = schedule("--cron", "0 4 * * *", "--name", "nightly", "--paused")
    assert made["schedule"]["state"] == "PAUSED"
    assert platform.schedules()[0]["state"] == "PAUSED"
    for action, state in (("resume", "ACTIVE"), ("pause", "PAUSED")):
        result = call("schedules", action, "nightly", *platform.options)
        assert result.exit_code == 0, result.output
        [listed] = json.loads(call("schedules", "list", *platform.options, "--json").stdout)
        assert (listed["name"], listed["state"], listed["cron"]) == ("nightly", state, "0 4 * * *")
    assert "nightly" in call("schedules", "list", *platform.options).stdout
    result = call("schedules", "delete", made["schedule"]["id"], *platform.options)
    assert result.stdout == f"schedule nightly ({made['schedule']['id']}) is deleted\n"
    assert platform.schedules() == []
    gone = call("schedules", "delete", "nightly", *platform.options)
    assert gone.exit_code == 2
    assert "error: there is no schedule nightly; there are none" in gone.output


def test_a_schedule_that_somebody_paused_is_the_same(platform, schedule, call):
    schedule("--cron", "0 4 * * *", "--name", "nightly")
    call("schedules", "pause", "nightly", *platform.options)
    again = schedule("--cron", "0 4 * * *", "--name", "nightly")
    assert (again["outcome"], again["schedule"]["state"]) == ("unchanged", "PAUSED")


def test_times_get_there_in_utc(platform, schedule):
    schedule("--cron", "0 4 * * *", "--start", "2030-01-01T06:00:00+02:00", "--end", "2031-01-01T00:00:00Z")
    if platform.name == "vertex":
        [found] = platform.stand_in.schedules.kept.all()
        times = found["startTime"], found["endTime"]
    elif platform.name == "azureml":
        [each] = platform.stand_in.schedules._kept.values()
        trigger = each.given["trigger"]
        assert trigger["timeZone"] == "UTC"
        times = f"{trigger['startTime']}Z", f"{trigger['endTime']}Z"
    else:
        [kept] = platform.stand_in.recurring_runs._kept.values()
        times = (
            kept["trigger"]["cron_schedule"]["start_time"],
            kept["trigger"]["cron_schedule"]["end_time"],
        )
    assert times == ("2030-01-01T04:00:00Z", "2031-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("target", "options", "problem"),
    [
        ("kubeflow", ["--max-runs", "3"], "does not take --max-runs: its recurring runs go on until --end"),
        ("kubeflow", ["--cron", "TZ=Europe/Berlin 0 4 * * *"], "TZ=Europe/Berlin: schedules go by the cluster's zone"),
        ("kubeflow", ["--max-concurrent", "11"], "--max-concurrent 11: it takes 10 at most"),
        ("vertex", ["--catch-up"], "does not take --catch-up: it is asked when a schedule is resumed"),
        ("vertex", ["--cron", "* * *"], "--cron '* * *': give minute, hour, day of the month"),
        ("vertex", ["--cron", "0 0 4 * * *"], "give minute, hour, day of the month"),
        ("vertex", ["--start", "2030-01-01"], "--start 2030-01-01: give a time and its zone"),
        ("vertex", ["--end", "soon"], "--end soon: give a time and its zone"),
        ("azureml", ["--max-concurrent", "2"], "does not take --max-concurrent: its schedules begin a job whether"),
        ("azureml", ["--catch-up"], "does not take --catch-up: it makes up for no missed jobs"),
        ("azureml", ["--name", "every night"], "the schedule's name 'every night' is none there: give a --name of"),
        ("azureml", ["--cron", "TZ=Mars/Base 0 4 * * *"], "none is known here for it; there are UTC"),
        ("azureml", ["--every", "2 weeks"], "say when: give --cron, or --every on Azure ML"),
    ],
)  # fmt: skip
def test_what_a_platform_does_not_have_is_refused_by_name(call, spec, target, options, problem):
    where = {
        "kubeflow": ["--host", "http://x"],
        "vertex": ["--pipeline-root", "gs://b/r"],
        "azureml": ["--subscription", "s", "--resource-group", "g", "--workspace", "w"],
    }[target]
    result = call("schedule", spec, "--target", target, *where, "--cron", "0 4 * * *", *options)
    assert result.exit_code == 2
    assert problem in " ".join(result.output.split())


def test_vertex_takes_a_time_zone_and_an_end(call, spec):
    pytest.importorskip("google.cloud.aiplatform")
    with VertexStandIn(Script()) as stand_in, stand_in.connected():
        where = ("--target", "vertex", "--pipeline-root", "gs://b/r")
        call("schedule", spec, *where, "--cron", "TZ=Europe/Berlin 0 4 * * *", "--max-runs", "3")
        [found] = stand_in.schedules.kept.all()
    assert (found["cron"], found["maxRunCount"]) == ("TZ=Europe/Berlin 0 4 * * *", "3")


@pytest.mark.xdist_group("azureml")
def test_azure_takes_a_time_zone_in_its_words_and_recurrences(call, spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with azureml() as (stand_in, where):
        zoned = ("--cron", "TZ=Europe/Berlin 0 4 * * *", "--start", "2030-07-01T06:00:00Z")
        assert call("schedule", spec, *where, *zoned, "--name", "daily").exit_code == 0
        often = ("--every", "2 WEEKS", "--start", "2030-01-07T06:00:00Z", "--name", "fortnightly")
        assert call("schedule", spec, *where, *often).exit_code == 0
        again = call("schedule", spec, *where, *often)
        assert "the same: nothing was changed" in again.stdout
        triggers = {name: kept.given["trigger"] for name, kept in stand_in.schedules._kept.items()}
        rows = json.loads(call("schedules", "list", *where, "--json").stdout)
    assert triggers["daily"]["timeZone"] == "W. Europe Standard Time"
    assert (triggers["daily"]["expression"], triggers["daily"]["startTime"]) == ("0 4 * * *", "2030-07-01T08:00:00")
    assert (triggers["fortnightly"]["frequency"].lower(), triggers["fortnightly"]["interval"]) == ("week", 2)
    assert {row["name"]: row["cron"] for row in rows} == {"daily": "0 4 * * *", "fortnightly": "every 2 weeks"}


@pytest.mark.parametrize("text", ["often", "0 days", "2", "two weeks", "1 year"])
def test_how_often_is_a_number_and_a_unit(text):
    with pytest.raises(PenstockError, match="give a number and minutes, hours, days, weeks or months"):
        scheduling.checked_every(text)


def test_a_name_that_several_have_is_refused():
    class Two:
        def schedules(self):
            made = scheduling.RemoteSchedule
            return [made("1", "nightly", "", "ACTIVE", ""), made("2", "nightly", "", "ACTIVE", "")]

    with pytest.raises(PenstockError, match="there are 2 schedules nightly; give the id of one: 1, 2"):
        scheduling.one(Two(), "nightly")
