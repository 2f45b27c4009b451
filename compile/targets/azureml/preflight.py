"""What Azure ML does not run, as findings: the table is features.FEATURES."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.compile.check import Spec
from penstock.compile.findings import Finding
from penstock.compile.targets.azureml import features
from penstock.compile.targets.azureml.options import parse
from penstock.compile.targets.azureml.plan import Plan


def check(spec: Spec) -> Iterator[Finding]:
    """Yield what `penstock convert --to azureml` would refuse or warn of.

    Raises:
        PenstockError: an option is unknown, or of another kind.
    """
    values = {name: value for name, value in spec.values.items() if name in spec.pipeline.inputs and value is not None}
    options = parse(spec.options)
    plan = Plan(spec.pipeline, values, options)
    yield from features.check(features.Case(spec.pipeline, plan, options, values, spec.documents))
