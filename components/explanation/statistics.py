"""What the statistics of a dataset say of its columns, in a few numbers each."""

from __future__ import annotations

import os
from typing import Any

from tensorflow_metadata.proto.v0 import statistics_pb2

from penstock.components._shared.messages import read_statistics
from penstock.components.explanation.document import plain

TOP_VALUES = 5


def describe(path: str | os.PathLike[str], component: str, argument: str) -> dict[str, Any]:
    """Return rows and columns that a DatasetFeatureStatisticsList describes.

    Raises:
        UserError: It is not there, holds no statistics, or those of slices only.
    """
    whole = read_statistics(path, component, argument)
    features = [_feature(stats) for stats in whole.features if stats.WhichOneof("stats")]
    return {"rows": int(whole.num_examples), "features": features}


def _feature(stats: statistics_pb2.FeatureNameStatistics) -> dict[str, Any]:
    kind = stats.WhichOneof("stats")
    common = getattr(stats, kind).common_stats
    rows = common.num_non_missing + common.num_missing
    found: dict[str, Any] = {
        "name": ".".join(stats.path.step) if stats.HasField("path") else stats.name,
        "type": statistics_pb2.FeatureNameStatistics.Type.Name(stats.type),
        "missing": common.num_missing / rows if rows else None,
    }
    if kind == "num_stats":
        numbers = stats.num_stats
        nans = max((histogram.num_nan for histogram in numbers.histograms), default=0)
        found["missing"] = (common.num_missing + nans) / rows if rows else None
        for name, value in (
            ("min", numbers.min),
            ("median", numbers.median),
            ("max", numbers.max),
            ("mean", numbers.mean),
            ("deviation", numbers.std_dev),
        ):
            found[name] = plain(value) if common.num_non_missing else None
    if kind == "string_stats":
        found["distinct"] = int(stats.string_stats.unique)
        found["top"] = [
            {"value": bucket.label, "rows": int(bucket.sample_count)}
            for bucket in stats.string_stats.rank_histogram.buckets[:TOP_VALUES]
        ]
    return found
