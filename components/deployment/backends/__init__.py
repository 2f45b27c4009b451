"""The platforms that models are deployed to: a name here is a module here, whose `connect` says all that differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.components._shared import platforms
from penstock.components.deployment.endpoint import Backend

# Name of the platform: the extra that brings its client.
PLATFORMS = {"local": "serving", "kubeflow": "clouds", "vertex": "clouds", "azureml": "clouds"}


def connect(platform: str, options: Mapping[str, Any], component: str) -> Backend:
    """Return a row of the table, set up by its options; only that platform's client is imported.

    Args:
        component: Component that uses it, for errors.

    Raises:
        UserError: There is no such platform, its client is not installed, or an option is unknown or wrong.
    """
    row = platforms.module(__name__, platform, PLATFORMS, component, "platform")
    backend: Backend = row.connect(options, component)
    return backend
