"""What a conversion to Azure ML can be told in a file: compute, URIs, bounds of loops, what images do not say."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from penstock.compile.errors import PenstockError
from penstock.compile.targets.azureml import quantities


@dataclass(frozen=True)
class Machine:
    """Where tasks run: a rule; of several that fit a task, the first counts.

    Attributes:
        tasks: Pattern of the paths of tasks, such as "train" or "*.fit"; * stands for anything.
        accelerator: Type of the accelerator that the machine has, as the pipeline names it; "*" for any; empty: none.
        count: Accelerators it has.
        cpu: CPUs it has; 0: any number.
        memory: Memory it has, such as "64G"; empty: any amount.
        compute: Name of the compute; empty: the default one.
        instance_type: Size of a serverless machine.
    """

    tasks: str = "*"
    accelerator: str = ""
    count: int = 1
    cpu: float = 0.0
    memory: str = ""
    compute: str = ""
    instance_type: str = ""


@dataclass(frozen=True)
class Output:
    """What becomes of an artifact that a task gives, besides a folder for the tasks after it.

    Attributes:
        type: Type of an output of the job that gets a copy, with the artifact's files at its top: uri_folder, uri_file,
            mltable, mlflow_model, custom_model or triton_model; empty: no copy, or uri_folder where it has a name.
        name: Name that Azure registers the copy under, as a model or a data asset; empty: it is not registered.
        version: Version that it is registered as; empty: the next.
        mode: How files get there: "upload" when the step ends, or "rw_mount".
        path: URI of the place on a datastore; ${{name}} stands for the step's job; empty: Azure chooses one.
    """

    type: str = ""
    name: str = ""
    version: str = ""
    mode: str = "upload"
    path: str = ""

    @property
    def copied(self) -> str:
        """Type of the copy; empty: there is none."""
        return self.type or ("uri_folder" if self.name else "")


@dataclass(frozen=True)
class Options:
    """What the file holds; each has a default.

    Attributes:
        compute: Name of the compute that tasks run on.
        datastore: Name of the datastore that outputs go to; empty: the workspace's own.
        experiment: Name of the experiment; empty: the pipeline's.
        force_rerun: Whether Azure reuses nothing.
        machines: Rules, of which the first that fits a task counts.
        outputs: What becomes of artifacts, by patterns of their tasks' paths and their names, such as "train.model".
        uri_map: Beginnings of URIs that importers and the pipeline root have, with what to put in their place.
        uri_types: Types of importers' data, "uri_file" or "uri_folder", by patterns of their tasks' paths.
        max_iterations: Most items of a loop that are not known before a run, by patterns of the paths of loops.
        entrypoints: Commands of images whose tasks have none, by patterns of images.
        workdirs: Working folders of images, by patterns of images; else commands work in a folder of their own.
        has_python: Patterns of images that have Python 3.8 or later, though their names or commands do not say so.
        launchers: What runs commands in images, "python" or "sh", by patterns of images; it goes before has_python.
        config_maps: Keys and values of the ConfigMaps that the pipeline names.
        image: Image with Python of the steps that the conversion adds; empty: one of the pipeline's own.
        final_status: Whose words a final status has: "kubeflow" (COMPLETE) or "vertex" (SUCCEEDED).
    """

    compute: str = "serverless"
    datastore: str = ""
    experiment: str = ""
    force_rerun: bool = False
    machines: tuple[Machine, ...] = ()
    outputs: Mapping[str, Output] = field(default_factory=dict)
    uri_map: Mapping[str, str] = field(default_factory=dict)
    uri_types: Mapping[str, str] = field(default_factory=dict)
    max_iterations: Mapping[str, int] = field(default_factory=dict)
    entrypoints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    workdirs: Mapping[str, str] = field(default_factory=dict)
    has_python: tuple[str, ...] = ()
    launchers: Mapping[str, str] = field(default_factory=dict)
    config_maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    image: str = ""
    final_status: str = "kubeflow"


def matching(patterns: Mapping[str, Any], name: str) -> Any:
    """Return what stands beside the first pattern that fits a name; None where none does."""
    return next((value for pattern, value in patterns.items() if fnmatch.fnmatchcase(name, pattern)), None)


def read(path: Path) -> Options:
    """Return the options that a YAML file holds.

    Raises:
        PenstockError: it does not parse, a key is unknown, a value is of another kind; all that is wrong is named.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PenstockError(f"{path}: not YAML: {error}") from error
    return parse(document if document is not None else {}, str(path))


