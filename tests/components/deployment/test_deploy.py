"""deploy, set_traffic and undeploy on this machine: real servers behind a real proxy."""

import collections
import json
import os
import shutil
import signal
import time
import urllib.request

import pytest

from penstock.components._shared.errors import UserError
from penstock.components._shared.model import KIND
from penstock.components._shared.sealed import MANIFEST, seal, unseal
from penstock.components.deployment import deploy as module
from penstock.components.deployment.deploy import deploy, set_traffic, undeploy
from penstock.components.deployment.local import __main__ as local
from penstock.components.deployment.local import proxy
from penstock.components.deployment.serving.served import Served
from tests.components.deployment.conftest import row
from tests.components.deployment.endpoints import Load, at, ended, endpoints, forked, killed_at

NAME = "taxi-tips"


@pytest.fixture
def state(tmp_path):
    with endpoints(tmp_path / "endpoints") as folder:
        yield folder


@pytest.fixture
def options(state):
    return {"state": str(state)}


@pytest.fixture(scope="module")
def standing(models, tmp_path_factory):
    """An endpoint with two versions, the first of which has the traffic: folder, options and both."""
    with endpoints(tmp_path_factory.mktemp("standing") / "endpoints") as folder:
        options = {"state": str(folder)}
        first = deploy(models("lightgbm-binary"), endpoint=NAME, options=options)
        yield folder, options, first, deploy(models("lightgbm-regression"), endpoint=NAME, options=options)


