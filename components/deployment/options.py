"""Options: what one platform needs beyond what all do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.components._shared.errors import UserError


def check_options(options: Mapping[str, Any], known: Mapping[str, type], component: str) -> None:
    """Refuse options that a platform does not have, or whose values are of another kind.

    Args:
        known: Type by name.
    """
    for name, value in options.items():
        if name not in known:
            raise UserError(component, "options", f"{name!r} is unknown", f"Known are {', '.join(known)}")
        kind = known[name]
        # KFP hands whole numbers inside of dictionaries on as floats, and JSON does not tell 60.0 from 60.
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = number and (kind is float or value == int(value)) if kind in (int, float) else isinstance(value, kind)
        if not fits:
            raise UserError(component, "options", f"{name} is {value!r}, not of the type {kind.__name__}", "Correct it")