def parse(document: Any, name: str = "the options") -> Options:
    """Return the options that a mapping holds; `name` is how errors call it.

    Raises:
        PenstockError: a key is unknown, or a value is of another kind; all that is wrong is named.
    """
    problems: list[str] = []
    found = _fitted(document, Options, "", problems)
    if found.get("final_status", "kubeflow") not in ("kubeflow", "vertex"):
        problems.append("final_status is neither kubeflow nor vertex")
    for pattern, kind in found.get("uri_types", {}).items():
        if kind not in ("uri_file", "uri_folder"):
            problems.append(f"uri_types.{pattern} is neither uri_file nor uri_folder")
    for pattern, launcher in found.get("launchers", {}).items():
        if launcher not in ("python", "sh"):
            problems.append(f"launchers.{pattern} is neither python nor sh")
    for pattern, most in found.get("max_iterations", {}).items():
        if most < 1:
            problems.append(f"max_iterations.{pattern} is below 1")
    machines = []
    for index, entry in enumerate(found.get("machines", ())):
        rule = _fitted(entry, Machine, f"machines[{index}].", problems)
        if not rule.get("compute") and not rule.get("instance_type"):
            problems.append(f"machines[{index}] has neither compute nor instance_type")
        if rule.get("memory") and quantities.memory(rule["memory"]) is None:
            problems.append(f"machines[{index}].memory {rule['memory']!r} is no amount of memory, such as 64G")
        machines.append(Machine(**rule))
    outputs = {}
    for pattern, entry in found.get("outputs", {}).items():
        outputs[pattern] = Output(**_fitted(entry, Output, f"outputs.{pattern}.", problems))
        problems += (f"outputs.{pattern}{problem}" for problem in _misfits(outputs[pattern]))
    if problems:
        raise PenstockError(f"{name}: {'; '.join(problems)}")
    return Options(**{**found, "machines": tuple(machines), "outputs": outputs})


def _misfits(output: Output) -> Iterator[str]:
    if output.type and output.type not in COPIES:
        yield f".type is none of {', '.join(COPIES)}"
    if output.name and not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,254}", output.name, re.ASCII):
        yield f".name {output.name!r} is none that an asset can have: letters, digits, '_', '-' and '.'"
    if output.version and not output.name:
        yield " has a version and no name"
    if output.mode not in ("upload", "rw_mount"):
        yield ".mode is neither upload nor rw_mount"
    if output.path and not output.path.startswith("azureml://"):
        yield ".path is no azureml:// URI of a datastore"


COPIES = ("uri_folder", "uri_file", "mltable", "mlflow_model", "custom_model", "triton_model")
_TEXT_MAP = "a map of text"
_SHAPES: dict[str, str] = {
    "str": "text",
    "bool": "true or false",
    "int": "an integer",
    "float": "a number",
    "tuple[Machine, ...]": "a list",
    "Mapping[str, Output]": "a map of maps",
    "tuple[str, ...]": "a list of text",
    "Mapping[str, str]": _TEXT_MAP,
    "Mapping[str, int]": "a map of integers",
    "Mapping[str, tuple[str, ...]]": "a map of lists of text",
    "Mapping[str, Mapping[str, str]]": "a map of maps of text",
}


def _fitted(document: Any, kind: type[Options | Machine | Output], prefix: str, problems: list[str]) -> dict[str, Any]:
    """Return the fields that a mapping holds, and note what does not fit."""
    if not isinstance(document, Mapping):
        problems.append(f"{prefix.rstrip('.') or 'it'} is not a map of options")
        return {}
    known = {each.name: str(each.type) for each in fields(kind)}
    found: dict[str, Any] = {}
    for name, value in document.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f", did you mean {close[0]}?" if close else ""
            problems.append(f"unknown option {prefix}{name}{hint} (there are {', '.join(known)})")
            continue
        if name == "max_iterations" and isinstance(value, int):
            value = {"*": value}
        fitted = _value(value, known[name])
        if fitted is None:
            problems.append(f"{prefix}{name} is not {_SHAPES[known[name]]}")
        else:
            found[name] = fitted
    return found


def _value(value: Any, shape: str) -> Any:
    """Return a value as its field has it; None where it is of another kind."""
    if shape == "str":
        return value if isinstance(value, str) else None
    if shape == "bool":
        return value if isinstance(value, bool) else None
    if shape in ("int", "float"):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or (shape == "int" and not isinstance(value, int)):
            return None
        return value
    if shape == "tuple[Machine, ...]":
        return value if isinstance(value, list) else None
    if shape == "tuple[str, ...]":
        texts = isinstance(value, list) and value and all(isinstance(item, str) for item in value)
        return tuple(value) if texts else None
    if shape == "Output":
        return value if isinstance(value, Mapping) else None
    inner = shape.removeprefix("Mapping[str, ").removesuffix("]")
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return None
    found = {key: _value(item, inner) for key, item in value.items()}
    return None if any(item is None for item in found.values()) else found
