"""Whether a service takes a spec: asked in one place by all stand-ins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.compile import check, from_kfp, graph
from penstock.compile.errors import PenstockError
from penstock.compile.findings import errors


def accepted(
    spec: str | Mapping[str, Any], name: str, target: str, values: Mapping[str, Any] | None = None
) -> graph.Pipeline:
    """Return what a spec says.

    Args:
        spec: As text, or as JSON that has been read.
        name: How errors call it.
        target: Platform whose features and limits it is held to, as `penstock check --target` does.
        values: Values of its parameters, by name, as far as they are given.

    Raises:
        PenstockError: `penstock check` has errors for it; all of them are named.
    """
    if found := errors(check.check(spec, target, values)):
        raise PenstockError(f"{name}: {'; '.join(map(str, found))}")
    return from_kfp.parse(spec, name)