def ask(url: str, path: str = "/predict") -> tuple[int, dict, str]:
    body = json.dumps({"instances": [row(1), row(2)]}).encode()
    request = urllib.request.Request(url + path, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.status, json.load(answer), answer.headers["X-Model-Version"]


def servers(state) -> list[int]:
    """Return the numbers of the processes that serve a version below a folder, whoever knows of them."""
    found = []
    for each in os.listdir("/proc"):
        if each.isdecimal():
            try:
                with open(f"/proc/{each}/cmdline", "rb") as file:
                    parts = file.read().split(b"\0")
            except OSError:
                continue
            if b"penstock.components.deployment.serving" in parts and str(state).encode() in parts[-2]:
                found.append(int(each))
    return found


def test_the_first_version_gets_all_traffic_a_later_one_none_and_the_same_model_is_the_same_version(standing, models):
    state, options, first, second = standing
    assert (first.traffic, first.current) == (100, first.version)
    assert ask(first.url)[0::2] == (200, first.version)
    assert (second.url, second.traffic, second.current) == (first.url, 0, first.version)
    before = sorted(servers(state))
    assert len(before) == 2
    assert deploy(models("lightgbm-regression"), endpoint=NAME, options=options) == second
    assert sorted(servers(state)) == before


def test_traffic_is_shared_as_it_is_set_and_no_request_fails_meanwhile(standing):
    _, options, first, second = standing
    # Shares are drawn; of 300 requests 30 % are 20 to 40 % but in one of ten thousand runs.
    with Load(first.url, pause=0.001) as load:
        shares = {first.version: 70.0, second.version: 30}
        assert set_traffic(endpoint=NAME, traffic=shares, options=options) == {first.version: 100}
        load.answers.clear()
        while sum(load.answers.values()) < 300:
            time.sleep(0.01)
        share = load.by(second.version) / sum(load.answers.values())
        with pytest.raises(UserError, match=f"undeploy: version: {second.version} of {NAME} gets 30 % of the traffic"):
            undeploy(endpoint=NAME, version=second.version, options=options)
        set_traffic(endpoint=NAME, traffic={first.version: 100}, options=options)
    assert 0.2 < share < 0.4
    assert load.failed == {}


def test_a_version_that_predicts_something_else_gets_no_traffic_and_is_removed(standing, models, monkeypatch):
    state, options, first, second = standing
    # Here the model predicts otherwise than in the server.
    predict = Served.predict

    def otherwise(self, rows):
        found = predict(self, rows)
        return {**found, "probability_warm": found["probability_warm"] + 0.001}

    monkeypatch.setattr(Served, "predict", otherwise)
    with Load(first.url) as load, pytest.raises(UserError) as failed:
        deploy(models("lightgbm-multiclass"), endpoint=NAME, options=options)
    problem = (
        "failed its smoke test before it got any traffic, and is removed: row 0 of its example has probability_warm"
    )
    assert problem in str(failed.value)
    assert set(at(state).get(NAME).versions) == {first.version, second.version}
    assert len(servers(state)) == 2
    assert load.failed == {}


def test_a_model_that_is_altered_or_does_not_load_and_a_server_that_does_not_start_leave_nothing(
    state, options, models, tmp_path
):
    copy = tmp_path / "model"
    shutil.copytree(models("lightgbm-binary"), copy)
    (copy / "model.txt").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"deploy: model: .* model.txt was (altered|truncated)"):
        deploy(copy, endpoint=NAME, options=options)
    facts = unseal(models("lightgbm-binary"), KIND, "test", "model")
    (copy / MANIFEST).unlink()
    seal(copy, KIND, {name: value for name, value in facts.items() if name not in ("kind", "files")})
    with pytest.raises(UserError, match=r"deploy: model: .*cannot be read"):
        deploy(copy, endpoint=NAME, options=options)
    assert not state.exists()
    wrong = {**options, "settings": {"PENSTOCK_THREADS": "many"}}
    with pytest.raises(UserError, match=r"deploy: model: its server has ended: .*PENSTOCK_THREADS: 'many' is not"):
        deploy(models("lightgbm-binary"), endpoint=NAME, options=wrong)
    assert at(state).get(NAME) is None
    assert servers(state) == []


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"endpoint": "Tips"}, "deploy: endpoint: 'Tips' is no name of an endpoint"),
        ({"platform": "moon"}, "deploy: platform: 'moon' is unknown. Choose one of local"),
        ({"options": {"ports": 1}}, "deploy: options: 'ports' is unknown. Known are state, host, port"),
        ({"options": {"port": "x"}}, "deploy: options: port is 'x', not of the type int"),
        ({"options": {"port": True}}, "deploy: options: port is True, not of the type int"),
        ({"options": {"state": "s", "port": 70000.0}}, "deploy: options: port is 70000"),
        ({"options": {"state": "s", "settings": {"PATH": "x"}}}, "deploy: options: settings has PATH='x'"),
        ({"registered_model": "tips@x"}, "deploy: model: a model and a registered model are two ways to say it"),
        ({"model": None}, "deploy: model: a model and a registered model are two ways to say it, and neither is given"),
        ({"model": None, "registered_model": "tips"}, "deploy: registered_model: 'tips' names no version"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(given, problem, tmp_path):
    arguments = {"model": tmp_path, "endpoint": NAME, "options": {"state": str(tmp_path)}, **given}
    with pytest.raises(UserError) as refused:
        deploy(arguments.pop("model"), **arguments)
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_for_endpoints_has_to_be_known(monkeypatch, tmp_path):
    monkeypatch.delenv("PENSTOCK_ROOT", raising=False)
    with pytest.raises(UserError, match="no folder for the endpoints is given"):
        undeploy(endpoint=NAME)
    monkeypatch.setenv("PENSTOCK_ROOT", str(tmp_path))
    assert undeploy(endpoint=NAME) is False


def test_without_haproxy_one_line_says_what_to_install(monkeypatch, options, models):
    proxy.program.cache_clear()
    monkeypatch.setattr(proxy.shutil, "which", lambda *_, **__: None)
    with pytest.raises(
        UserError, match=r"local needs haproxy, which is not installed\. Install HAProxy 2\.6 or later \(apt-get"
    ):
        deploy(models("lightgbm-binary"), endpoint=NAME, options=options)


@pytest.mark.parametrize(
    ("traffic", "problem"),
    [
        ({"v1": 50}, "it is 50 per cent in all"),
        ({"v1": 99.5, "v2": 0.5}, "v1 gets 99.5. Give whole numbers"),
        ({"v1": 150, "v2": -50}, "v1 gets 150. Give whole numbers"),
        ({"v1": True}, "v1 gets True"),
        ({}, "it is 0 per cent in all"),
    ],
)
def test_traffic_is_a_hundred_per_cent(traffic, problem, options):
    with pytest.raises(UserError, match=f"set_traffic: traffic: {problem}"):
        set_traffic(endpoint=NAME, traffic=traffic, options=options)


def test_an_endpoint_or_a_version_that_is_not_there_is_named(standing):
    _, options, first, _ = standing
    with pytest.raises(UserError, match="set_traffic: endpoint: there is no endpoint other"):
        set_traffic(endpoint="other", traffic={"v1": 100}, options=options)
    with pytest.raises(UserError, match=rf"{NAME} has no version v1\. It has {first.version}"):
        set_traffic(endpoint=NAME, traffic={"v1": 100}, options=options)
    assert not undeploy(endpoint="other", options=options)
    assert not undeploy(endpoint=NAME, version="v1", options=options)


def test_a_registered_model_is_deployed_by_its_alias(standing, models, registry):
    from penstock.components.registry.register import register

    _, options, first, _ = standing
    register(models("lightgbm-binary"), {}, model_name="tips", registry=registry, alias="challenger")
    with pytest.raises(UserError, match=r"registered_model: tips has no alias champion in .* It has challenger"):
        deploy(None, endpoint=NAME, registered_model="tips@champion", registry=registry, options=options)
    for name in ("tips@challenger", "tips/1"):
        assert deploy(None, endpoint=NAME, registered_model=name, registry=registry, options=options) == first


def test_a_change_that_was_killed_half_way_is_finished_by_whoever_looks_next(standing):
    state, options, first, second = standing
    backend = at(state)

    def die_before_the_proxy_hears_of_it():
        module.connect = lambda *_: killed_at(backend, ("_routed",), 1, after=False)
        set_traffic(endpoint=NAME, traffic={second.version: 100}, options=options)

    assert ended(forked(die_before_the_proxy_hears_of_it)) == -signal.SIGKILL
    assert ask(first.url)[2] == first.version
    assert at(state).get(NAME).traffic == {second.version: 100}
    assert ask(first.url)[2] == second.version
    set_traffic(endpoint=NAME, traffic={first.version: 100}, options=options)


def test_a_server_or_a_proxy_that_has_died_is_started_anew_at_the_same_address(standing, models):
    state, options, first, _ = standing
    backend = at(state)
    os.kill(backend._server(NAME, first.version).pid(), signal.SIGKILL)
    os.kill(backend._proxy(NAME).pid(), signal.SIGKILL)
    while backend._server(NAME, first.version).runs() or backend._proxy(NAME).runs():
        time.sleep(0.01)
    again = deploy(models("lightgbm-binary"), endpoint=NAME, options=options)
    assert again == first
    assert ask(again.url)[2] == first.version


def test_after_a_restart_of_the_machine_one_command_starts_all_at_the_addresses_they_had(standing, capsys):
    state, options, first, second = standing
    backend = at(state)
    assert local.main([str(state)]) == 0
    assert f"{NAME} at {first.url}: nothing of it had ended" in capsys.readouterr().out
    set_traffic(endpoint=NAME, traffic={first.version: 60, second.version: 40}, options=options)
    processes = [backend._server(NAME, each.version) for each in (first, second)]
    for each in (*processes, backend._proxy(NAME)):
        os.kill(each.pid(), signal.SIGKILL)
        while each.runs():
            time.sleep(0.01)
    assert local.main([str(state), NAME]) == 0
    told = capsys.readouterr().out
    assert f"{NAME} at {first.url}: started " in told
    assert {first.version, second.version} <= set(told.split("started ")[1].strip().split(", "))
    assert {ask(first.url)[2] for _ in range(40)} == {first.version, second.version}
    assert backend.get(NAME).traffic == {first.version: 60, second.version: 40}
    assert local.main([str(state), "other"]) == 65
    assert "local: endpoint: there is no other in " in capsys.readouterr().err
    assert local.main([str(state / "nothing")]) == 65
    assert "nothing has no endpoints. Deploy one first." in capsys.readouterr().err
    set_traffic(endpoint=NAME, traffic={first.version: 100}, options=options)


def test_a_version_and_an_endpoint_are_removed_with_all_they_had(standing):
    state, options, first, second = standing
    with Load(first.url) as load:
        assert undeploy(endpoint=NAME, version=second.version, options=options)
        assert not undeploy(endpoint=NAME, version=second.version, options=options)
    assert load.failed == {}
    assert len(servers(state)) == 1
    assert undeploy(endpoint=NAME, options=options)
    assert servers(state) == []
    assert not (state / NAME).exists()
    with pytest.raises(OSError, match="refused"):
        ask(first.url)
    assert not undeploy(endpoint=NAME, options=options)


def test_a_deployment_that_was_killed_leaves_no_process_that_the_next_does_not_take_up_or_end(state, options, models):
    backend = at(state)

    def die(model: str, after: bool) -> None:
        module.connect = lambda *_: killed_at(backend, ("_wait_ready",), 1, after)
        deploy(models(model), endpoint=NAME, options=options)

    assert ended(forked(lambda: die("lightgbm-binary", False))) == -signal.SIGKILL
    [orphan] = servers(state)
    assert backend.get(NAME) is None
    deploy(models("lightgbm-binary"), endpoint=NAME, options=options)  # the same model: taken up
    assert servers(state) == [orphan]
    assert ended(forked(lambda: die("lightgbm-regression", True))) == -signal.SIGKILL
    assert len(servers(state)) == 2
    deploy(models("lightgbm-binary"), endpoint=NAME, options=options)  # another model: ended
    assert servers(state) == [orphan]


def test_a_token_is_asked_for_by_the_server_and_known_to_deploy(options, models, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("s3cret-word\n")
    given = {**options, "token": f"file:{tmp_path}/token", "settings": {"PENSTOCK_THREADS": "1"}}
    first = deploy(models("lightgbm-binary"), endpoint=NAME, options=given)
    with pytest.raises(urllib.request.HTTPError, match="401"):
        ask(first.url)
    # One that is started anew is told what it was told at first.
    backend = at(tmp_path / "endpoints")
    server = backend._server(NAME, first.version)
    os.kill(server.pid(), signal.SIGKILL)
    while server.runs():
        time.sleep(0.01)
    assert backend.revive(NAME) == [first.version]
    with pytest.raises(urllib.request.HTTPError, match="401"):
        ask(first.url)
    with open(f"/proc/{server.pid()}/environ", "rb") as file:
        assert b"PENSTOCK_THREADS=1" in file.read().split(b"\0")
    said = "".join(
        path.read_text(errors="replace")
        for path in (tmp_path / "endpoints").rglob("*")
        if path.is_file() and path.suffix != ".parquet"
    )
    assert "s3cret-word" not in said


@pytest.mark.slow
def test_of_fifty_who_deploy_at_once_each_version_has_one_process(state, options, models):
    names = ("lightgbm-binary", "lightgbm-regression")
    for name in names:
        models(name)
    children = [
        forked(lambda number=number: deploy(models(names[number % 2]), endpoint=NAME, options=options))
        for number in range(50)
    ]
    assert collections.Counter(ended(child, 120) for child in children) == {0: 50}
    assert len(servers(state)) == 2
    found = at(state).get(NAME)
    assert sorted(found.traffic.values()) == [100]
    assert len(found.versions) == 2
    assert ask(found.url)[0] == 200
