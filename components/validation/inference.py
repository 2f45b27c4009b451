"""A schema that fits statistics, as TFDV's infer_schema makes it with its default options."""

from __future__ import annotations

from tensorflow_metadata.proto.v0.schema_pb2 import BoolDomain, Feature, Schema
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatistics, FeatureNameStatistics

from penstock.components.validation import views

MAX_STRING_DOMAIN = 100
_TRUE, _FALSE = ("TRUE", "true", "SET", "set", "1", ""), ("FALSE", "false", "CLEAR", "clear", "0")


def infer(statistics: DatasetFeatureStatistics) -> Schema:
    """Return a schema that the data fit: types, presence, shapes, and domains of few strings."""
    schema = Schema()
    for name, stats in views.features(statistics).items():
        feature = schema.feature.add(name=name, type=views.FEATURE_TYPES[stats.type])
        _demand_presence(feature, stats)
        if stats.type in (FeatureNameStatistics.STRING, FeatureNameStatistics.INT):
            _give_domain(feature, stats, schema)
    return schema


def _demand_presence(feature: Feature, stats: FeatureNameStatistics) -> None:
    common = views.common(stats)
    feature.presence.min_count = 1 if common.num_non_missing else 0
    if not common.num_non_missing:
        return
    least, most = common.min_num_values, common.max_num_values
    if not common.num_missing:
        feature.presence.min_fraction = 1.0
        if least == most > 0:
            feature.shape.dim.add(size=least)
            return
    if least == most > 0:
        feature.value_count.min, feature.value_count.max = least, most
    elif least > 0:
        feature.value_count.min = 1


def _give_domain(feature: Feature, stats: FeatureNameStatistics, schema: Schema) -> None:
    if stats.HasField("num_stats"):
        if stats.num_stats.min >= 0 and stats.num_stats.max == 1:
            feature.bool_domain.SetInParent()
        return
    values = sorted(views.frequencies(stats))
    # TFDV goes by the values that the statistics list even where there are more; nothing could hold the others to it.
    if not values or stats.string_stats.invalid_utf8_count or stats.string_stats.unique > len(values):
        return
    if bools := _as_bools(values):
        feature.bool_domain.CopyFrom(bools)
    elif all(_is_integer(value) for value in values):
        feature.int_domain.SetInParent()
    elif len(values) <= MAX_STRING_DOMAIN:
        schema.string_domain.add(name=feature.name, value=values)
        feature.domain = feature.name


def _as_bools(values: list[str]) -> BoolDomain | None:
    if len(values) > 2 or not all(value in _TRUE or value in _FALSE for value in values):
        return None
    true, false = [v for v in values if v in _TRUE], [v for v in values if v in _FALSE]
    if len(true) > 1 or len(false) > 1:
        return None
    domain = BoolDomain()
    if true:
        domain.true_value = true[0]
    if false:
        domain.false_value = false[0]
    return domain


def _is_integer(text: str) -> bool:
    try:
        return "_" not in text and -(2**63) <= int(text) < 2**63
    except ValueError:
        return False
