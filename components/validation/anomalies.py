"""What is wrong with data, going by their statistics and a schema: Anomalies, as TFDV writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tensorflow_metadata.proto.v0.anomalies_pb2 import Anomalies, AnomalyInfo, DriftSkewInfo
from tensorflow_metadata.proto.v0.schema_pb2 import DatasetConstraints, Feature, Schema
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatistics, FeatureNameStatistics

from penstock.components.validation import schemas, views
from penstock.components.validation.comparators import compare, compare_sizes
from penstock.components.validation.coverage import Unchecked, unimplemented
from penstock.components.validation.malformed import Finding, repair
from penstock.components.validation.rules import RULES


@dataclass(frozen=True)
class Baselines:
    """Statistics to compare with; None where there are none."""

    previous: DatasetFeatureStatistics | None = None
    serving: DatasetFeatureStatistics | None = None

    @cached_property
    def features(self) -> dict[str, dict[str, FeatureNameStatistics] | None]:
        """The features of each by name, under the comparator that is for it."""
        given = {"drift_comparator": self.previous, "skew_comparator": self.serving}
        return {field: None if other is None else views.features(other) for field, other in given.items()}


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


@dataclass
class _Found:
    """What was found of one feature."""

    findings: list[Finding] = field(default_factory=list)
    measured: DriftSkewInfo = field(default_factory=DriftSkewInfo)
    unchecked: list[Unchecked] = field(default_factory=list)


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
        demanded = {feature.name: feature for feature in reversed(schema.feature) if feature.name}
        for name in sorted(seen.keys() | demanded.keys()):
            found = _of_feature(demanded.get(name), seen.get(name), schema, environment, baselines)
            unchecked += found.unchecked
            if found.findings:
                _fill(anomalies.anomaly_info[_serialized(name)], found.findings, name)
                count += len(found.findings)
            if found.measured.ListFields():
                found.measured.path.step.append(name)
                anomalies.drift_skew_info.append(found.measured)
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
    feature: Feature | None, stats: FeatureNameStatistics | None, schema: Schema, environment: str, baselines: Baselines
) -> _Found:
    if feature is None:
        return _Found([Finding(AnomalyInfo.SCHEMA_NEW_COLUMN, "New column", "The data have it, the schema does not.")])
    if not schemas.is_active(feature):
        return _Found()
    required = schemas.is_required(feature, schema, environment)
    if stats is None:
        long = "The schema demands it, the data lack it."
        return _Found([Finding(AnomalyInfo.SCHEMA_MISSING_COLUMN, "Column missing", long)] * required)
    whole, findings = repair(feature, schema)
    found = _Found(findings)
    if whole is None:
        return found
    if not views.common(stats).num_non_missing:
        long = "No example has a value for it."
        found.findings += [Finding(AnomalyInfo.FEATURE_TYPE_NOT_PRESENT, "Column missing", long)] * required
        return found
    if not schemas.is_in_environment(feature, schema, environment):
        long = f"The data have it, but the schema does not have it in the environment {environment}."
        found.findings.append(Finding(AnomalyInfo.SCHEMA_NEW_COLUMN, "Column not in the environment", long))
    for name, rule in RULES.items():
        if whole.HasField(name):
            found.findings += rule(whole, stats)
    _compare(whole, stats, baselines, found)
    found.unchecked += _cut_off(whole, stats)
    return found


def _compare(feature: Feature, stats: FeatureNameStatistics, baselines: Baselines, found: _Found) -> None:
    for comparator, names, measurements in (
        ("drift_comparator", ("current", "previous"), found.measured.drift_measurements),
        ("skew_comparator", ("training", "serving"), found.measured.skew_measurements),
    ):
        others = baselines.features[comparator]
        if others is None or not feature.HasField(comparator):
            continue
        comparison = compare(getattr(feature, comparator), stats, others.get(feature.name), names)
        found.findings += comparison.findings
        measurements.extend(comparison.measurements)
        for measure, reason in comparison.unchecked:
            found.unchecked.append(Unchecked(feature.name, f"{comparator}.{measure}", reason))


def _without_baseline(schema: Schema, baselines: Baselines) -> Iterator[Unchecked]:
    for comparator, argument in (
        ("drift_comparator", "previous_statistics"),
        ("skew_comparator", "serving_statistics"),
    ):
        if baselines.features[comparator] is None:
            for feature in schema.feature:
                if feature.HasField(comparator) and schemas.is_active(feature):
                    yield Unchecked(feature.name, comparator, f"no {argument} are given")
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
