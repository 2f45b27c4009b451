"""Rollouts under load: real servers, a real proxy, real faults."""

import json
import os
import re
import shutil
import signal
import time

import pyarrow as pa
import pytest

from penstock.components._shared.errors import UserError
from penstock.components.deployment import roll_out as module
from penstock.components.deployment.deploy import deploy, set_traffic
from penstock.components.deployment.endpoint import Changed
from penstock.components.deployment.owner import now
from penstock.components.deployment.roll_out import roll_out
from tests.components.deployment.conftest import row
from tests.components.deployment.endpoints import (
    Load,
    Watch,
    at,
    ended,
    endpoints,
    forked,
    killed_at,
    overflowing,
)

NAME = "twice"
QUICK = {"seconds": 8, "requests": 40}
GATE = ["error_rate <= current + 0.01", "latency_p99 <= 2 * current + 0.5"]


@pytest.fixture(scope="module")
def versions(models, tmp_path_factory):
    """An endpoint with three versions: one with the traffic, a good one, and one that fails on some rows."""
    folder = tmp_path_factory.mktemp("rollouts")
    bad = overflowing(models("lightgbm-regression"), folder / "bad")
    with endpoints(folder / "endpoints") as state:
        options = {"state": str(state), "settings": {"PENSTOCK_LOG_SECONDS": "0.5"}}
        made = {
            name: deploy(model, endpoint=NAME, options=options)
            for name, model in (
                ("old", models("lightgbm-regression")),
                ("good", models("sklearn-regression")),
                ("bad", bad),
            )
        }
        yield {"state": state, "url": made["old"].url, **{name: each.version for name, each in made.items()}}


@pytest.fixture
def endpoint(versions, monkeypatch):
    """That endpoint as it was at first."""
    monkeypatch.setattr(module, "LOOK", 0.05)
    set_traffic(endpoint=NAME, traffic={versions["old"]: 100}, options={"state": str(versions["state"])})
    backend = at(versions["state"])
    backend.write_note(NAME, None, backend.note(NAME).generation)
    return backend


@pytest.fixture
def go(versions, endpoint, tmp_path):
    """Return a function that rolls out a version by its name, and gives what came out with the history."""

    def run(name: str = "good", **given):
        arguments = {"hold": QUICK, "gate": GATE, "on_rollback": "report", **given}
        result = roll_out(
            tmp_path / "history.json",
            tmp_path / "report.html",
            endpoint=NAME,
            version=versions[name],
            options={"state": str(versions["state"])},
            **arguments,
        )
        return result, json.loads((tmp_path / "history.json").read_text())

    return run


def test_a_good_version_gets_all_traffic_step_by_step_and_no_request_fails(versions, endpoint, go, tmp_path):
    old, good = versions["old"], versions["good"]
    with Load(versions["url"]) as load, Watch(endpoint, NAME) as watch:
        result, history = go()
    assert (result.promoted, result.outcome, result.previous) == (True, "promoted", old), result.reason
    assert watch.seen == [
        {old: 100},
        *({old: 100 - share, good: share} for share in (5, 25, 50)),
        {good: 100},
    ]
    assert watch.looks > 50
    assert load.failed == {}
    assert (history["outcome"], history["before"], history["after"]) == ("promoted", {old: 100}, {good: 100})
    assert [step["share"] for step in history["steps"]] == [5, 25, 50, 100]
    for step in history["steps"]:
        assert step["passed"]
        assert sum(step["traffic"].values()) == 100
        assert step["new"]["requests"] >= QUICK["requests"]
        assert [finding["condition"] for finding in step["findings"]] == GATE
    assert endpoint.note(NAME).document["state"] == "promoted"
    page = (tmp_path / "report.html").read_text()
    assert f"{good} has all traffic" in page
    assert page.count("<svg") >= 4
    assert go()[0].outcome == "unchanged"


