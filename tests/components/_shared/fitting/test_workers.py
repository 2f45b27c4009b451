import json

import pytest

from penstock.components._shared.errors import UserError
from penstock.components._shared.fitting.workers import Workers, workers

HOSTS = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}


def named(cluster, role, index, variable="TF_CONFIG"):
    return workers({variable: json.dumps({"cluster": cluster, "task": {"type": role, "index": index}})})


def test_without_a_cluster_a_process_is_alone_and_its_own_chief():
    for environment in ({}, {"TF_CONFIG": ""}, {"TF_CONFIG": "{}"}, {"TF_CONFIG": '{"cluster": {}}'}):
        assert workers(environment) == Workers(1, 0, "")
    assert workers({}).is_chief
    assert named({"worker": ["a:1"]}, "worker", 0) == Workers(1, 0, "")


def test_the_chief_is_the_first_and_workers_follow():
    places = [named(HOSTS, role, index) for role, index in (("chief", 0), ("worker", 0), ("worker", 1))]
    assert [(each.count, each.place, each.is_chief) for each in places] == [(3, 0, True), (3, 1, False), (3, 2, False)]


def test_without_a_chief_the_first_worker_is_it():
    assert [named({"worker": ["a:1", "b:1"]}, "worker", index).is_chief for index in (0, 1)] == [True, False]


def test_pools_of_vertex_ai_are_a_chief_and_workers():
    pools = {"workerpool0": ["a:1"], "workerpool1": ["b:1", "c:1"]}
    found = named(pools, "workerpool1", 1, "CLUSTER_SPEC")
    assert (found.count, found.place) == (3, 2)
    assert json.loads(found.config) == {"cluster": HOSTS, "task": {"type": "worker", "index": 1}}


def test_tf_config_goes_before_cluster_spec():
    spec = json.dumps({"cluster": {"workerpool0": ["a:1"]}, "task": {"type": "workerpool0", "index": 0}})
    config = json.dumps({"cluster": HOSTS, "task": {"type": "worker", "index": 0}})
    assert workers({"TF_CONFIG": config, "CLUSTER_SPEC": spec}).count == 3


@pytest.mark.parametrize(
    ("variable", "text", "problem"),
    [
        ("TF_CONFIG", "{", r"TF_CONFIG: cannot be read \(JSONDecodeError"),
        ("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}}', "KeyError: 'task'"),
        (
            "TF_CONFIG",
            '{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
            "names 'ps'; a model is fitted",
        ),
        ("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}', "is worker 2"),
        ("CLUSTER_SPEC", "[]", "CLUSTER_SPEC: cannot be read"),
    ],
)
def test_what_names_no_workers_is_refused(variable, text, problem):
    with pytest.raises(UserError, match=problem):
        workers({variable: text})
