"""The report: anomalies first, then what was not checked, the schema, and what the features look like."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_metadata.proto.v0.schema_pb2 import Feature, Schema
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatistics, FeatureNameStatistics, Histogram

from penstock.components._shared import distances
from penstock.components._shared.dataset import Dataset
from penstock.components._shared.report import COLORS, Report, new_figure
from penstock.components.validation import views
from penstock.components.validation.anomalies import Baselines, Verdict
from penstock.components.validation.comparators import divergence

DRAWN_FEATURES = 48
DRAWN_VALUES = 8
_COLUMNS = 4
_TIMES = {"timestamp": 1.0, "date": 86_400e6, "time": 1.0}  # microseconds in one unit of the statistics


def write(
    path: str | os.PathLike[str],
    dataset: Dataset,
    statistics: DatasetFeatureStatistics,
    schema: Schema,
    verdict: Verdict,
    baselines: Baselines,
    schema_origin: str,
    environment: str,
) -> None:
    """Write the report of a validation as one HTML page.

    Args:
        path: File to write.
        dataset: Rows that were described.
        statistics: Their description.
        schema: What they were held to.
        verdict: What came of it.
        baselines: Statistics that they were compared with.
        schema_origin: Where the schema is from, for the reader.
        environment: Environment of the schema; may be empty.
    """
    page = Report("Validation", f"{dataset.rows:,} rows × {len(dataset.schema)} columns")
    count, skipped = verdict.count, len(verdict.unchecked)
    page.status(not count, f"{count} {_plural(count, 'anomaly', 'anomalies')}" if count else "No anomalies")
    if skipped:
        page.status(False, f"{skipped} {_plural(skipped, 'demand', 'demands')} of the schema not checked")
    facts = {"rows": dataset.rows, "fingerprint": dataset.fingerprint, "schema": schema_origin}
    page.facts(facts | ({"environment": environment} if environment else {}))
    _anomalies(page, verdict)
    if skipped:
        page.heading("Not checked")
        page.table(
            ["feature", "rule", "reason"],
            [[item.feature or None, item.rule, item.reason] for item in verdict.unchecked],
        )
    page.heading("Schema")
    columns = ["feature", "type", "presence", "values", "domain", "further demands"]
    page.table(columns, [_schema_row(feature, schema) for feature in schema.feature])
    _features(page, dataset, statistics)
    for name, other in (("previous", baselines.previous), ("serving", baselines.serving)):
        if other is not None:
            _comparison(page, name, statistics, other, verdict)
    _plots(page, statistics, baselines.previous or baselines.serving)
    page.write(path)


def _plural(count: int, one: str, many: str) -> str:
    return one if count == 1 else many


def _anomalies(page: Report, verdict: Verdict) -> None:
    anomalies = verdict.anomalies
    infos = [(name, anomalies.anomaly_info[name]) for name in sorted(anomalies.anomaly_info)]
    if anomalies.HasField("dataset_anomaly_info"):
        infos.insert(0, ("(dataset)", anomalies.dataset_anomaly_info))
    if not infos:
        return
    page.heading("Anomalies")
    page.table(
        ["feature", "what", "in detail", "type"],
        [
            [name, reason.short_description, reason.description, type(info).Type.Name(reason.type)]
            for name, info in infos
            for reason in info.reason
        ],
    )


def _schema_row(feature: Feature, schema: Schema) -> list[Any]:
    presence = []
    if feature.presence.min_fraction:
        presence.append("always" if feature.presence.min_fraction == 1 else f"≥ {feature.presence.min_fraction:.4g}")
    if feature.presence.min_count > 1:
        presence.append(f"≥ {feature.presence.min_count:,} rows")
    return [
        feature.name,
        schema_pb2.FeatureType.Name(feature.type),
        ", ".join(presence) or None,
        _values_demanded(feature),
        _domain(feature, schema),
        _more(feature),
    ]


def _values_demanded(feature: Feature) -> str | None:
    if feature.HasField("shape"):
        return " × ".join(str(dim.size) for dim in feature.shape.dim) or "1"
    if feature.HasField("value_count"):
        low, high = feature.value_count.min, feature.value_count.max
        return f"{low} to {high}" if high > low else f"{low}" if high else f"≥ {low}"
    return None


def _domain(feature: Feature, schema: Schema) -> str | None:
    which = feature.WhichOneof("domain_info")
    if which in ("domain", "string_domain"):
        named = {domain.name: domain.value for domain in schema.string_domain}
        values = named.get(feature.domain, []) if which == "domain" else feature.string_domain.value
        shown = ", ".join(values[:10]) + (", …" if len(values) > 10 else "")
        return f"{len(values)} strings: {shown}"
    if which in ("int_domain", "float_domain"):
        domain = getattr(feature, which)
        low = f"{domain.min:.10g}" if domain.HasField("min") else ""
        high = f"{domain.max:.10g}" if domain.HasField("max") else ""
        return which.removesuffix("_domain") + (f" {low} … {high}" if low or high else "")
    if which == "bool_domain" and feature.type == schema_pb2.BYTES:
        return f"bool: {feature.bool_domain.true_value} / {feature.bool_domain.false_value}"
    return which.removesuffix("_domain") if which else None


def _more(feature: Feature) -> str | None:
    told = {"name", "type", "presence", "shape", "value_count", "annotation", feature.WhichOneof("domain_info")}
    return ", ".join(field.name for field, _ in feature.ListFields() if field.name not in told) or None


def _features(page: Report, dataset: Dataset, statistics: DatasetFeatureStatistics) -> None:
    page.heading("Features")
    numbers: list[list[Any]] = []
    times: list[list[Any]] = []
    strings: list[list[Any]] = []
    for name, stats in views.features(statistics).items():
        start = [name, FeatureNameStatistics.Type.Name(stats.type), _share_missing(stats)]
        present, facts = views.common(stats).num_non_missing > 0, stats.num_stats
        if stats.HasField("string_stats"):
            words = stats.string_stats
            frequent = ", ".join(f"{top.value} ({top.frequency:,.0f})" for top in words.top_values[:3])
            strings.append([*start, words.unique, words.avg_length, frequent or None])
        elif clock := _clock(dataset.schema.get(name, "")):
            moments = (facts.min, facts.median, facts.max)
            times.append([*start, *(clock(moment) if present else None for moment in moments)])
        else:
            nans = views.nans(stats)
            cells = [facts.mean, facts.std_dev, facts.num_zeros, facts.min, facts.median, facts.max]
            numbers.append([*start, nans or None, *(cells if nans < views.total(stats) else [None] * len(cells))])
    start = ["feature", "type", "missing %"]
    for caption, columns, rows in (
        ("Numbers", [*start, "NaN", "mean", "std", "zeros", "min", "median", "max"], numbers),
        ("Times", [*start, "min", "median", "max"], times),
        ("Strings and categorical numbers", [*start, "distinct", "mean bytes", "most frequent"], strings),
    ):
        if rows:
            page.table(columns, rows, caption=caption)


def _clock(arrow_type: str) -> Callable[[float], str] | None:
    """Return how to show a number that stands for a time, None for other numbers."""
    unit = next((scale for prefix, scale in _TIMES.items() if arrow_type.startswith(prefix)), None)
    if unit is None:
        return None

    def shown(number: float) -> str:
        try:
            moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=number * unit)
        except (OverflowError, ValueError):
            return f"{number:.6g}"
        if arrow_type.startswith("date"):
            return moment.date().isoformat()
        return moment.isoformat(" ", "seconds") if arrow_type.startswith("timestamp") else moment.time().isoformat()

    return shown


def _comparison(
    page: Report, name: str, current: DatasetFeatureStatistics, other: DatasetFeatureStatistics, verdict: Verdict
) -> None:
    page.heading(f"Beside the {name} data")
    page.text(
        f"{current.num_examples:,} rows here, {other.num_examples:,} there. The Jensen-Shannon divergence and the "
        "L-infinity distance run from 0 (alike) to 1; only thresholds in the schema make anomalies of them. "
        "The divergence goes by equally wide buckets, which one outlier can stretch, unless the schema says QUANTILES."
    )
    here, there = views.features(current), views.features(other)
    rows: list[list[Any]] = []
    for feature in sorted(here.keys() & there.keys()):
        a, b = here[feature], there[feature]
        counts = views.frequencies(a), views.frequencies(b)
        rows.append(
            [
                feature,
                divergence(a, b),
                divergence(a, b, Histogram.QUANTILES) if a.HasField("num_stats") else None,
                distances.l_infinity(*counts)[1] if all(counts) else None,
                _share_missing(a),
                _share_missing(b),
                *(_mean(stats) for stats in (a, b)),
            ]
        )
    rows.sort(key=lambda row: -(row[1] or 0))
    page.table(
        [
            "feature",
            "Jensen-Shannon",
            "by quantiles",
            "L-infinity",
            "missing % here",
            "there",
            "mean here",
            "mean there",
        ],
        rows,
    )
    if lone := sorted(here.keys() ^ there.keys()):
        page.text(f"In one of the two only: {', '.join(lone)}.")


def _share_missing(stats: FeatureNameStatistics) -> float | None:
    common = views.common(stats)
    rows = common.num_missing + common.num_non_missing
    return 100 * common.num_missing / rows if rows else None


def _mean(stats: FeatureNameStatistics) -> float | None:
    number: float = stats.num_stats.mean
    return number if stats.HasField("num_stats") and views.common(stats).num_non_missing else None


def _plots(page: Report, statistics: DatasetFeatureStatistics, other: DatasetFeatureStatistics | None) -> None:
    seen = views.features(statistics)
    beside = views.features(other) if other is not None else {}
    for title, is_of, draw in (
        ("Distributions of numbers", "num_stats", _draw_histogram),
        ("Most frequent values", "string_stats", _draw_values),
    ):
        shown = [(name, stats) for name, stats in seen.items() if stats.HasField(is_of) and views.total(stats)]
        if shown:
            page.heading(title)
            left = len(shown) - DRAWN_FEATURES
            more = f" {left} more features are in the table only." if left > 0 else ""
            basis = " The line is the data compared with." if beside and is_of == "num_stats" else ""
            page.figure(_grid(shown[:DRAWN_FEATURES], beside, draw), caption=f"Share of the values.{basis}{more}")


def _grid(
    shown: Sequence[tuple[str, FeatureNameStatistics]],
    beside: dict[str, FeatureNameStatistics],
    draw: Callable[[Axes, FeatureNameStatistics, FeatureNameStatistics | None], None],
) -> Any:
    """Return small multiples, placed by hand: laying out dozens of axes is what takes Matplotlib its time."""
    rows = math.ceil(len(shown) / _COLUMNS)
    height = 1.5
    figure = new_figure(width=10.5, height=rows * height)
    figure.set_layout_engine("none")
    for i, (name, stats) in enumerate(shown):
        row, column = divmod(i, _COLUMNS)
        axes = figure.add_axes(
            ((column + 0.08) / _COLUMNS, 1 - (row + 0.80) / rows, 0.84 / _COLUMNS, 0.58 / rows), yticks=[]
        )
        axes.set_title(name if len(name) <= 30 else name[:29] + "…", fontsize=8, loc="left", parse_math=False)
        axes.tick_params(labelsize=6.5, length=2)
        axes.grid(False)
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes, stats, beside.get(name))
    return figure


def _draw_histogram(axes: Axes, stats: FeatureNameStatistics, other: FeatureNameStatistics | None) -> None:
    for which, shown in ((stats, True), (other, False)):
        histogram = views.histogram(which) if which is not None else None
        buckets = [
            bucket
            for bucket in (histogram.buckets if histogram else [])
            if math.isfinite(bucket.low_value) and math.isfinite(bucket.high_value)
        ]
        total = sum(bucket.sample_count for bucket in buckets)
        if not total:
            continue
        lows, highs = [b.low_value for b in buckets], [b.high_value for b in buckets]
        if lows[0] == highs[-1]:
            lows, highs = [lows[0] - 0.5], [highs[0] + 0.5]
        heights = [bucket.sample_count / total for bucket in buckets]
        if shown:
            axes.bar(
                lows,
                heights,
                [high - low for low, high in zip(lows, highs, strict=True)],
                align="edge",
                color=COLORS[0],
            )
        else:
            axes.stairs(heights, [*lows, highs[-1]], color=COLORS[1], linewidth=1)
    axes.locator_params(axis="x", nbins=4)
    axes.ticklabel_format(axis="x", scilimits=(-3, 5))
    axes.xaxis.get_offset_text().set_fontsize(6)


def _draw_values(axes: Axes, stats: FeatureNameStatistics, other: FeatureNameStatistics | None) -> None:
    total = views.total(stats)
    top = stats.string_stats.top_values[:DRAWN_VALUES]
    axes.bar(range(len(top)), [value.frequency / total for value in top], color=COLORS[0])
    labels = [value.value if len(value.value) <= 8 else value.value[:7] + "…" for value in top]
    axes.set_xticks(range(len(top)), labels, parse_math=False)
