"""Drift and skew: a feature's distribution beside that of other statistics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_metadata.proto.v0.anomalies_pb2 import AnomalyInfo, DriftSkewInfo
from tensorflow_metadata.proto.v0.schema_pb2 import FeatureComparator
from tensorflow_metadata.proto.v0.statistics_pb2 import FeatureNameStatistics, Histogram

from penstock.components._shared import distances
from penstock.components.validation import views
from penstock.components.validation.malformed import Finding

_HISTOGRAMS = {
    schema_pb2.HistogramSelection.DEFAULT: Histogram.STANDARD,
    schema_pb2.HistogramSelection.STANDARD: Histogram.STANDARD,
    schema_pb2.HistogramSelection.QUANTILES: Histogram.QUANTILES,
}


@dataclass
class Comparison:
    """What comparing came to.

    Attributes:
        findings: Distances above their thresholds.
        measurements: All distances that were measured.
        unchecked: Field and reason of the thresholds that could not be checked.
    """

    findings: list[Finding] = field(default_factory=list)
    measurements: list[DriftSkewInfo.Measurement] = field(default_factory=list)
    unchecked: list[tuple[str, str]] = field(default_factory=list)


def compare(
    comparator: FeatureComparator,
    current: FeatureNameStatistics,
    other: FeatureNameStatistics | None,
    names: tuple[str, str],
) -> Comparison:
    """Measure what a comparator asks for.

    Args:
        comparator: Thresholds, each above 0 and at most 1 to make sense.
        current: Statistics of the data at hand.
        other: Statistics of the same feature in the other data, None if they lack it.
        names: What to call the two, for example ("current", "previous").
    """
    result = Comparison()
    asked = [measure for measure in _MEASURES if getattr(comparator, measure).HasField("threshold")]
    if asked and other is None:
        kind = AnomalyInfo.COMPARATOR_CONTROL_DATA_MISSING
        result.findings.append(Finding(kind, f"No {names[1]} data", f"The {names[1]} statistics lack the feature."))
        return result
    assert other is not None or not asked
    for measure in asked:
        measured = _MEASURES[measure](comparator, current, other)
        if isinstance(measured, str):
            result.unchecked.append((measure, measured))
            continue
        distance, largest = measured
        threshold = getattr(comparator, measure).threshold
        kind, anomaly, label = _KINDS[measure]
        result.measurements.append(DriftSkewInfo.Measurement(type=kind, value=distance, threshold=threshold))
        if distance > threshold:
            result.findings.append(
                Finding(
                    anomaly,
                    f"High {label} between {names[0]} and {names[1]}",
                    f"The {label} between {names[0]} and {names[1]} data is {distance:.6g}, above {threshold:.6g}"
                    + (f"; {largest!r} differs most." if largest is not None else "."),
                )
            )
    return result


def divergence(a: FeatureNameStatistics, b: FeatureNameStatistics, kind: int = Histogram.STANDARD) -> float | None:
    """Return the Jensen-Shannon divergence of a feature between two statistics, None where they cannot be compared."""
    numeric = a.HasField("num_stats") and b.HasField("num_stats")
    if numeric:
        first, second = views.histogram(a, kind), views.histogram(b, kind)
        return distances.jensen_shannon_of_histograms(first, second) if first and second else None
    counts = views.frequencies(a), views.frequencies(b)
    return distances.jensen_shannon(*counts) if all(counts) else None


def _jensen_shannon(
    comparator: FeatureComparator, a: FeatureNameStatistics, b: FeatureNameStatistics
) -> tuple[float, None] | str:
    source = comparator.jensen_shannon_divergence.source.type
    distance = divergence(a, b, _HISTOGRAMS[source])
    return "the two statistics hold no distributions of the same kind" if distance is None else (distance, None)


def _l_infinity(
    comparator: FeatureComparator, a: FeatureNameStatistics, b: FeatureNameStatistics
) -> tuple[float, str] | str:
    counts = views.frequencies(a), views.frequencies(b)
    if not all(counts):
        return _NO_FREQUENCIES
    largest, distance = distances.l_infinity(*counts)
    return distance, largest


def _absolute(
    comparator: FeatureComparator, a: FeatureNameStatistics, b: FeatureNameStatistics
) -> tuple[float, str] | str:
    counts = views.frequencies(a), views.frequencies(b)
    if not all(counts):
        return _NO_FREQUENCIES
    largest, distance = distances.normalized_absolute_difference(*counts)
    return distance, largest


_NO_FREQUENCIES = (
    "it needs the frequencies of values, which statistics of numbers do not hold; "
    "use jensen_shannon_divergence, or mark the domain is_categorical"
)
_MEASURES = {
    "infinity_norm": _l_infinity,
    "jensen_shannon_divergence": _jensen_shannon,
    "normalized_abs_difference": _absolute,
}
_KINDS = {
    "infinity_norm": (DriftSkewInfo.Measurement.L_INFTY, AnomalyInfo.COMPARATOR_L_INFTY_HIGH, "L-infinity distance"),
    "jensen_shannon_divergence": (
        DriftSkewInfo.Measurement.JENSEN_SHANNON_DIVERGENCE,
        AnomalyInfo.COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH,
        "Jensen-Shannon divergence",
    ),
    "normalized_abs_difference": (
        DriftSkewInfo.Measurement.NORMALIZED_ABSOLUTE_DIFFERENCE,
        AnomalyInfo.COMPARATOR_NORMALIZED_ABSOLUTE_DIFFERENCE_HIGH,
        "normalized absolute difference",
    ),
}


def compare_sizes(comparator: schema_pb2.NumericValueComparator, examples: int, previous: int) -> Iterator[Finding]:
    """Yield what is wrong with the number of examples beside that of the previous data."""
    ratio = examples / previous if previous else float("inf")
    compared = f"{examples} examples after {previous}: a ratio of {ratio:.6g}"
    if comparator.HasField("max_fraction_threshold") and ratio > comparator.max_fraction_threshold:
        limit = comparator.max_fraction_threshold
        yield Finding(
            AnomalyInfo.COMPARATOR_HIGH_NUM_EXAMPLES,
            "Many more examples than before",
            f"{compared}, above {limit:.6g}.",
        )
    if comparator.HasField("min_fraction_threshold") and ratio < comparator.min_fraction_threshold:
        limit = comparator.min_fraction_threshold
        yield Finding(
            AnomalyInfo.COMPARATOR_LOW_NUM_EXAMPLES, "Far fewer examples than before", f"{compared}, below {limit:.6g}."
        )
