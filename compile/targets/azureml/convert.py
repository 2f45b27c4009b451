"""From a compiled pipeline to a folder that holds an Azure ML pipeline job, or to all that stands in the way."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.compile import documents, from_kfp, graph, parameters
from penstock.compile.documents import Documents
from penstock.compile.errors import PenstockError
from penstock.compile.findings import Finding, Severity, errors
from penstock.compile.targets.azureml import emit, features, validate
from penstock.compile.targets.azureml.options import Options
from penstock.compile.targets.azureml.plan import Plan

MARK = "penstock.json"  # lies in each folder that a conversion wrote, and says which files it did


@dataclass(frozen=True)
class Conversion:
    """What came of a conversion.

    Attributes:
        findings: All that is refused or warned of, errors first.
        files: The job's files by path; none where something is refused.
    """

    pipeline: graph.Pipeline
    findings: tuple[Finding, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def refused(self) -> bool:
        """Whether the pipeline cannot be converted."""
        return bool(errors(self.findings))

    def report(self) -> dict[str, Any]:
        """Return the conversion as JSON says it."""
        return {
            "pipeline": self.pipeline.name,
            "converted": not self.refused,
            "steps": sum(path.startswith("components/") for path in self.files),
            "findings": [
                {**vars(found), "severity": found.severity.value, "path": found.path} for found in self.findings
            ],
        }


def convert(
    pipeline: graph.Pipeline,
    values: Mapping[str, Any] | None = None,
    options: Options | None = None,
    *,
    strict: bool = False,
    lenient: bool = False,
    documents: Documents | None = None,
) -> Conversion:
    """Return a pipeline as an Azure ML job, or all that stands in the way.

    Args:
        pipeline: The pipeline.
        values: Values of its parameters by name, paths or URIs for its artifacts.
        options: What the conversion is told.
        strict: Whether what is warned of is refused.
        lenient: Whether the options are meant for other pipelines as well.
        documents: What the pipeline was read from, for findings about what the graph leaves out.

    Raises:
        PenstockError: a value is of another type, or its name unknown.
    """
    chosen, known = options or Options(), _known(pipeline, values or {})
    plan = Plan(pipeline, known, chosen)
    case = features.Case(pipeline, plan, chosen, known, documents or Documents({}), lenient)
    found = features.check(case)
    if strict:
        found = [Finding(each.code, Severity.ERROR, each.path, each.message, each.remedy) for each in found]
    if errors(found):
        return Conversion(pipeline, tuple(found))
    files = emit.files(case)
    if problems := validate.check(files):
        raise AssertionError(f"the job of {pipeline.name} is not sound; this is a bug: {'; '.join(problems)}")
    return Conversion(pipeline, tuple(found), files)


def convert_text(
    text: str,
    name: str,
    values: Mapping[str, str],
    options: Options | None = None,
    *,
    strict: bool = False,
    lenient: bool = False,
) -> Conversion:
    """Return a compiled pipeline's job, as `convert` does.

    Args:
        text: IR as YAML or JSON.
        name: How errors call it.
        values: Values as texts, as a command line has them.
        options: What the conversion is told.
        strict: Whether what is warned of is refused.
        lenient: Whether values and options are meant for other pipelines as well.

    Raises:
        PenstockError: the text is not a whole, valid pipeline, or a value does not fit.
    """
    try:
        found = documents.unwrap(text)
    except documents.NotAPipeline as error:
        raise PenstockError(f"{name}: {error}") from error
    pipeline = from_kfp.parse(found, name)
    if lenient:
        values = {each: values[each] for each in values if each in pipeline.inputs}
    given = {**found.values, **parameters.from_text(pipeline, values)}
    return convert(pipeline, given, options, strict=strict, lenient=lenient, documents=found)


def write(conversion: Conversion, folder: Path) -> None:
    """Write a job into a folder, whole or not at all.

    A job that was converted into it before is replaced.

    Raises:
        PenstockError: something else is in the folder, or it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / MARK).is_file())):
        raise PenstockError(
            f"{folder}: holds something that is no converted job; give an --output that is not there yet"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            for name, content in conversion.files.items():
                path = half / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            (half / MARK).write_text(json.dumps(_mark(conversion), indent=1, sort_keys=True) + "\n", encoding="utf-8")
            half.chmod(0o755)
            _replace(folder, half)
        finally:
            with contextlib.suppress(OSError):
                shutil.rmtree(half)
    except OSError as error:
        raise PenstockError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _replace(folder: Path, half: Path) -> None:
    """Put a whole folder where another may be; what happens on the way leaves that one."""
    if not folder.exists():
        half.rename(folder)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        folder.rename(aside / "old")
        try:
            half.rename(folder)
        except BaseException:
            (aside / "old").rename(folder)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _mark(conversion: Conversion) -> dict[str, Any]:
    pipeline = conversion.pipeline
    return {"pipeline": pipeline.name, "schema_version": pipeline.schema_version, "sdk_version": pipeline.sdk_version}


def _known(pipeline: graph.Pipeline, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a pipeline's inputs that are given or have defaults; the rest may come later."""
    given = {name: value for name, value in values.items() if value is not None}
    required = {name for name, port in pipeline.inputs.parameters.items() if port.required and name not in given}
    lenient = {name: _placeholder(pipeline.inputs.parameters[name]) for name in required}
    artifacts = {name: "" for name in pipeline.inputs.artifacts if name not in given}
    found = parameters.complete(pipeline, {**given, **lenient, **artifacts})
    return {name: value for name, value in found.items() if name not in required and name not in artifacts}


def _placeholder(port: graph.Parameter) -> Any:
    samples: dict[graph.Type, Any] = {
        graph.Type.INTEGER: 0,
        graph.Type.DOUBLE: 0.0,
        graph.Type.BOOLEAN: False,
        graph.Type.LIST: [],
        graph.Type.STRING: "",
    }
    return port.literals[0] if port.literals else samples.get(port.type, {})
