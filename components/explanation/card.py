"""The work of `model_card`: what a run knows of a model and what its makers say of it, as a Model Card.

Mitchell, Wu, Zaldivar, Barnes, Vasserman, Hutchinson, Spitzer, Raji, Gebru: Model cards for model reporting. FAT* 2019.

The JSON has the format penstock.model_card/1; card.schema.json beside this file describes it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.components._shared.errors import UserError
from penstock.components._shared.model import TabularModel, load_model
from penstock.components._shared.sealed import MANIFEST, sha256
from penstock.components.explanation import card_page, document
from penstock.components.explanation.statistics import describe

COMPONENT = "model_card"
FORMAT = "penstock.model_card/1"
EVALUATION = "penstock.evaluation/1"
MOST_FEATURES = 20  # of the explanation
# What the makers of a model tell, each a text or a list of texts.
TEXTS = ("name", "version", "overview", "license")
LISTS = (
    "owners",
    "references",
    "intended_uses",
    "intended_users",
    "out_of_scope_uses",
    "limitations",
    "ethical_considerations",
    "recommendations",
)


@dataclass(frozen=True)
class Carded:
    """What became of a card.

    Attributes:
        missing: What it says is not known, by the argument that would have told it.
    """

    missing: tuple[str, ...]


def write_card(
    model: str | os.PathLike[str],
    card: str | os.PathLike[str],
    report: str | os.PathLike[str],
    *,
    evaluation: str | os.PathLike[str] | None = None,
    statistics: str | os.PathLike[str] | None = None,
    explanation: str | os.PathLike[str] | None = None,
    told: Mapping[str, Any] | None = None,
) -> Carded:
    """Return what is missing in a model's card, which is written as JSON and as a page.

    Args:
        model: Model folder.
        card: JSON file to write.
        report: Page to write.
        evaluation: JSON of evaluate, of this model.
        statistics: DatasetFeatureStatisticsList of the training rows.
        explanation: JSON of explain, of this model.
        told: What the makers say, by the names in TEXTS and LISTS.

    Raises:
        UserError: A file cannot be read or is of another model, or something told is no text.
    """
    said = _said(told or {})
    loaded = load_model(model, COMPONENT, "model")
    measured = _read(evaluation, "evaluation", EVALUATION, loaded)
    explained = _read(explanation, "explanation", document.FORMAT, loaded)
    described = describe(statistics, COMPONENT, "statistics") if statistics is not None else None
    given = {"evaluation": measured, "statistics": described, "explanation": explained, **said}
    missing = tuple(name for name, value in given.items() if not value and name != "name")
    facts = loaded.facts
    found = {
        "format": FORMAT,
        "model_details": {
            "name": said["name"] or loaded.target,
            **{name: said[name] for name in ("version", "overview", "owners", "license", "references")},
            "framework": facts.get("framework"),
            "task": loaded.task,
            "target": loaded.target,
            "classes": list(loaded.classes),
            "features": [
                {"name": column["name"], "kind": column["kind"], "may_be_missing": column["optional"]}
                for column in loaded.columns
            ],
            "training": {
                "hyperparameters": facts.get("hyperparameters", {}),
                "rounds": facts.get("rounds"),
                "early_stopping_rounds": facts.get("early_stopping_rounds"),
                "seed": facts.get("seed"),
                "weight_column": facts.get("weight_column", ""),
                "class_weights": facts.get("class_weights", {}),
                "losses": facts.get("metrics", {}),
                "versions": facts.get("versions", {}),
            },
            "manifest_sha256": sha256(Path(model) / MANIFEST),
        },
        "intended_use": {
            "uses": said["intended_uses"],
            "users": said["intended_users"],
            "out_of_scope_uses": said["out_of_scope_uses"],
        },
        "factors": _factors(measured, explained),
        "metrics": _metrics(measured),
        "evaluation_data": _evaluation_data(measured, facts),
        "training_data": {
            "fingerprint": facts.get("train_fingerprint"),
            "rows": facts.get("train_rows"),
            "statistics": described,
        },
        "quantitative_analyses": {
            "slices": measured["slices"] if measured else None,
            "gate": {name: measured[name] for name in ("blessed", "reason", "gate")} if measured else None,
            "champion": measured["champion"] if measured else None,
            "explanation": _explanation(explained),
        },
        "ethical_considerations": said["ethical_considerations"],
        "caveats_and_recommendations": {
            "limitations": said["limitations"],
            "recommendations": said["recommendations"],
        },
        "missing": list(missing),
    }
    card_page.page(found).write(report)
    document.write(found, card)
    return Carded(missing)


def _said(told: Mapping[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for name in TEXTS:
        said[name] = told.get(name, "")
        if not isinstance(said[name], str):
            raise UserError(COMPONENT, name, f"{said[name]!r} is no text", "Give a text")
    for name in LISTS:
        said[name] = list(told.get(name) or [])
        if isinstance(told.get(name), str) or not all(isinstance(item, str) for item in said[name]):
            raise UserError(COMPONENT, name, f"{told[name]!r} is no list of texts", 'Give a list such as ["…", "…"]')
    return said


def _read(path: str | os.PathLike[str] | None, argument: str, kind: str, model: TabularModel) -> dict[str, Any] | None:
    """Return a JSON document that another component wrote of this very model."""
    if path is None:
        return None
    remedy = f"Give the output of that name of the step that wrote it, of format {kind}"
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(COMPONENT, argument, f"{path} cannot be read: {error.strerror}", remedy) from None
    except ValueError:
        raise UserError(COMPONENT, argument, f"{path} is no JSON", remedy) from None
    if not isinstance(found, dict) or found.get("format") != kind:
        of = found.get("format") if isinstance(found, dict) else None
        raise UserError(COMPONENT, argument, f"{path} is of format {of!r}", remedy)
    if found["model"] != model.facts:
        differs = sorted(
            name
            for name in found["model"].keys() | model.facts.keys()
            if found["model"].get(name) != model.facts.get(name)
        )
        raise UserError(
            COMPONENT,
            argument,
            f"{path} is of another model: it differs in {', '.join(differs)}",
            "Give model and documents of the same run",
        )
    return found


def _factors(measured: dict[str, Any] | None, explained: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the columns by which the model was looked at, with their slices."""
    columns: dict[str, dict[str, Any]] = {}
    for argument, found in (("evaluation", measured), ("explanation", explained)):
        for column, entry in (found or {"slices": {}})["slices"].items():
            factor = columns.setdefault(
                column,
                {
                    "column": column,
                    "note": entry["note"],
                    "slices": [{"value": part["value"], "rows": part["rows"]} for part in entry["slices"]],
                    "looked_at_by": [],
                },
            )
            factor["looked_at_by"].append(argument)
    return list(columns.values())


