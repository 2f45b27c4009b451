"""What is wrong with data, going by their statistics and a schema: Anomalies, as TFDV writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tensorflow_metadata.proto.v0.anomalies_pb2 import Anomalies, AnomalyInfo, DriftSkewInfo
from tensorflow_metadata.proto.v0.schema_pb2 import DatasetConstraints, Feature, Schema
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatistics, FeatureNameStatistics

from penstock.components.validation import schemas, views
from penstock.components.validation.comparators import compare, compare_sizes
from penstock.components.validation.coverage import Unchecked, unimplemented
from penstock.components.validation.rules import RULES, Finding, repair


@dataclass(frozen=True)
class Baselines:
    """Statistics to compare with; None where there are none."""

    previous: DatasetFeatureStatistics | None = None
    serving: DatasetFeatureStatistics | None = None


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Attributes:
        anomalies: As the proto has them.
        count: Number of demands that are broken.
        unchecked: Demands that were not checked.
    """

    anomalies: Anomalies
    count: int
    unchecked: tuple[Unchecked, ...]


def find(
    statistics: DatasetFeatureStatistics, schema: Schema, environment: str = "", baselines: Baselines | None = None
) -> Verdict:
    """Hold statistics to a schema.

    Args:
        statistics: Of the data.
        schema: Demands.
        environment: Environment of the schema that the data belong to; empty: all features are expected.
        baselines: Statistics for the schema's drift and skew comparators.
    """
    baselines = baselines or Baselines()
    anomalies = Anomalies(anomaly_name_format=Anomalies.SERIALIZED_PATH)
    anomalies.baseline.CopyFrom(schema)
    unchecked = [*unimplemented(schema), *_without_baseline(schema, baselines)]
    count = 0
    if not statistics.num_examples:
        anomalies.data_missing = True
    else:
        seen = views.features(statistics)
        for name in sorted(seen.keys() | {feature.name for feature in schema.feature if feature.name}):
            findings, measured, skipped = _of_feature(name, seen.get(name), schema, environment, baselines)
            unchecked += skipped
            if findings:
                _fill(anomalies.anomaly_info[_serialized(name)], findings, name)
                count += len(findings)
            if measured:
                anomalies.drift_skew_info.append(measured)
    if findings := list(_of_dataset(statistics, schema.dataset_constraints, baselines)):
        _fill(anomalies.dataset_anomaly_info, findings)
        count += len(findings)
    return Verdict(anomalies, count, tuple(sorted(set(unchecked))))


def _fill(info: AnomalyInfo, findings: Sequence[Finding], name: str = "") -> None:
    if name:
        info.path.step.append(name)
    for finding in findings:
        info.reason.add(type=finding.type, short_description=finding.short, description=finding.long)
    info.short_description = findings[0].short if len(findings) == 1 else "Multiple errors"
    info.description = " ".join(finding.long for finding in findings)
    info.severity = AnomalyInfo.ERROR


def _serialized(name: str) -> str:
    """Return a path of one step as TFDV's keys have it: quoted if it could be taken for several."""
    return name if re.fullmatch(r"\([^()]*\)|[^().']+", name) else "'" + name.replace("'", "''") + "'"


