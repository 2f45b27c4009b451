"""Parameters of a run: from text or a file to the values that a pipeline declares."""

from __future__ import annotations

import datetime
import difflib
import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from penstock.compile import graph, launcher
from penstock.compile.errors import PenstockError

SPEC_SHA256 = "spec_sha256"
GIT_COMMIT = "git_commit"

_EXPONENT = re.compile(r"[-+]?\d+[eE][-+]?\d+")


def from_text(pipeline: graph.Pipeline, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the values that texts, as a command line has them, stand for.

    Args:
        pipeline: Whose parameters they are.
        texts: Text by name: numbers, true or false, JSON for lists and objects; text stays as it is. An artifact
            input takes the path or URI of what it is given.

    Raises:
        PenstockError: a name is unknown or a text does not fit its type.
    """
    values = {}
    for name, text in texts.items():
        _known(pipeline, name)
        if name in pipeline.inputs.artifacts:
            values[name] = text
            continue
        try:
            values[name] = _from_text(text, pipeline.inputs.parameters[name].type)
        except ValueError as error:
            raise PenstockError(f"parameter {name}: {error}") from error
    return values


def from_file(pipeline: graph.Pipeline, path: Path, *, lenient: bool = False) -> dict[str, Any]:
    """Return the values that a YAML or JSON file holds by name.

    Args:
        pipeline: Whose parameters they are.
        path: The file.
        lenient: Whether names that the pipeline does not have are left out.

    Raises:
        PenstockError: the file does not parse, a name is unknown, a value is of another type.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PenstockError(f"{path}: neither YAML nor JSON: {error}") from error
    if not isinstance(values, dict):
        raise PenstockError(f"{path}: expected names and values, for example `seed: 7` on a line")
    return {
        str(name): _checked(pipeline, str(name), _number(pipeline, str(name), value))
        for name, value in values.items()
        if not lenient or str(name) in pipeline.inputs
    }


def complete(pipeline: graph.Pipeline, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of all inputs of a pipeline: those given, checked, and defaults for the rest.

    Args:
        pipeline: What is to run.
        values: JSON values by name; paths or URIs for artifact inputs. None counts as not given.

    Raises:
        PenstockError: a name is unknown, a value is of another type, or values are missing; all that are, are named.
    """
    found = {name: _checked(pipeline, name, value) for name, value in values.items() if value is not None}
    missing = []
    for name, parameter in pipeline.inputs.parameters.items():
        if name in found:
            continue
        if parameter.default is not None:
            found[name] = _checked(pipeline, name, parameter.default)
        elif parameter.required:
            missing.append(f"{name} ({parameter.type.value})")
    missing += [
        f"{name} (path or URI of {port.type})"
        for name, port in pipeline.inputs.artifacts.items()
        if name not in found and not port.optional
    ]
    if missing:
        raise PenstockError(f"pipeline {pipeline.name} needs {', '.join(missing)}; give each as -p NAME=VALUE")
    return found


def with_lineage(pipeline: graph.Pipeline, values: Mapping[str, Any], spec_sha256: str, folder: Path) -> dict[str, Any]:
    """Return the values with those filled in by which a pipeline asks what it was made of.

    A pipeline that declares text inputs `spec_sha256` or `git_commit` gets them, where they are not given or empty:
    the SHA-256 of its spec's bytes, and the commit checked out in the repository around a folder, if there is one.

    Args:
        pipeline: What is to run.
        values: Values by name.
        spec_sha256: SHA-256 of the spec.
        folder: A folder, for example the working directory.
    """
    found = dict(values)
    for name in (SPEC_SHA256, GIT_COMMIT):
        port = pipeline.inputs.parameters.get(name)
        if port and port.type is graph.Type.STRING and not found.get(name):
            found[name] = spec_sha256 if name == SPEC_SHA256 else git_commit(folder)
    return found


def git_commit(folder: Path) -> str:
    """Return the commit checked out in the repository around a folder; empty where there is none."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--verify", "--quiet", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _known(pipeline: graph.Pipeline, name: str) -> None:
    known = sorted(pipeline.inputs)
    if name in known:
        return
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise PenstockError(f"pipeline {pipeline.name} has no parameter {name}; {hint}it has {', '.join(known) or 'none'}")


def _checked(pipeline: graph.Pipeline, name: str, value: Any) -> Any:
    _known(pipeline, name)
    if name in pipeline.inputs.artifacts:
        if not isinstance(value, str):
            raise PenstockError(f"parameter {name}: give the path or URI of the artifact, not {value!r}")
        return value
    port = pipeline.inputs.parameters[name]
    if port.type is graph.Type.STRING and isinstance(value, datetime.date):  # YAML reads an unquoted date so
        value = value.isoformat()
    try:
        checked = launcher.check_value(value, port.type.value)
    except ValueError as error:
        raise PenstockError(f"parameter {name}: {error}") from error
    if port.literals and checked not in port.literals:
        raise PenstockError(f"parameter {name}: {checked!r} is not one of {', '.join(map(repr, port.literals))}")
    return checked


def _number(pipeline: graph.Pipeline, name: str, value: Any) -> Any:
    """Return a value of a file; where a number is wanted, 1e-4 is one, which YAML 1.1 takes for text."""
    port = pipeline.inputs.parameters.get(name)
    wanted = port is not None and port.type in (graph.Type.INTEGER, graph.Type.DOUBLE)
    return float(value) if wanted and isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def _from_text(text: str, kind: graph.Type) -> Any:
    if kind is graph.Type.STRING:
        return text
    plain = text.strip()
    if kind is graph.Type.BOOLEAN:
        if plain.lower() not in ("true", "false"):
            raise ValueError(f"expected true or false, got {text!r}")
        return plain.lower() == "true"
    try:
        value = json.loads(plain)
    except ValueError:
        example = {graph.Type.LIST: """, for example '["a", "b"]'""", graph.Type.STRUCT: """, for example '{"a": 1}'"""}
        wanted = {graph.Type.INTEGER: "an integer", graph.Type.DOUBLE: "a number", graph.Type.LIST: "a JSON list"}
        raise ValueError(f"expected {wanted.get(kind, 'a JSON object')}, got {text!r}{example.get(kind, '')}") from None
    return launcher.check_value(value, kind.value)
