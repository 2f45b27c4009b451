"""A Kubernetes cluster through its own client: which one, which namespace, and what its exceptions stand for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from penstock.components._shared.clouds.calls import Failure
from penstock.components._shared.errors import UserError

OPTIONS = {
    "namespace": "Namespace. Without it: that of this step, or of the kubeconfig.",
    "context": "Context of the kubeconfig, outside of a cluster.",
}
NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def connect(options: Mapping[str, Any], refuse: Callable[[str, str], UserError]) -> tuple[Any, str]:
    """Return a client of the cluster that this step runs in, else of the kubeconfig's, and the namespace.

    Args:
        refuse: Makes the error of a problem and its remedy.

    Raises:
        UserError: No cluster is known.
    """
    namespace = str(options.get("namespace") or "")
    try:
        if os.environ.get("KUBERNETES_SERVICE_HOST"):
            config.load_incluster_config()
            namespace = namespace or NAMESPACE.read_text(encoding="utf-8").strip()
        else:
            context = str(options.get("context") or "") or None
            config.load_kube_config(context=context)
            contexts, active = config.list_kube_config_contexts()
            chosen = next((each for each in contexts if each["name"] == context), active)
            namespace = namespace or chosen["context"].get("namespace", "default")
    except config.ConfigException as error:
        raise refuse(f"no cluster is known ({error})", "Run in one, or set KUBECONFIG") from None
    settings = client.Configuration.get_default_copy()
    settings.retries = False  # whoever calls asks again, and knows when not to
    return client.ApiClient(settings), namespace


def failure(error: Exception) -> Failure | None:
    """Return what an exception stands for; None: it is no fault of a call."""
    if isinstance(error, ApiException):
        after = str((error.headers or {}).get("Retry-After", ""))
        reason = " ".join(f"{error.status} {error.reason} {error.body or ''}".split())[:300]
        return Failure(reason, error.status or None, float(after) if after.isdigit() else 0.0)
    if isinstance(error, urllib3.exceptions.HTTPError | ConnectionError | TimeoutError):
        return Failure("the cluster does not answer")
    return None
