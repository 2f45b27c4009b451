"""Tables of platforms: a name is a module of a package, and the extra that brings what it imports."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType

from penstock.components._shared.errors import UserError


def module(package: str, name: str, extras: Mapping[str, str], component: str, argument: str) -> ModuleType:
    """Return the module of a platform; only that platform's client is imported.

    Args:
        package: Package of the modules.
        extras: The table: extra by name.
        component: Component that asks, for errors.
        argument: Its argument that names the platform, for errors.

    Raises:
        UserError: There is no such platform, or its client is not installed.
    """
    if name not in extras:
        raise UserError(component, argument, f"{name!r} is unknown", f"Choose one of {', '.join(extras)}")
    try:
        return importlib.import_module(f"{package}.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("penstock"):
            raise
        raise UserError(
            component,
            argument,
            f"{name} needs {error.name}, which is not installed",
            f"pip install 'penstock[{extras[name]}]'",
        ) from None
