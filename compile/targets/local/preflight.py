"""What the local engine does not run, as findings: the table is features.REFUSED."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.compile.check import Spec
from penstock.compile.findings import Finding, Severity
from penstock.compile.targets.local import features


def check(spec: Spec) -> Iterator[Finding]:
    """Yield what `penstock run` would refuse with --runner auto."""
    for refusal in features.check(spec.pipeline, "auto"):
        detail = f" ({refusal.detail})" if refusal.detail else ""
        yield Finding("refused-here", Severity.ERROR, refusal.path, f"{refusal.feature}{detail}", refusal.reason)