def _metrics(measured: dict[str, Any] | None) -> dict[str, Any] | None:
    if measured is None:
        return None
    return {
        "confidence": measured["bootstrap"]["confidence"],
        "bootstrap_samples": measured["bootstrap"]["samples"],
        "values": [
            {
                "name": name,
                "value": entry["value"],
                "low": entry.get("low"),
                "high": entry.get("high"),
                "better": entry["better"],
                "about": entry["about"],
                "reason": entry.get("reason", ""),
            }
            for name, entry in measured["metrics"].items()
        ],
    }


def _evaluation_data(measured: dict[str, Any] | None, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rows that were measured; of a model that was not, those that early stopping watched are told."""
    watched = {"fingerprint": facts.get("eval_fingerprint"), "rows": facts.get("eval_rows")}
    if measured is None:
        return {"fingerprint": None, "rows": None, "watched_in_training": watched, "seen_in_training": None}
    return {
        **measured["eval_set"],
        "watched_in_training": watched,
        "seen_in_training": measured["eval_set"]["fingerprint"] == facts.get("train_fingerprint"),
    }


def _explanation(explained: dict[str, Any] | None) -> dict[str, Any] | None:
    if explained is None:
        return None
    names: Sequence[str] = ("method", "sample", "dataset", "background", "additivity", "outputs", "explained_class")
    importance = explained["importance"]
    return {
        **{name: explained[name] for name in names},
        "features": explained["features"][:MOST_FEATURES],
        "features_left_out": max(0, len(explained["features"]) - MOST_FEATURES),
        "importance": importance and {**importance, "features": importance["features"][:MOST_FEATURES]},
        "importance_note": explained["importance_note"],
    }
