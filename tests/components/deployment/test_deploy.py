"""deploy, set_traffic and undeploy on this machine: real servers behind a real proxy."""

import collections
import json
import os
import shutil
import signal
import urllib.request

import pytest

from penstock.components._shared.errors import UserError
from penstock.components._shared.model import KIND
from penstock.components._shared.sealed import MANIFEST, seal, unseal
from penstock.components.deployment import deploy as module
from penstock.components.deployment.deploy import deploy, set_traffic, undeploy
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


def test_the_first_version_gets_all_traffic_a_later_one_none_and_the_same_model_is_the_same_version(
    state, options, models
):
    first = deploy(models("xgboost-binary"), endpoint=NAME, options=options)
    assert (first.traffic, first.current) == (100, first.version)
    assert ask(first.url)[0::2] == (200, first.version)
    second = deploy(models("lightgbm-binary"), endpoint=NAME, options=options)
    assert (second.url, second.traffic, second.current) == (first.url, 0, first.version)
    before = sorted(servers(state))
    assert len(before) == 2
    assert deploy(models("lightgbm-binary"), endpoint=NAME, options=options) == second
    assert sorted(servers(state)) == before
    # Shares are drawn by the hundred; with 300 requests 30 % are 20 to 40 % but in one of ten thousand runs.
    with Load(first.url, pause=0.001) as load:
        assert set_traffic(endpoint=NAME, traffic={first.version: 70.0, second.version: 30}, options=options) == {
            first.version: 100
        }
        load.answers.clear()
        while sum(load.answers.values()) < 300:
            pass
    assert 0.2 < load.by(second.version) / sum(load.answers.values()) < 0.4
    assert load.failed == {}
    with pytest.raises(UserError, match=f"undeploy: version: {second.version} of {NAME} gets 30 % of the traffic"):
        undeploy(endpoint=NAME, version=second.version, options=options)
    with Load(first.url, pause=0.001) as load:
        set_traffic(endpoint=NAME, traffic={first.version: 100}, options=options)
        assert undeploy(endpoint=NAME, version=second.version, options=options)
    assert load.failed == {}
    assert not undeploy(endpoint=NAME, version=second.version, options=options)
    assert len(servers(state)) == 1
    assert undeploy(endpoint=NAME, options=options)
    assert servers(state) == []
    assert not (state / NAME).exists()
    with pytest.raises(OSError, match="refused"):
        ask(first.url)


def test_a_version_that_predicts_something_else_gets_no_traffic_and_is_removed(state, options, models, monkeypatch):
    first = deploy(models("xgboost-binary"), endpoint=NAME, options=options)
    # Here the model predicts otherwise than in the server.
    predict = Served.predict
    monkeypatch.setattr(
        Served,
        "predict",
        lambda self, rows: {**predict(self, rows), "probability_true": predict(self, rows)["probability_true"] + 0.001},
    )
    with pytest.raises(UserError) as failed:
        deploy(models("lightgbm-binary"), endpoint=NAME, options=options)
    assert (
        "failed its smoke test before it got any traffic, and is removed: row 0 of its example has probability_true"
        in (str(failed.value))
    )
    assert list(at(state).get(NAME).versions) == [first.version]
    assert len(servers(state)) == 1
    deploy(models("lightgbm-binary"), endpoint=NAME, options=options, tolerance=0.01)


def test_a_model_that_is_altered_or_does_not_load_leaves_nothing(state, options, models, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(models("xgboost-binary"), copy)
    (copy / "model.ubj").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"deploy: model: .* model.ubj was (altered|truncated)"):
        deploy(copy, endpoint=NAME, options=options)
    facts = unseal(models("xgboost-binary"), KIND, "test", "model")
    (copy / MANIFEST).unlink()
    seal(copy, KIND, {name: value for name, value in facts.items() if name not in ("kind", "files")})
    with pytest.raises(UserError, match=r"deploy: model: its server has ended: .*cannot be read"):
        deploy(copy, endpoint=NAME, options=options)
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
        UserError, match=r"local needs haproxy, which is not installed\. Install HAProxy 2\.6 or later: apt-get"
    ):
        deploy(models("xgboost-binary"), endpoint=NAME, options=options)


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