def test_a_version_that_fails_on_some_rows_is_rolled_back_and_only_its_share_of_requests_failed(
    versions, endpoint, go, tmp_path
):
    old, bad = versions["old"], versions["bad"]
    with Load(versions["url"]) as load, Watch(endpoint, NAME) as watch:
        with pytest.raises(UserError) as failed:
            go("bad", on_rollback="fail", steps=[10, 50, 100])
        load.answers.clear()
        time.sleep(0.5)
        assert {who for _, who in load.answers} == {old}
    assert f"roll_out: version: {bad} was rolled back, {old} has 100 % again: at 10 %: " in str(failed.value)
    assert "error_rate" in str(failed.value)
    assert watch.seen == [{old: 100}, {old: 90, bad: 10}, {old: 100}]
    history = json.loads((tmp_path / "history.json").read_text())
    assert (history["outcome"], history["after"]) == ("rolled_back", {old: 100})
    assert [step["passed"] for step in history["steps"]] == [False]
    assert f"{bad} was rolled back" in (tmp_path / "report.html").read_text()


def test_all_that_fails_is_what_the_bad_version_answered(versions, endpoint, go):
    with Load(versions["url"]) as load:
        result, history = go("bad", steps=[10, 100])
    assert result.outcome == "rolled_back"
    assert load.failed
    assert set(load.failed) == {(500, versions["bad"])}
    # Its share was 10 %, for as long as the first step was.
    assert load.by(versions["bad"]) < 0.25 * sum(load.answers.values())
    assert "cannot hold any more after" in history["reason"]


def test_blue_green_looks_at_the_current_version_first_and_then_moves_all_at_once(versions, endpoint, go):
    old, good = versions["old"], versions["good"]
    with Load(versions["url"]) as load, Watch(endpoint, NAME) as watch:
        result, history = go(strategy="blue_green")
        assert result.promoted
        assert [step["step"] for step in history["steps"]] == ["baseline", "100 %"]
        assert "(current + 0.01)" in history["reason"]
        set_traffic(endpoint=NAME, traffic={old: 100}, options={"state": str(versions["state"])})
        result, history = go("bad", strategy="blue_green")
    assert result.outcome == "rolled_back"
    assert watch.seen == [{old: 100}, {good: 100}, {old: 100}, {versions["bad"]: 100}, {old: 100}]
    assert {who for _, who in load.failed} == {versions["bad"]}


