"""The model folder: an MLflow model that any MLflow server can load, the same bytes for the same model.

MLmodel is MLflow's documented YAML. It is written here and not by mlflow, whose own writer takes a second to import,
puts the time and a random id into the file, and starts processes to guess the requirements.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from penstock.components._shared import tabular
from penstock.components._shared.fitting.features import Feature
from penstock.components._shared.fitting.frameworks import Framework, Learned
from penstock.components._shared.fitting.target import Target
from penstock.components._shared.model import KIND
from penstock.components._shared.sealed import new_folder, seal

EXAMPLE_ROWS = 5


def write_model(
    path: str | os.PathLike[str],
    framework: Framework,
    learned: Learned,
    target: Target,
    features: Sequence[Feature],
    example: pa.Table,
    facts: Mapping[str, Any],
    *,
    transformed: Sequence[Feature] | None = None,
) -> None:
    """Write a sealed model folder.

    Args:
        features: Of the columns that the model reads.
        example: Some training rows, put into the folder as the input example.
        facts: Lineage, for the manifest and MLmodel's metadata; versions are added.
        transformed: Of what the model's transform graph makes of them; None: it has none.
    """
    with new_folder(path) as folder:
        description = {
            "format": 1,
            "framework": facts["framework"],
            "task": target.task,
            "target": target.name,
            "classes": list(target.classes),
            "features": [feature.description() for feature in features],
        }
        if transformed is not None:
            # The graph is told by its fingerprint, for a SavedModel is never the same bytes twice.
            description["transform_graph"] = facts["transform_graph"]
            description["transformed"] = [feature.description() for feature in transformed]
        _write_json(folder / tabular.DESCRIPTION, description)
        learned.save(folder / framework.weights)
        loader = _copy_code(folder)
        _write_example(folder, features, example)
        installed = versions(framework)
        _write_environment(folder, installed)
        # Named by what it is: the same model has the same id, on any machine and any day.
        identity = hashlib.sha256((folder / tabular.DESCRIPTION).read_bytes())
        identity.update((folder / framework.weights).read_bytes())
        facts = {**facts, "versions": {"python": platform.python_version(), **installed}}
        name, flavor = framework.flavor()
        mlmodel = {
            "flavors": {
                name: flavor,
                "python_function": {
                    "code": "code",
                    "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                    "loader_module": loader,
                    "python_version": platform.python_version(),
                },
            },
            "is_signature_from_type_hint": False,
            "metadata": facts,
            "mlflow_version": installed["mlflow"],
            "model_size_bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
            "model_uuid": identity.hexdigest()[:32],
            "saved_input_example_info": {
                "artifact_path": "input_example.json",
                "pandas_orient": "split",
                "serving_input_path": "serving_input_example.json",
                "type": "dataframe",
            },
            "signature": _signature(target, features),
            "type_hint_from_example": False,
            "utc_time_created": "1970-01-01 00:00:00.000000",
        }
        (folder / "MLmodel").write_text(yaml.safe_dump(mlmodel, allow_unicode=True), encoding="utf-8")
        seal(folder, KIND, facts)


def _copy_code(folder: Path) -> str:
    """Copy the code that predicts; return its module, named by its content so that models never share another's."""
    source = Path(tabular.__file__).read_bytes()
    module = f"penstock_tabular_{hashlib.sha256(source).hexdigest()[:8]}"
    (folder / "code").mkdir()
    (folder / "code" / f"{module}.py").write_bytes(source)
    return module


def _signature(target: Target, features: Sequence[Feature]) -> dict[str, Any]:
    inputs = [
        {"type": _mlflow_type(feature), "name": feature.name, "required": not feature.optional} for feature in features
    ]
    if target.task == "regression":
        outputs = [{"type": "double", "name": "prediction", "required": True}]
    else:
        label = {bool: "boolean", int: "long", str: "string"}[type(target.classes[0])]
        outputs = [{"type": label, "name": "prediction", "required": True}]
        outputs += [
            {"type": "double", "name": f"probability_{tabular.label_text(label)}", "required": True}
            for label in target.classes
        ]
    return {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs), "params": None}


def _mlflow_type(feature: Feature) -> str:
    if feature.kind in ("category", "text"):
        return "string"
    if feature.kind == "boolean":
        # MLflow's server reads a null as false where a column is boolean; of "any" it keeps its hands off.
        return "any" if feature.optional else "boolean"
    # Integers with missing values are floats in pandas, and MLflow holds a column to its type.
    return "long" if feature.whole and not feature.optional else "double"


def _write_example(folder: Path, features: Sequence[Feature], example: pa.Table) -> None:
    names = [feature.name for feature in features]
    rows = [[_json_value(row[name]) for name in names] for row in example.select(names).to_pylist()]
    split = {"columns": names, "data": rows}
    _write_json(folder / "input_example.json", split)
    _write_json(folder / "serving_input_example.json", {"dataframe_split": split})


def _json_value(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    return None if value != value else float(value)  # NaN differs from itself


def _write_environment(folder: Path, versions: Mapping[str, str]) -> None:
    python = platform.python_version()
    requirements = [f"{name}=={number}" for name, number in versions.items()]
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": requirements}],
    }
    virtualenv = {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements), encoding="utf-8")
    (folder / "conda.yaml").write_text(yaml.safe_dump(conda, sort_keys=False), encoding="utf-8")
    (folder / "python_env.yaml").write_text(yaml.safe_dump(virtualenv, sort_keys=False), encoding="utf-8")


def versions(framework: Framework) -> dict[str, str]:
    """Return the installed versions of what a server of the model needs, by name on PyPI."""
    found = {"mlflow": _installed(("mlflow-skinny", "mlflow"))[1]}
    for names in (("numpy",), ("pandas",), ("scipy",), *framework.distributions):
        name, number = _installed(names)
        found[name] = number
    return found


def _installed(names: Sequence[str]) -> tuple[str, str]:
    for name in names:
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    raise PackageNotFoundError(" or ".join(names))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8")