def test_an_endpoint_or_a_version_that_is_not_there_is_named(options, models):
    with pytest.raises(UserError, match=f"set_traffic: endpoint: there is no endpoint {NAME}"):
        set_traffic(endpoint=NAME, traffic={"v1": 100}, options=options)
    first = deploy(models("xgboost-binary"), endpoint=NAME, options=options)
    with pytest.raises(UserError, match=f"{NAME} has no version v1. It has {first.version}"):
        set_traffic(endpoint=NAME, traffic={"v1": 100}, options=options)


def test_a_registered_model_is_deployed_by_its_alias(options, models, registry):
    from penstock.components.registry.register import register

    register(models("xgboost-binary"), {}, model_name="tips", registry=registry, alias="challenger")
    with pytest.raises(UserError, match=r"registered_model: tips has no alias champion in .* It has challenger"):
        deploy(None, endpoint=NAME, registered_model="tips@champion", registry=registry, options=options)
    by_alias = deploy(None, endpoint=NAME, registered_model="tips@challenger", registry=registry, options=options)
    assert deploy(None, endpoint=NAME, registered_model="tips/1", registry=registry, options=options) == by_alias
    assert deploy(models("xgboost-binary"), endpoint=NAME, options=options) == by_alias


def test_a_deployment_that_was_killed_leaves_no_process_that_the_next_does_not_take_up_or_end(state, options, models):
    backend = at(state)

    def die_after_the_start():
        module.connect = lambda *_: killed_at(backend, ("_wait_ready",), 1, after=False)
        deploy(models("xgboost-binary"), endpoint=NAME, options=options)

    assert ended(forked(die_after_the_start)) == -signal.SIGKILL
    [orphan] = servers(state)
    assert backend.get(NAME) is None
    deploy(models("xgboost-binary"), endpoint=NAME, options=options)  # the same model: taken up
    assert servers(state) == [orphan]

    def die_with_another():
        module.connect = lambda *_: killed_at(backend, ("_wait_ready",), 1, after=True)
        deploy(models("lightgbm-binary"), endpoint=NAME, options=options)

    assert ended(forked(die_with_another)) == -signal.SIGKILL
    assert len(servers(state)) == 2
    deploy(models("xgboost-binary"), endpoint=NAME, options=options)  # another model: ended
    assert servers(state) == [orphan]


def test_a_server_or_a_proxy_that_has_died_is_started_anew_at_the_same_address(state, options, models):
    first = deploy(models("xgboost-binary"), endpoint=NAME, options=options)
    backend = at(state)
    os.kill(backend._server(NAME, first.version).pid(), signal.SIGKILL)
    os.kill(backend._proxy(NAME).pid(), signal.SIGKILL)
    while backend._server(NAME, first.version).runs() or backend._proxy(NAME).runs():
        pass
    again = deploy(models("xgboost-binary"), endpoint=NAME, options=options)
    assert again == first
    assert ask(again.url)[2] == first.version


def test_a_change_that_was_killed_half_way_is_finished_by_whoever_looks_next(state, options, models):
    first = deploy(models("xgboost-binary"), endpoint=NAME, options=options)
    second = deploy(models("lightgbm-binary"), endpoint=NAME, options=options)
    backend = at(state)

    def die_before_the_proxy_hears_of_it():
        module.connect = lambda *_: killed_at(backend, ("_routed",), 1, after=False)
        set_traffic(endpoint=NAME, traffic={second.version: 100}, options=options)

    assert ended(forked(die_before_the_proxy_hears_of_it)) == -signal.SIGKILL
    assert ask(first.url)[2] == first.version
    assert backend.get(NAME).traffic == {second.version: 100}
    assert ask(first.url)[2] == second.version


def test_a_token_is_asked_for_by_the_server_and_known_to_deploy(options, models, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("s3cret-word\n")
    given = {**options, "token": f"file:{tmp_path}/token", "settings": {"PENSTOCK_THREADS": "1"}}
    first = deploy(models("xgboost-binary"), endpoint=NAME, options=given)
    with pytest.raises(urllib.request.HTTPError, match="401"):
        ask(first.url)
    said = "".join(
        path.read_text(errors="replace")
        for path in (tmp_path / "endpoints").rglob("*")
        if path.is_file() and path.suffix != ".ubj"
    )
    assert "s3cret-word" not in said


@pytest.mark.slow
def test_of_fifty_who_deploy_at_once_each_version_has_one_process(state, options, models):
    names = ("xgboost-binary", "lightgbm-binary")
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
