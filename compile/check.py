"""Says what is wrong with a compiled pipeline, anybody's: `penstock check`.

The rules are modules in _checks, each a table of codes and a function over the graph; those of reading and of
references come first. What one platform cannot run, and its limits, are tables of the target's folder.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.compile import documents, from_kfp, graph, references
from penstock.compile._checks import containers, flow, placeholders, platforms, secrets, types
from penstock.compile.documents import Documents
from penstock.compile.findings import Code, Finding, Severity

# Platforms that a spec can be held to: folders of targets/ with a module preflight.
TARGETS = ("local", "kubeflow", "vertex", "azureml")

_RULES = (types, flow, placeholders, containers, platforms, secrets)
_TABLES = (documents, from_kfp, references, *_RULES)


@dataclass(frozen=True)
class Spec:
    """A compiled pipeline as preflight sees it.

    Attributes:
        size: Bytes of the file.
        values: Values of the pipeline's parameters where they are known, else their defaults.
        options: What a conversion to the platform's own form is told, as its file has it.
    """

    pipeline: graph.Pipeline
    documents: Documents
    size: int
    values: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)


def check_file(path: Path, target: str = "", values: Mapping[str, Any] | None = None) -> list[Finding]:
    """Return what is wrong with a file, as `check` does.

    Raises:
        PenstockError: It cannot be read.
    """
    return check(documents.text_of(path), target, values)


def check(
    document: str | Mapping[str, Any],
    target: str = "",
    values: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """Return what is wrong with a compiled pipeline: errors first, each by path.

    Args:
        document: What from_kfp.read takes, as text or as a mapping.
        target: One of TARGETS, to hold it to that platform's features and limits too.
        values: Values of the pipeline's parameters that a run would be given, by name.
        options: What a conversion to the platform's own form is told, as its file has it.
    """
    return sorted(_found(document, target, values or {}, options or {}), key=_rank)


def codes() -> list[Code]:
    """Return the codes that any pipeline can get, in the order in which rules are applied."""
    return [code for table in _TABLES for code in table.CODES]


def preflight(spec: Spec, target: str) -> Iterator[Finding]:
    """Yield what one platform does not run, and which of its limits a spec exceeds."""
    module = importlib.import_module(f"penstock.compile.targets.{target}.preflight")
    yield from module.check(spec)


def _found(
    document: str | Mapping[str, Any], target: str, values: Mapping[str, Any], options: Mapping[str, Any]
) -> Iterator[Finding]:
    try:
        unwrapped = documents.unwrap(document)
    except documents.NotAPipeline as error:
        yield documents.CODES.finding("not-a-pipeline", "", str(error))
        return
    pipeline, found = from_kfp.examine(unwrapped)
    yield from found
    if pipeline is None:
        return
    for rules in _RULES:
        yield from rules.check(pipeline)
    if target:
        text = document if isinstance(document, str) else str(document)
        defaults = {name: port.default for name, port in pipeline.inputs.parameters.items() if port.default is not None}
        given = {**defaults, **unwrapped.values, **values}
        yield from preflight(Spec(pipeline, unwrapped, len(text.encode()), given, options), target)


def _rank(finding: Finding) -> tuple[bool, str, str, str]:
    return finding.severity is not Severity.ERROR, finding.path, finding.code, finding.message
