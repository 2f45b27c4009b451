"""Whether a service takes a spec: asked in one place by all stand-ins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.compile import from_kfp, graph


def accepted(spec: str | Mapping[str, Any], name: str) -> graph.Pipeline:
    """Return what a spec says.

    Args:
        spec: As text, or as JSON that has been read.
        name: How errors call it.

    Raises:
        PenstockError: it is not a whole, valid pipeline.
    """
    return from_kfp.parse(spec, name)
