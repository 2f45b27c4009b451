"""What a feature's statistics say, whoever wrote them and whichever message holds it."""

from __future__ import annotations

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

_Stats = statistics_pb2.FeatureNameStatistics

FEATURE_TYPES = {
    _Stats.INT: schema_pb2.INT,
    _Stats.FLOAT: schema_pb2.FLOAT,
    _Stats.STRING: schema_pb2.BYTES,
    _Stats.BYTES: schema_pb2.BYTES,
    _Stats.STRUCT: schema_pb2.STRUCT,
}


def name(stats: statistics_pb2.FeatureNameStatistics) -> str:
    """Return the feature's name."""
    return ".".join(stats.path.step) if stats.HasField("path") else stats.name


def features(
    dataset: statistics_pb2.DatasetFeatureStatistics,
) -> dict[str, statistics_pb2.FeatureNameStatistics]:
    """Return statistics by feature name; features that have none are left out."""
    return {name(stats): stats for stats in dataset.features if stats.WhichOneof("stats")}


def common(stats: statistics_pb2.FeatureNameStatistics) -> statistics_pb2.CommonStatistics:
    """Return the statistics that every type has."""
    message: statistics_pb2.CommonStatistics = getattr(stats, stats.WhichOneof("stats")).common_stats
    return message


def total(stats: statistics_pb2.FeatureNameStatistics) -> float:
    """Return the number of values in all rows."""
    facts = common(stats)
    return facts.tot_num_values or facts.num_non_missing * facts.avg_num_values


def nans(stats: statistics_pb2.FeatureNameStatistics) -> int:
    """Return the number of NaN values."""
    return max((histogram.num_nan for histogram in stats.num_stats.histograms), default=0)


def frequencies(stats: statistics_pb2.FeatureNameStatistics) -> dict[str, float]:
    """Return how often each value occurs, of the values that the statistics list.

    Numbers are listed only as far as they follow from the moments: where all are 0 or 1.
    """
    if stats.HasField("string_stats"):
        return {bucket.label: bucket.sample_count for bucket in stats.string_stats.rank_histogram.buckets}
    numbers = stats.num_stats
    values = total(stats)
    if stats.type != _Stats.INT or not stats.HasField("num_stats") or not values:
        return {}
    if not (0 <= numbers.min <= numbers.max <= 1):
        return {}
    counts = {"0": float(numbers.num_zeros), "1": values - numbers.num_zeros}
    return {value: count for value, count in counts.items() if count}


def histogram(
    stats: statistics_pb2.FeatureNameStatistics, kind: int = statistics_pb2.Histogram.STANDARD
) -> statistics_pb2.Histogram | None:
    """Return the histogram of a kind, STANDARD or QUANTILES, if there is one."""
    return next((found for found in stats.num_stats.histograms if found.type == kind), None)