def test_a_shadow_is_compared_request_by_request_while_nobody_sees_its_answers(versions, endpoint, go):
    gate = ["agreement >= 0.9", "error_rate <= 0.01"]
    with Load(versions["url"]) as load:
        result, history = go("bad", strategy="shadow", gate=gate)
        assert result.outcome == "rolled_back"
        assert "at shadow: error_rate" in result.reason
        assert load.by(versions["bad"]) == 0
        result, history = go("good", strategy="shadow", gate=["agreement >= 0.01", *GATE])
    assert result.promoted
    assert load.failed == {}
    shadowed, moved = history["steps"]
    assert (shadowed["shadow"], shadowed["traffic"]) == (versions["good"], {versions["old"]: 100})
    assert shadowed["new"]["requests"] >= QUICK["requests"]
    assert 0.5 < shadowed["new"]["agreement"] <= 1
    assert moved["findings"][0] == {
        "condition": "agreement >= 0.01",
        "holds": None,
        "reason": "agreement was not judged: no request goes to both versions",
    }
    assert endpoint.get(NAME).shadow == ""


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            {"gate": ["f1 >= 0.5"]},
            "roll_out: gate: 'f1' in 'f1 >= 0.5' is not a metric here. Known are error_rate, latency",
        ),
        ({"gate": ["agreement >= 0.5"]}, "'agreement' in 'agreement >= 0.5' is not a metric here"),
        ({"strategy": "sudden"}, "roll_out: strategy: 'sudden' is unknown. Choose one of canary, blue_green, shadow"),
        ({"steps": [50, 20, 100]}, "roll_out: steps: [50, 20, 100] do not lead to 100"),
        ({"steps": [5, 50]}, "roll_out: steps: [5, 50] do not lead to 100"),
        ({"hold": {"minutes": 3}}, "roll_out: hold: it has minutes=3. Give positive numbers for some of seconds"),
        ({"hold": {"seconds": 0}}, "roll_out: hold: it has seconds=0"),
        ({"unfinished": "ignore"}, "roll_out: unfinished: 'ignore' is unknown. Choose one of resume, roll_back"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_moves(versions, endpoint, go, tmp_path, given, problem):
    before = endpoint.get(NAME), endpoint.note(NAME)
    with pytest.raises(UserError) as refused:
        go(**given)
    assert problem in str(refused.value)
    assert (endpoint.get(NAME), endpoint.note(NAME)) == before
    assert not (tmp_path / "history.json").exists()


def test_an_endpoint_or_a_version_that_is_not_there_is_named(versions, endpoint, tmp_path):
    given = {"options": {"state": str(versions["state"])}}
    for name, version, problem in (
        ("other", "v1", "roll_out: endpoint: there is no endpoint other"),
        (NAME, "v1", f"roll_out: version: {NAME} has no version 'v1'. It has {versions['old']}"),
    ):
        with pytest.raises(UserError, match=problem):
            roll_out(tmp_path / "h", tmp_path / "r", endpoint=name, version=version, **given)


def test_a_version_that_nobody_asks_is_rolled_back_unless_that_is_allowed(versions, endpoint, go):
    result, _ = go(hold={"seconds": 0.3})
    assert (result.outcome, result.reason) == ("rolled_back", "at 5 %: 0 requests in 0.3 s are fewer than 1")
    result, history = go(hold={"seconds": 0.2, "least": 0})
    assert result.outcome == "promoted"
    assert "error_rate was not judged: there were no requests" in history["reason"]


def test_a_version_whose_server_dies_is_rolled_back(versions, endpoint, go, tmp_path, models):
    copy = tmp_path / "model"
    shutil.copytree(models("sklearn-regression"), copy)
    from penstock.components._shared.model import KIND
    from penstock.components._shared.sealed import MANIFEST, seal, unseal

    facts = unseal(copy, KIND, "test", "model")
    (copy / MANIFEST).unlink()
    seal(copy, KIND, {**{name: value for name, value in facts.items() if name not in ("kind", "files")}, "seed": 99})
    frail = deploy(copy, endpoint=NAME, options={"state": str(versions["state"])})
    server = endpoint._server(NAME, frail.version)
    child = forked(lambda: (time.sleep(1.0), os.kill(server.pid(), signal.SIGKILL)))
    with Load(versions["url"]) as load:
        result = roll_out(
            tmp_path / "h",
            tmp_path / "r",
            endpoint=NAME,
            version=frail.version,
            hold={"seconds": 20, "requests": 10_000},
            steps=[20, 100],
            on_rollback="report",
            remove_idle=True,
            options={"state": str(versions["state"])},
        )
    assert ended(child) == 0
    assert result.outcome == "rolled_back"
    assert "it does not answer" in result.reason
    # Requests that were at work in it when it died end without an answer, of each client one at most.
    assert {status for status, _ in load.failed} <= {0, 502, 503}
    assert sum(count for (status, _), count in load.failed.items() if status != 503) <= 2
    assert frail.version not in endpoint.get(NAME).versions


def test_someone_else_who_sets_traffic_is_noticed_and_has_the_last_word(versions, endpoint, go):
    old, good = versions["old"], versions["good"]
    theirs = {old: 60, good: 40}

    def interfere():
        time.sleep(0.5)
        set_traffic(endpoint=NAME, traffic=theirs, options={"state": str(versions["state"])})

    child = forked(interfere)
    with Load(versions["url"]), pytest.raises(UserError) as failed:
        go(hold={"seconds": 20, "requests": 100_000})
    assert ended(child) == 0
    assert (
        "roll_out: endpoint: someone has changed the traffic of twice during the rollout; traffic is left as it is"
        in (str(failed.value))
    )
    assert endpoint.get(NAME).traffic == theirs
    assert endpoint.note(NAME).document["state"] == "abandoned"


def rolling(versions, tmp_path, backend=None, **given):
    """Return the work of a rollout for a process of its own."""

    def work():
        if backend is not None:
            module.connect = lambda *_: backend
        roll_out(
            tmp_path / f"history-{os.getpid()}.json",
            tmp_path / f"report-{os.getpid()}.html",
            endpoint=NAME,
            version=versions["good"],
            options={"state": str(versions["state"])},
            **{"hold": QUICK, "gate": GATE, **given},
        )

    return work


def test_a_version_that_has_traffic_goes_on_from_there(versions, endpoint, go):
    old, good = versions["old"], versions["good"]
    for strategy, steps in (("canary", [50, 100]), ("blue_green", [0, 100]), ("shadow", [100])):
        set_traffic(endpoint=NAME, traffic={old: 70, good: 30}, options={"state": str(versions["state"])})
        with Load(versions["url"]) as load, Watch(endpoint, NAME) as watch:
            result, history = go(strategy=strategy)
        assert (result.promoted, load.failed) == (True, {})
        assert [step["share"] for step in history["steps"]] == steps
        assert all(traffic[good] >= 30 for traffic in watch.seen)
        assert history["notes"] == [f"{good} has 30 % of the traffic already, and goes on from there"]
        assert history["before"] == {old: 70, good: 30}


def test_servers_that_have_ended_are_started_anew_before_they_get_traffic(versions, endpoint, go):
    options = {"state": str(versions["state"])}
    for name in ("old", "good"):
        os.kill(endpoint._server(NAME, versions[name]).pid(), signal.SIGKILL)
        while endpoint._server(NAME, versions[name]).runs():
            time.sleep(0.01)
    set_traffic(endpoint=NAME, traffic={versions["old"]: 100}, options=options)
    with Load(versions["url"]) as load:
        result, history = go(steps=[50, 100])
    assert (result.promoted, load.failed, history["notes"]) == (True, {}, []), result.reason


def test_a_version_before_that_ends_on_the_way_is_told(versions, endpoint, go):
    server = endpoint._server(NAME, versions["old"])
    child = forked(lambda: (time.sleep(0.5), os.kill(server.pid(), signal.SIGKILL)))
    with Load(versions["url"]):
        result, history = go(steps=[50, 100], hold={"seconds": 3, "requests": 100_000})
    assert ended(child) == 0
    assert result.promoted
    assert f"{versions['old']}, the version before, does not answer: it does not answer" in history["notes"][0]


def test_of_rollouts_that_race_one_goes_on_and_the_others_are_refused(versions, endpoint, tmp_path, capfd):
    with Load(versions["url"]) as load, Watch(endpoint, NAME) as watch:
        children = [forked(rolling(versions, tmp_path)) for _ in range(6)]
        codes = sorted(ended(child) for child in children)
    assert codes == [0, 1, 1, 1, 1, 1]
    assert len(list(tmp_path.glob("history-*.json"))) == 1
    said = capfd.readouterr().err
    assert said.count("another rollout of twice goes on, to") + said.count("others claim twice") == 5
    assert load.failed == {}
    assert all(sum(traffic.values()) == 100 for traffic in watch.seen)


def test_sigterm_sets_traffic_back_within_seconds(versions, endpoint, tmp_path):
    old = versions["old"]
    with Load(versions["url"]) as load:
        child = forked(rolling(versions, tmp_path, hold={"seconds": 60, "requests": 1e6}))
        while endpoint.get(NAME).traffic == {old: 100}:
            time.sleep(0.02)
        began = time.monotonic()
        os.kill(child, signal.SIGTERM)
        assert ended(child) == 128 + signal.SIGTERM
    assert time.monotonic() - began < 10
    assert endpoint.get(NAME).traffic == {old: 100}
    assert load.failed == {}
    [history] = tmp_path.glob("history-*.json")
    told = json.loads(history.read_text())
    assert (told["outcome"], told["reason"]) == ("rolled_back", "stopped by SIGTERM")


# A rollout writes a note when it claims the endpoint, before each of four steps, and at its end; it sets traffic four
# times. All those moments are many processes: by default two.
BOUNDARIES = [
    ("set_traffic", 2),
    *(
        pytest.param(call, number, marks=pytest.mark.slow)
        for call, numbers in (("write_note", (1, 2, 3, 5, 6)), ("set_traffic", (1, 3, 4)))
        for number in numbers
    ),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("call", "number"), BOUNDARIES, ids=lambda value: str(value))
def test_a_rollout_that_was_killed_is_resumed_or_rolled_back(versions, endpoint, go, tmp_path, call, number, after):
    old, good = versions["old"], versions["good"]
    for unfinished in ("resume", "roll_back"):
        set_traffic(endpoint=NAME, traffic={old: 100}, options={"state": str(versions["state"])})
        dying = killed_at(at(versions["state"]), (call,), number, after)
        with Load(versions["url"]) as load, Watch(endpoint, NAME) as watch:
            hold = {"seconds": 8, "requests": 3}
            assert ended(forked(rolling(versions, tmp_path, dying, hold=hold))) == -signal.SIGKILL
            note = endpoint.note(NAME).document
            left = bool(note) and note["state"] == "running"
            result, history = go(unfinished=unfinished, hold=hold)
        assert load.failed == {}
        assert all(sum(traffic.values()) == 100 for traffic in watch.seen)
        if left and unfinished == "roll_back":
            assert (result.outcome, result.reason) == ("rolled_back", "it was left half-way")
            assert endpoint.get(NAME).traffic == {old: 100}
        else:
            assert result.outcome in ("promoted", "unchanged")
            assert endpoint.get(NAME).traffic == {good: 100}
        assert endpoint.note(NAME).document["state"] == result.outcome
        if left:
            assert ("was taken up to roll it back" if unfinished == "roll_back" else "was resumed") in history["notes"][
                0
            ]


def test_what_another_version_left_half_way_is_rolled_back_first(versions, endpoint, go, tmp_path):
    dying = killed_at(at(versions["state"]), ("set_traffic",), 2, after=True)
    with Load(versions["url"]) as load:
        ended(forked(rolling(versions, tmp_path, dying, hold={"seconds": 8, "requests": 3})))
        assert endpoint.get(NAME).traffic[versions["good"]] == 25
        result, history = go("bad")
    assert result.outcome == "rolled_back"
    assert "was rolled back first" in history["notes"][0]
    assert history["before"] == {versions["old"]: 100}
    assert endpoint.get(NAME).traffic == {versions["old"]: 100}
    assert {who for _, who in load.failed} <= {versions["bad"]}


def test_traffic_that_was_set_after_a_rollout_was_killed_is_where_the_next_begins(versions, endpoint, go, tmp_path):
    old, good = versions["old"], versions["good"]
    dying = killed_at(at(versions["state"]), ("set_traffic",), 2, after=True)
    with Load(versions["url"]):
        ended(forked(rolling(versions, tmp_path, dying, hold={"seconds": 8, "requests": 3})))
        set_traffic(endpoint=NAME, traffic={old: 90, good: 10}, options={"state": str(versions["state"])})
        result, history = go(unfinished="roll_back", hold={"seconds": 8, "requests": 3})
    assert "was given up: someone has changed the traffic since" in history["notes"][0]
    assert history["before"] == {old: 90, good: 10}
    assert result.promoted


def test_traffic_that_cannot_be_set_back_is_left_as_it_is_and_the_next_rollout_begins_anew(
    versions, endpoint, go, tmp_path, models
):
    options = {"state": str(versions["state"])}
    dying = killed_at(at(versions["state"]), ("set_traffic",), 2, after=True)
    with Load(versions["url"]):
        ended(forked(rolling(versions, tmp_path, dying, hold={"seconds": 8, "requests": 3})))
        left = endpoint.get(NAME).traffic
        os.kill(endpoint._server(NAME, versions["old"]).pid(), signal.SIGKILL)
        while endpoint._server(NAME, versions["old"]).runs():
            time.sleep(0.01)
        shutil.rmtree(versions["state"] / NAME / "versions" / versions["old"] / "model")
        try:
            with pytest.raises(UserError) as failed:
                go(unfinished="roll_back")
        finally:
            deploy(models("lightgbm-regression"), endpoint=NAME, options=options)
        problem = f"{versions['old']} of {NAME} has ended, and its copy of the model is gone"
        assert f"traffic cannot be set back: {problem}" in str(failed.value)
        assert endpoint.get(NAME).traffic == left
        result, history = go(steps=[60, 100])
    assert (result.promoted, history["before"], len(history["notes"])) == (True, left, 1)
    assert "has 25 % of the traffic already" in history["notes"][0]


def test_a_rollout_of_another_machine_is_dead_when_it_has_long_given_no_sign(versions, endpoint, go, monkeypatch):
    owner = {"id": "x", "who": "process 7 on moon", "host": "moon", "pid": 7, "process": "y"}
    place = [{versions["old"]: 100}, ""]
    left = {
        "owner": owner, "state": "running", "version": versions["good"], "plan": [], "step": 0, "history": [],
        "before": {versions["old"]: 100}, "shadow": "", "settled": place, "intended": place,
    }  # fmt: skip
    note = endpoint.write_note(NAME, {**left, "heartbeat": now()}, endpoint.note(NAME).generation)
    with pytest.raises(UserError, match=r"another rollout of twice goes on, .* by process 7 on moon, alive at"):
        go()
    assert endpoint.note(NAME) == note
    endpoint.write_note(NAME, {**left, "heartbeat": "2020-01-01T00:00:00+00:00"}, note.generation)
    with Load(versions["url"]):
        assert go(steps=[100])[0].promoted


def test_of_those_who_write_a_note_or_set_traffic_at_once_one_wins(versions, endpoint):
    found, note = endpoint.get(NAME), endpoint.note(NAME)
    endpoint.write_note(NAME, {"state": "done"}, note.generation)
    with pytest.raises(Changed):
        endpoint.write_note(NAME, {"state": "mine"}, note.generation)
    endpoint.set_traffic(NAME, found.traffic, "", found.generation)
    with pytest.raises(Changed):
        endpoint.set_traffic(NAME, found.traffic, "", found.generation)


@pytest.mark.slow
def test_labels_measure_the_quality_of_both_versions(versions, endpoint, go, make_dataset):
    """The rows of the load have ids that begin with their number; here each has one that is known before."""
    import http.client
    import threading
    from urllib.parse import urlsplit

    ids = [f"labelled-{number}" for number in range(4000)]
    labels = make_dataset(
        pa.table(
            {
                "request_id": ids,
                "row": pa.array([0] * len(ids), pa.int64()),
                "double": [2.0 * row(number)["size"] for number in range(len(ids))],
            }
        )
    )
    end = threading.Event()

    def ask():
        connection = http.client.HTTPConnection(urlsplit(versions["url"]).netloc)
        for number, request_id in enumerate(ids):
            if end.is_set():
                return
            headers = {"Content-Type": "application/json", "X-Request-Id": request_id}
            connection.request("POST", "/predict", json.dumps({"instances": [row(number)]}), headers)
            connection.getresponse().read()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        given = {"steps": [50, 100], "labels": labels, "target": "double"}
        result, history = go(gate=["rmse <= 0.001"], **given)
    finally:
        end.set()
        thread.join()
    assert result.outcome == "rolled_back"
    assert result.reason.startswith("at 50 %: rmse ")
    assert history["steps"][0]["new"]["rmse"] > 0.001
    assert history["steps"][0]["current"]["rmse"] > 0


def test_the_report_of_a_rollout_needs_nothing_from_elsewhere(versions, endpoint, go, tmp_path):
    with Load(versions["url"]):
        go(steps=[50, 100])
    page = (tmp_path / "report.html").read_text()
    assert re.findall(r"""(?:src|href)=["']https?:|url\(https?:|<script""", page) == []
