"""Distances between two distributions, as TFDV measures drift and skew.

L-infinity and the normalized absolute difference compare value frequencies; the Jensen-Shannon divergence (Lin 1991,
"Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37, base 2, so from 0 to 1) compares value
frequencies or histograms.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from tensorflow_metadata.proto.v0 import statistics_pb2


def l_infinity(a: Mapping[str, float], b: Mapping[str, float]) -> tuple[str, float]:
    """Return the value whose share differs most between two sets of frequencies, and by how much (0 to 1)."""
    total_a, total_b = sum(a.values()) or 1.0, sum(b.values()) or 1.0
    return _largest(
        (value, abs(a.get(value, 0) / total_a - b.get(value, 0) / total_b)) for value in a.keys() | b.keys()
    )


def normalized_absolute_difference(a: Mapping[str, float], b: Mapping[str, float]) -> tuple[str, float]:
    """Return the value whose count differs most, and by how much as a share of all counts together (0 to 1)."""
    total = sum(a.values()) + sum(b.values()) or 1.0
    return _largest((value, abs(a.get(value, 0) - b.get(value, 0)) / total) for value in a.keys() | b.keys())


def _largest(differences: Iterable[tuple[str, float]]) -> tuple[str, float]:
    return max(differences, key=lambda pair: (pair[1], pair[0]), default=("", 0.0))


def jensen_shannon(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Return the Jensen-Shannon divergence of two sets of frequencies."""
    values = sorted(a.keys() | b.keys())
    return _divergence([a.get(value, 0.0) for value in values], [b.get(value, 0.0) for value in values])


def jensen_shannon_of_histograms(a: statistics_pb2.Histogram, b: statistics_pb2.Histogram) -> float | None:
    """Return the approximate Jensen-Shannon divergence of two histograms, None where one of them is empty.

    Both are cut at all edges of either, values spread evenly within a bucket. A bucket without width or with an
    infinite edge is compared with its equal only, and so is NaN.
    """
    edges = sorted({edge for histogram in (a, b) for low, high, _ in _wide(histogram) for edge in (low, high)})
    lone = sorted(_lone(a).keys() | _lone(b).keys())
    first, second = (
        [*_spread(histogram, edges), *(_lone(histogram).get(place, 0.0) for place in lone), float(histogram.num_nan)]
        for histogram in (a, b)
    )
    if not sum(first) or not sum(second):
        return None
    return _divergence(first, second)


def _divergence(a: Sequence[float], b: Sequence[float]) -> float:
    total_a, total_b = sum(a), sum(b)
    if not total_a or not total_b:
        return 0.0
    divergence = 0.0
    for p, q in zip((x / total_a for x in a), (x / total_b for x in b), strict=True):
        middle = (p + q) / 2
        divergence += sum(share * math.log2(share / middle) for share in (p, q) if share and middle)
    return min(max(divergence / 2, 0.0), 1.0)


def _is_wide(bucket: statistics_pb2.Histogram.Bucket) -> bool:
    return math.isfinite(bucket.low_value) and math.isfinite(bucket.high_value) and bucket.low_value < bucket.high_value


def _wide(histogram: statistics_pb2.Histogram) -> list[tuple[float, float, float]]:
    return [(b.low_value, b.high_value, b.sample_count) for b in histogram.buckets if _is_wide(b)]


def _lone(histogram: statistics_pb2.Histogram) -> dict[tuple[float, float], float]:
    counts: dict[tuple[float, float], float] = {}
    for bucket in histogram.buckets:
        if not _is_wide(bucket):
            place = (bucket.low_value, bucket.high_value)
            counts[place] = counts.get(place, 0.0) + bucket.sample_count
    return counts


def _spread(histogram: statistics_pb2.Histogram, edges: Sequence[float]) -> list[float]:
    counts = dict.fromkeys(itertools.pairwise(edges), 0.0)
    for low, high, count in _wide(histogram):
        for piece in counts:
            if low <= piece[0] and piece[1] <= high:
                counts[piece] += count * ((piece[1] - piece[0]) / (high - low))
    return list(counts.values())
