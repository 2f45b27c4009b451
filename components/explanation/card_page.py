"""A Model Card as a page, in the order of its sections; what is not known is said in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.components._shared.report import Report
from penstock.components._shared.tabular import label_text
from penstock.components.explanation.render import bars

SLICE_METRICS = 6
MOST_CLASSES = 20


def page(found: Mapping[str, Any]) -> Report:
    """Return the page of a card.

    Args:
        found: What card.schema.json describes.
    """
    details = found["model_details"]
    version = f", version {details['version']}" if details["version"] else ""
    built = Report(f"Model Card: {details['name']}{version}", f"{details['task']} of {details['target']}")
    gate = found["quantitative_analyses"]["gate"]
    if gate:
        built.status(
            gate["blessed"], ("Passed its gate: " if gate["blessed"] else "Failed its gate: ") + gate["reason"]
        )
    if found["missing"]:
        built.text(f"Not known, because it was not given: {', '.join(found['missing'])}.")
    _details(built, details)
    built.heading("Intended use")
    _listed(built, "Intended uses", found["intended_use"]["uses"])
    _listed(built, "Intended users", found["intended_use"]["users"])
    _listed(built, "Out of scope", found["intended_use"]["out_of_scope_uses"])
    _factors(built, found["factors"])
    _metrics(built, found["metrics"])
    _evaluation_data(built, found["evaluation_data"])
    _training_data(built, found["training_data"])
    _analyses(built, found)
    built.heading("Ethical considerations")
    _listed(built, "", found["ethical_considerations"])
    built.heading("Caveats and recommendations")
    _listed(built, "Limitations", found["caveats_and_recommendations"]["limitations"])
    _listed(built, "Recommendations", found["caveats_and_recommendations"]["recommendations"])
    return built


def _listed(built: Report, what: str, items: Sequence[str]) -> None:
    opening = f"{what}: " if what else ""
    if not items:
        built.text(f"{opening}not known." if opening else "Not known.")
        return
    for item in items:
        built.text(f"{opening}{item}")


def _details(built: Report, details: Mapping[str, Any]) -> None:
    built.heading("Model details")
    built.text(details["overview"] or "Overview: not known.")
    classes = [label_text(label) for label in details["classes"]]
    shown = ", ".join(classes[:MOST_CLASSES]) + (f" and {len(classes) - MOST_CLASSES:,} more" * (len(classes) > 20))
    training = details["training"]
    built.facts(
        {
            "version": details["version"] or "not known",
            "owners": "; ".join(details["owners"]) or "not known",
            "license": details["license"] or "not known",
            "references": "; ".join(details["references"]) or "not known",
            "framework": details["framework"],
            "task": details["task"],
            "target": details["target"],
            **({"classes": shown} if classes else {}),
            "rounds": training["rounds"],
            "hyperparameters": _pairs(training["hyperparameters"]) or "defaults",
            "row weights": training["weight_column"] or "none",
            **({"class weights": _pairs(training["class_weights"])} if training["class_weights"] else {}),
            "seed": training["seed"],
            "versions": _pairs(training["versions"]),
            "SHA-256 of the model's manifest": details["manifest_sha256"],
        }
    )
    built.table(
        ["feature", "kind", "may be missing"],
        [[feature["name"], feature["kind"], feature["may_be_missing"]] for feature in details["features"]],
    )


def _factors(built: Report, factors: Sequence[Mapping[str, Any]]) -> None:
    built.heading("Factors")
    if not factors:
        built.text("No column was given to look at the model by; how it differs between groups is not known.")
        return
    built.table(
        ["column", "slices", "looked at by", ""],
        [
            [
                factor["column"],
                ", ".join(part["value"] for part in factor["slices"]),
                " and ".join(factor["looked_at_by"]),
                factor["note"],
            ]
            for factor in factors
        ],
    )


def _metrics(built: Report, metrics: Mapping[str, Any] | None) -> None:
    built.heading("Metrics")
    if metrics is None:
        built.text("Not known: no evaluation was given.")
        return
    rows = [
        [
            entry["name"],
            entry["value"],
            None if entry["low"] is None else f"{entry['low']:.4g} to {entry['high']:.4g}",
            entry["better"] or None,
            entry["reason"] or entry["about"],
        ]
        for entry in metrics["values"]
        if entry["name"] != "rows"
    ]
    built.table(["metric", "value", f"{metrics['confidence']:.0%} interval", "better", ""], rows)
    if metrics["bootstrap_samples"]:
        built.text(f"Intervals: percentiles of {metrics['bootstrap_samples']:,} bootstrap resamples.")


def _evaluation_data(built: Report, data: Mapping[str, Any]) -> None:
    built.heading("Evaluation data")
    if data["fingerprint"] is None:
        built.text("Not known: no evaluation was given.")
    else:
        built.facts({"rows": data["rows"], "fingerprint": data["fingerprint"]})
        if data["seen_in_training"]:
            built.status(False, "These are the rows that the model was fitted on: the metrics flatter it")
    watched = data["watched_in_training"]
    if watched["rows"] and watched["fingerprint"] == data["fingerprint"]:
        built.text("Training watched the loss on these rows to know when to stop.")
    elif watched["rows"]:
        built.facts(
            {"rows that training watched": watched["rows"], "fingerprint of those": watched["fingerprint"]},
        )


def _training_data(built: Report, data: Mapping[str, Any]) -> None:
    built.heading("Training data")
    built.facts({"rows": data["rows"], "fingerprint": data["fingerprint"]})
    statistics = data["statistics"]
    if statistics is None:
        built.text("What is in them is not known: no statistics were given.")
        return
    if statistics["rows"] != data["rows"]:
        built.status(
            False, f"The statistics are of {statistics['rows']:,} rows, not of those that the model was fitted on"
        )
    numbers = [entry for entry in statistics["features"] if "mean" in entry]
    texts = [entry for entry in statistics["features"] if "top" in entry]
    columns = ("min", "median", "mean", "max", "deviation")
    if numbers:
        built.table(
            ["number", "missing", *columns],
            [[entry["name"], _share(entry["missing"]), *(entry[name] for name in columns)] for entry in numbers],
        )
    if texts:
        built.table(
            ["text", "missing", "distinct", "most frequent"],
            [
                [
                    entry["name"],
                    _share(entry["missing"]),
                    entry["distinct"],
                    ", ".join(f"{part['value']} ({part['rows']:,})" for part in entry["top"]),
                ]
                for entry in texts
            ],
        )


def _analyses(built: Report, found: Mapping[str, Any]) -> None:
    built.heading("Quantitative analyses")
    analyses = found["quantitative_analyses"]
    if analyses["slices"] is None:
        built.text("Metrics by slice: not known, no evaluation was given.")
    elif not analyses["slices"]:
        built.text("Metrics by slice: none were asked for.")
    else:
        names = [entry["name"] for entry in found["metrics"]["values"] if entry["name"] != "rows"][:SLICE_METRICS]
        for column, entry in analyses["slices"].items():
            rows = [
                [part["value"], part["rows"], *(_with_interval(part["metrics"][name]) for name in names)]
                for part in entry["slices"]
            ]
            built.table([column, "rows", *names], rows, f"By {column}")
    if analyses["gate"] and analyses["gate"]["gate"]:
        built.table(
            ["condition of the gate", "holds", "because"],
            [[entry["condition"], entry["holds"], entry["reason"]] for entry in analyses["gate"]["gate"]],
        )
    _explanation(built, analyses["explanation"])


def _explanation(built: Report, explanation: Mapping[str, Any] | None) -> None:
    if explanation is None:
        built.text("What the predictions rest on: not known, no explanation was given.")
        return
    check = explanation["additivity"]
    if not check["holds"]:
        built.status(
            False,
            f"The attributions of {check['failed_rows']:,} rows do not add up to their predictions: "
            "do not rely on them",
        )
    built.figure(
        bars(explanation["features"]),
        f"Mean absolute attribution over {explanation['sample']['rows']:,} of {explanation['dataset']['rows']:,} rows. "
        f"{explanation['method']['about']}",
    )
    if explanation["features_left_out"]:
        built.text(f"{explanation['features_left_out']:,} less important columns are left out.")
    importance = explanation["importance"]
    if importance:
        built.table(
            ["feature", f"loss of {importance['metric']} when permuted", "±"],
            [[entry["name"], entry["mean"], entry["deviation"]] for entry in importance["features"]],
        )


def _with_interval(entry: Mapping[str, Any]) -> str | None:
    if entry["value"] is None:
        return None
    if entry.get("low") is None:
        return f"{entry['value']:.4g}"
    return f"{entry['value']:.4g} ({entry['low']:.4g} to {entry['high']:.4g})"


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.1%}"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in values.items())
