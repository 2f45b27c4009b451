"""The work of `register`: a trained model becomes a version in a registry, with its lineage."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from penstock.components._shared.errors import UserError
from penstock.components._shared.mlflow_registry import check_model_name
from penstock.components._shared.model import KIND, LEFT_BY_OTHERS
from penstock.components._shared.sealed import MANIFEST, sha256, unseal
from penstock.components.registry.backends.mlflow import MlflowBackend
from penstock.components.registry.entry import ANY, Backend, Entry, Registered

COMPONENT = "register"
ALIASES = ("champion", "challenger")
BACKENDS: dict[str, Backend] = {"mlflow": MlflowBackend()}
TRAINED_WITH = ("framework", "task", "target", "seed", "rounds", "hyperparameters")


def register(
    model: str | os.PathLike[str],
    metrics: Mapping[str, Any],
    *,
    model_name: str,
    schema: str | os.PathLike[str] | None = None,
    statistics: str | os.PathLike[str] | None = None,
    platform: str = "mlflow",
    registry: str = "",
    alias: str = "champion",
    expected_version: str = ANY,
    reason: str = "",
    run_id: str = "",
    spec_sha256: str = "",
    git_commit: str = "",
) -> Registered:
    """Return the version under which a model now stands in a registry.

    Args:
        model: Sealed model folder.
        metrics: Numbers by name; what is not a number is left out.
        model_name: Name in the registry.
        schema: Schema file of the training data.
        statistics: Statistics file of the training data.
        platform: Kind of registry.
        registry: URI of the registry. Empty: the environment's, or the local run folder's.
        alias: Alias to move to the new version; empty: none.
        expected_version: Version that the alias must still point to; "" for none yet, "any" for whatever it points to
            at the start.
        reason: Why the model was blessed.
        run_id: Run that made the model.
        spec_sha256: SHA-256 of the compiled pipeline.
        git_commit: Commit of the pipeline's source.

    Raises:
        UserError: An argument is wrong, the model was altered, the registry does not answer, or the alias has moved.
    """
    backend = backend_of(platform, COMPONENT)
    if alias and alias not in ALIASES:
        raise UserError(
            COMPONENT, "alias", f"{alias!r} is not a known alias", f"Known are {', '.join(ALIASES)}; empty sets none"
        )
    check_expected(expected_version, COMPONENT)
    check_model_name(model_name, COMPONENT)
    folder = Path(model)
    facts = unseal(folder, KIND, COMPONENT, "model", besides=LEFT_BY_OTHERS)
    schema_file, statistics_file = _file(schema, "schema"), _file(statistics, "statistics")
    digest = sha256(folder / MANIFEST)
    entry = Entry(
        name=model_name,
        folder=folder,
        digest=digest,
        run_id=run_id,
        schema=schema_file,
        statistics=statistics_file,
        parameters=dict(_flat({name: facts[name] for name in TRAINED_WITH if name in facts})),
        metrics=_numbers(metrics),
        lineage={
            "model_sha256": digest,
            "train_fingerprint": str(facts.get("train_fingerprint", "")),
            "eval_fingerprint": str(facts.get("eval_fingerprint", "")),
            "schema_sha256": sha256(schema_file) if schema_file else "",
            "statistics_sha256": sha256(statistics_file) if statistics_file else "",
            "framework": str(facts.get("framework", "")),
            "spec_sha256": spec_sha256,
            "git_commit": git_commit,
            "image": os.environ.get("PENSTOCK_IMAGE", ""),
            "penstock": package_version("penstock"),
        },
        reason=reason,
        alias=alias,
        expected=expected_version,
    )
    return backend.add(entry, registry)


def backend_of(platform: str, component: str) -> Backend:
    """Return the row of the table of registries that a platform names."""
    if platform not in BACKENDS:
        raise UserError(
            component, "platform", f"{platform!r} is not a known kind of registry", f"Known are {', '.join(BACKENDS)}"
        )
    return BACKENDS[platform]


def check_expected(version: str, component: str) -> None:
    """Refuse what no alias can be expected to point to."""
    if version not in ("", ANY) and not version.isdecimal():
        raise UserError(
            component,
            "expected_version",
            f"{version!r} is not a version",
            'Give a number, "any", or "" where there is no version yet',
        )


def _file(path: str | os.PathLike[str] | None, argument: str) -> Path | None:
    if path is None:
        return None
    if not Path(path).is_file():
        raise UserError(COMPONENT, argument, f"{path} is not a file", "Run the step that writes it again")
    return Path(path)


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    numbers = {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise UserError(COMPONENT, "metrics", f"{name} is {value}", "Evaluate the model again")
    return numbers


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
