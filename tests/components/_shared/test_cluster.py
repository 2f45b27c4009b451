"""Which cluster and namespace a step works in."""

import json

import pytest

from penstock.components._shared.clouds import cluster
from penstock.components._shared.errors import UserError


@pytest.fixture
def kubeconfig(tmp_path, monkeypatch):
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "dev",
        "contexts": [
            {"name": "dev", "context": {"cluster": "dev", "user": "me", "namespace": "team"}},
            {"name": "prod", "context": {"cluster": "prod", "user": "me", "namespace": "models"}},
            {"name": "bare", "context": {"cluster": "prod", "user": "me"}},
        ],
        "clusters": [{"name": name, "cluster": {"server": f"http://{name}.testing"}} for name in ("dev", "prod")],
        "users": [{"name": "me", "user": {}}],
    }
    path = tmp_path / "config"
    path.write_text(json.dumps(content))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


@pytest.mark.parametrize(
    ("options", "host", "namespace"),
    [
        ({}, "http://dev.testing", "team"),
        ({"context": "prod"}, "http://prod.testing", "models"),
        ({"context": "prod", "namespace": "mine"}, "http://prod.testing", "mine"),
        ({"context": "bare"}, "http://prod.testing", "default"),
    ],
)
def test_the_namespace_is_that_of_the_context_that_was_asked_for(kubeconfig, options, host, namespace):
    api, found = cluster.connect(options, lambda problem, remedy: UserError("deploy", "options", problem, remedy))
    assert (api.configuration.host, found) == (host, namespace)


def test_a_context_that_is_not_there_is_refused(kubeconfig):
    with pytest.raises(UserError, match="no cluster is known"):
        cluster.connect({"context": "test"}, lambda problem, remedy: UserError("deploy", "options", problem, remedy))