def _of_feature(
    name: str, stats: FeatureNameStatistics | None, schema: Schema, environment: str, baselines: Baselines
) -> tuple[list[Finding], DriftSkewInfo | None, list[Unchecked]]:
    feature = next((feature for feature in schema.feature if feature.name == name), None)
    if feature is None:
        return (
            [Finding(AnomalyInfo.SCHEMA_NEW_COLUMN, "New column", "The data have it, the schema does not.")],
            None,
            [],
        )
    if not schemas.is_active(feature):
        return [], None, []
    required = schemas.is_required(feature, schema, environment)
    if stats is None:
        missing = Finding(
            AnomalyInfo.SCHEMA_MISSING_COLUMN, "Column missing", "The schema demands it, the data lack it."
        )
        return [missing] * required, None, []
    whole, findings = repair(feature, schema)
    if whole is None:
        return findings, None, []
    if not views.common(stats).num_non_missing:
        if required:
            short = "Column missing"
            findings.append(Finding(AnomalyInfo.FEATURE_TYPE_NOT_PRESENT, short, "No example has a value for it."))
        return findings, None, []
    if not schemas.is_in_environment(feature, schema, environment):
        long = f"The data have it, but the schema does not have it in the environment {environment}."
        findings.append(Finding(AnomalyInfo.SCHEMA_NEW_COLUMN, "Column not in the environment", long))
    for field, rule in RULES.items():
        if whole.HasField(field):
            findings += rule(whole, stats)
    compared, measured, skipped = _compared(whole, stats, baselines)
    return findings + compared, measured, [*skipped, *_cut_off(whole, stats)]


def _compared(
    feature: Feature, stats: FeatureNameStatistics, baselines: Baselines
) -> tuple[list[Finding], DriftSkewInfo | None, list[Unchecked]]:
    measured, findings, skipped = DriftSkewInfo(), [], []
    measured.path.step.append(feature.name)
    for field, statistics, names, target in (
        ("drift_comparator", baselines.previous, ("current", "previous"), measured.drift_measurements),
        ("skew_comparator", baselines.serving, ("training", "serving"), measured.skew_measurements),
    ):
        if statistics is None or not feature.HasField(field):
            continue
        other = views.features(statistics).get(feature.name)
        comparison = compare(getattr(feature, field), stats, other, names)
        findings += comparison.findings
        target.extend(comparison.measurements)
        skipped += [Unchecked(feature.name, f"{field}.{measure}", reason) for measure, reason in comparison.unchecked]
    some = measured.drift_measurements or measured.skew_measurements
    return findings, measured if some else None, skipped


def _without_baseline(schema: Schema, baselines: Baselines) -> Iterator[Unchecked]:
    for field, argument, given in (
        ("drift_comparator", "previous_statistics", baselines.previous),
        ("skew_comparator", "serving_statistics", baselines.serving),
    ):
        if given is None:
            for feature in schema.feature:
                if feature.HasField(field) and schemas.is_active(feature):
                    yield Unchecked(feature.name, field, f"no {argument} are given")
    if schema.dataset_constraints.HasField("num_examples_drift_comparator") and baselines.previous is None:
        yield Unchecked("", "dataset_constraints.num_examples_drift_comparator", "no previous_statistics are given")


def _cut_off(feature: Feature, stats: FeatureNameStatistics) -> Iterator[Unchecked]:
    domain = feature.WhichOneof("domain_info")
    listed, unique = len(stats.string_stats.rank_histogram.buckets), stats.string_stats.unique
    if stats.HasField("string_stats") and domain and unique > listed:
        yield Unchecked(
            feature.name, domain, f"only its {listed} most frequent values of {unique} were; statistics list no more"
        )


def _of_dataset(
    statistics: DatasetFeatureStatistics, demanded: DatasetConstraints, baselines: Baselines
) -> Iterator[Finding]:
    examples = statistics.num_examples
    if not examples:
        yield Finding(AnomalyInfo.NO_DATA_IN_SPAN, "No examples", "The dataset has no rows.")
    if baselines.previous is not None and demanded.HasField("num_examples_drift_comparator") and examples:
        yield from compare_sizes(demanded.num_examples_drift_comparator, examples, baselines.previous.num_examples)
    if demanded.HasField("min_examples_count") and examples < demanded.min_examples_count:
        long = f"{examples} examples, fewer than {demanded.min_examples_count}."
        yield Finding(AnomalyInfo.DATASET_LOW_NUM_EXAMPLES, "Too few examples", long)
    if demanded.HasField("max_examples_count") and examples > demanded.max_examples_count:
        long = f"{examples} examples, more than {demanded.max_examples_count}."
        yield Finding(AnomalyInfo.DATASET_HIGH_NUM_EXAMPLES, "Too many examples", long)
