"""Points the kubernetes client at a stand-in, and back."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from unittest import mock

from penstock.testing.server import StandIn


@contextlib.contextmanager
def connected(stand_in: StandIn, namespace: str) -> Iterator[None]:
    """Point the kubernetes client's kubeconfig at a stand-in until the end of the block."""
    path = stand_in.folder / "kubeconfig"
    content = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": namespace}}],
        "clusters": [{"name": "here", "cluster": {"server": stand_in.url}}],
        "users": [{"name": "me", "user": {}}],
    }  # fmt: skip
    path.write_text(json.dumps(content), encoding="utf-8")
    # The client reads KUBECONFIG when it is imported.
    with (
        mock.patch.dict("os.environ", {"KUBECONFIG": str(path), "KUBERNETES_SERVICE_HOST": ""}),
        mock.patch("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path)),
    ):
        yield
