"""The work of `promote` and `fetch_reference`: what is done with a version that stands in a registry already."""

from __future__ import annotations

import os
from pathlib import Path

from penstock.components._shared.errors import UserError
from penstock.components._shared.mlflow_registry import check_model_name
from penstock.components.registry.entry import ANY, Registered
from penstock.components.registry.register import ALIASES, backend_of, check_expected


def promote(
    model_name: str,
    version: str,
    *,
    alias: str = "champion",
    expected_version: str = ANY,
    platform: str = "mlflow",
    registry: str = "",
    run_id: str = "",
) -> Registered:
    """Return the version that an alias now points to, and the one before it.

    Args:
        model_name: Name in the registry.
        version: Version to point to.
        alias: Alias to move.
        expected_version: Version that the alias must still point to; "" for none yet, "any" for whatever it points to
            at the start.
        platform: Kind of registry.
        registry: URI of the registry. Empty: the environment's, or the local run folder's.
        run_id: Run that moves it, for others to see.

    Raises:
        UserError: An argument is wrong, the registry does not answer, or the alias has moved.
    """
    backend = backend_of(platform, "promote")
    _check_alias(alias, "promote")
    check_expected(expected_version, "promote")
    check_model_name(model_name, "promote")
    if not version.isdecimal():
        raise UserError("promote", "version", f"{version!r} is not a version", "Give a number, as register returns it")
    return backend.move(model_name, version, alias, expected_version, registry, run_id)


def fetch_reference(
    model_name: str,
    statistics: str | os.PathLike[str],
    *,
    alias: str = "champion",
    platform: str = "mlflow",
    registry: str = "",
) -> Registered:
    """Return the version that an alias points to, with the statistics of its training rows written to a file.

    Args:
        model_name: Name in the registry.
        statistics: File to write: a DatasetFeatureStatisticsList.
        alias: Alias of the version.
        platform: Kind of registry.
        registry: URI of the registry. Empty: the environment's, or the local run folder's.

    Raises:
        UserError: An argument is wrong, the registry does not answer, or there is no such version or statistics.
    """
    backend = backend_of(platform, "fetch_reference")
    _check_alias(alias, "fetch_reference")
    check_model_name(model_name, "fetch_reference")
    return backend.reference(model_name, alias, registry, Path(statistics))


def _check_alias(alias: str, component: str) -> None:
    if alias not in ALIASES:
        raise UserError(component, "alias", f"{alias!r} is not a known alias", f"Known are {', '.join(ALIASES)}")
