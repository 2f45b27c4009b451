"""A dataset's description as DatasetFeatureStatisticsList, the message that TFDV writes and reads."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from penstock.components._shared.dataset import Dataset
from penstock.components._shared.messages import ALL_EXAMPLES
from penstock.components.validation.numeric import BUCKETS, Buckets, Extremes, Numbers
from penstock.components.validation.scan import Described, Valency, Values, scan

TOP_VALUES = 20
NOT_UTF8 = "__BYTES_VALUE__"  # what TFDV shows in place of a value that is not text


def describe(dataset: Dataset, schema: schema_pb2.Schema | None = None) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Return the statistics of a dataset, as TFDV computes them with its default options.

    Args:
        dataset: Rows.
        schema: Says which numbers are categorical, and which times are text. None: neither.

    Raises:
        UserError: A column is of a type that cannot be described.
    """
    statistics = statistics_pb2.DatasetFeatureStatisticsList()
    whole = statistics.datasets.add(name=ALL_EXAMPLES, num_examples=dataset.rows)
    for described in scan(dataset, schema):
        feature = whole.features.add(type=described.column.type)
        feature.path.step.append(described.column.name)
        if described.numbers:
            _fill_numbers(feature.num_stats, described.numbers)
            common = feature.num_stats.common_stats
        else:
            assert described.values is not None
            _fill_values(feature.string_stats, described.values)
            common = feature.string_stats.common_stats
        _fill_common(common, described)
    return statistics


def _fill_common(common: statistics_pb2.CommonStatistics, described: Described) -> None:
    valency = described.valency
    common.num_non_missing = valency.present
    common.num_missing = valency.missing
    if not valency.present:
        return
    common.min_num_values = min(valency.lengths)
    common.max_num_values = max(valency.lengths)
    common.tot_num_values = sum(length * rows for length, rows in valency.lengths.items())
    common.avg_num_values = common.tot_num_values / valency.present
    common.num_values_histogram.CopyFrom(_lengths(valency))


def _lengths(valency: Valency) -> statistics_pb2.Histogram:
    lengths = sorted(valency.lengths)
    running = itertools.accumulate(valency.lengths[length] for length in lengths)
    below: dict[float, int] = dict(zip(lengths, running, strict=True))
    wanted = (valency.present * i for i in range(1, BUCKETS + 1))
    points = [lengths[0], *(next(length for length in lengths if BUCKETS * below[length] >= rank) for rank in wanted)]
    return quantiles(points, below)


def _fill_numbers(stats: statistics_pb2.NumericStatistics, numbers: Numbers) -> None:
    extremes = numbers.extremes
    if numbers.moments and numbers.cuts and numbers.buckets:
        stats.mean, stats.std_dev, stats.median = numbers.moments.mean, numbers.moments.deviation, numbers.cuts.median
        stats.min, stats.max, stats.num_zeros = extremes.minimum, extremes.maximum, extremes.zeros
        histograms = [_standard(extremes, numbers.buckets), quantiles(numbers.cuts.points, numbers.buckets.below)]
    else:  # nothing, or nothing but NaN
        kinds = (statistics_pb2.Histogram.STANDARD, statistics_pb2.Histogram.QUANTILES)
        histograms = [statistics_pb2.Histogram(type=kind) for kind in kinds if extremes.nans]
    for histogram in histograms:
        histogram.num_nan = extremes.nans
        stats.histograms.append(histogram)


def _standard(extremes: Extremes, buckets: Buckets) -> statistics_pb2.Histogram:
    histogram = statistics_pb2.Histogram(type=statistics_pb2.Histogram.STANDARD)
    if extremes.negative_infinities:
        low = float("-inf")
        histogram.buckets.add(low_value=low, high_value=low, sample_count=extremes.negative_infinities)
    if buckets.edges:
        for (low, high), count in zip(itertools.pairwise(buckets.edges), buckets.counts, strict=True):
            histogram.buckets.add(low_value=low, high_value=high, sample_count=count)
    if extremes.positive_infinities:
        high = float("inf")
        histogram.buckets.add(low_value=high, high_value=high, sample_count=extremes.positive_infinities)
    return histogram


def quantiles(points: Sequence[float], below: Mapping[float, int]) -> statistics_pb2.Histogram:
    """Return the histogram between cut points; buckets that end at the same point share its values evenly, as in TFDV.

    Args:
        points: Cut points, ascending, repeated where one value fills several buckets.
        below: Number of values at or below each cut point.
    """
    histogram = statistics_pb2.Histogram(type=statistics_pb2.Histogram.QUANTILES)
    before = 0
    intervals = list(itertools.pairwise(points))
    for high, group in itertools.groupby(intervals, key=lambda interval: interval[1]):
        sharing = list(group)
        for low, _ in sharing:
            histogram.buckets.add(low_value=low, high_value=high, sample_count=(below[high] - before) / len(sharing))
        before = below[high]
    return histogram


def _fill_values(stats: statistics_pb2.StringStatistics, values: Values) -> None:
    stats.unique = values.unique
    stats.avg_length = values.length
    stats.invalid_utf8_count = values.invalid
    for rank, (value, count) in enumerate(values.ranked):
        label = _text(value)
        if rank < TOP_VALUES:
            stats.top_values.add(value=label, frequency=count)
        stats.rank_histogram.buckets.add(low_rank=rank, high_rank=rank, label=label, sample_count=count)


def _text(value: str | bytes) -> str:
    if isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return NOT_UTF8
