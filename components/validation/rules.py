"""What a schema demands of one feature, rule by rule, as TFDV understands it.

A rule takes the feature of the schema and its statistics and yields what is wrong. RULES is the table of them, keyed by
the field of the Feature message that asks for the rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_metadata.proto.v0.anomalies_pb2 import AnomalyInfo
from tensorflow_metadata.proto.v0.schema_pb2 import Feature
from tensorflow_metadata.proto.v0.statistics_pb2 import FeatureNameStatistics

from penstock.components.validation import views
from penstock.components.validation.malformed import Finding

_NAMED_VALUES = 20
_TOLERANCE = 1e-9  # of shares that were computed as differences


Rule = Callable[[Feature, FeatureNameStatistics], Iterable[Finding]]


def _lengths(stats: FeatureNameStatistics) -> list[tuple[int, int]]:
    common = views.common(stats)
    nested = [(level.min_num_values, level.max_num_values) for level in common.presence_and_valency_stats]
    return nested or [(common.min_num_values, common.max_num_values)]


def _bounds(bounds: schema_pb2.ValueCount, least: int, most: int, level: str = "") -> Iterator[Finding]:
    if bounds.HasField("min") and least < bounds.min:
        yield Finding(
            AnomalyInfo.FEATURE_TYPE_LOW_NUMBER_VALUES,
            "Too few values",
            f"Some examples hold {least} values{level}, fewer than {bounds.min}.",
        )
    if bounds.HasField("max") and most > bounds.max:
        yield Finding(
            AnomalyInfo.FEATURE_TYPE_HIGH_NUMBER_VALUES,
            "Too many values",
            f"Some examples hold {most} values{level}, more than {bounds.max}.",
        )


def _value_count(feature: Feature, stats: FeatureNameStatistics) -> Iterator[Finding]:
    levels = _lengths(stats)
    if len(levels) > 1:
        yield Finding(
            AnomalyInfo.VALUE_NESTEDNESS_MISMATCH,
            "Values are nested otherwise",
            f"value_count is for one level of values; the data have {len(levels)}, which value_counts is for.",
        )
        return
    yield from _bounds(feature.value_count, *levels[0])


def _value_counts(feature: Feature, stats: FeatureNameStatistics) -> Iterator[Finding]:
    levels, demanded = _lengths(stats), feature.value_counts.value_count
    if len(levels) != len(demanded):
        yield Finding(
            AnomalyInfo.VALUE_NESTEDNESS_MISMATCH,
            "Values are nested otherwise",
            f"value_counts is given for {len(demanded)} levels of values; the data have {len(levels)}.",
        )
        return
    for i, (bounds, (least, most)) in enumerate(zip(demanded, levels, strict=True)):
        yield from _bounds(bounds, least, most, f" at level {i}")


def _shape(feature: Feature, stats: FeatureNameStatistics) -> Iterator[Finding]:
    common = views.common(stats)
    missing = [level.num_missing for level in common.presence_and_valency_stats] or [common.num_missing]
    levels = _lengths(stats)
    if any(missing) or any(least != most or not least for least, most in levels):
        yield Finding(
            AnomalyInfo.INVALID_FEATURE_SHAPE,
            "Values do not fill the shape",
            "A shape demands the same number of values of every example, but some have none or another number.",
        )
        return
    held, demanded = math.prod(least for least, _ in levels), math.prod(dim.size for dim in feature.shape.dim)
    if held != demanded:
        yield Finding(
            AnomalyInfo.INVALID_FEATURE_SHAPE,
            "Values do not fill the shape",
            f"Every example holds {held} values, but the shape has {demanded}.",
        )


def _presence(feature: Feature, stats: FeatureNameStatistics) -> Iterator[Finding]:
    demanded, common = feature.presence, views.common(stats)
    examples = common.num_non_missing + common.num_missing
    if demanded.HasField("min_count") and common.num_non_missing < demanded.min_count:
        yield Finding(
            AnomalyInfo.FEATURE_TYPE_LOW_NUMBER_PRESENT,
            "Missing too often",
            f"Present in {common.num_non_missing} examples, fewer than {demanded.min_count}.",
        )
    if demanded.HasField("min_fraction") and common.num_missing:
        share = common.num_non_missing / examples
        if share < demanded.min_fraction:
            yield Finding(
                AnomalyInfo.FEATURE_TYPE_LOW_FRACTION_PRESENT,
                "Missing too often",
                f"Present in a share of {share:.6g} of the examples, below {demanded.min_fraction:.6g}: "
                f"missing in {common.num_missing}.",
            )


def _data_type(feature: Feature, stats: FeatureNameStatistics) -> Iterator[Finding]:
    if views.FEATURE_TYPES[stats.type] != feature.type:
        wanted, found = schema_pb2.FeatureType.Name(feature.type), FeatureNameStatistics.Type.Name(stats.type)
        yield Finding(
            AnomalyInfo.UNEXPECTED_DATA_TYPE, "Unexpected data type", f"Expected {wanted}, but the data are {found}."
        )


def _string_domain(feature: Feature, stats: FeatureNameStatistics) -> Iterator[Finding]:
    if stats.string_stats.invalid_utf8_count:
        yield Finding(
            AnomalyInfo.ENUM_TYPE_INVALID_UTF8,
            "Values that are not UTF-8",
            f"{stats.string_stats.invalid_utf8_count} values are not valid UTF-8.",
        )
        return
    known = set(feature.string_domain.value)
    unknown = {value: count for value, count in views.frequencies(stats).items() if value not in known}
    values = views.total(stats)
    allowed = 1.0 - feature.distribution_constraints.min_domain_mass  # 1 by default
    if unknown and (allowed <= 0 or sum(unknown.values()) / values > allowed + _TOLERANCE):
        yield Finding(
            AnomalyInfo.ENUM_TYPE_UNEXPECTED_STRING_VALUES,
            "Unexpected values",
            f"Values outside the domain: {_listed(unknown, values)}.",
        )


def _listed(counts: Mapping[str, float], values: float) -> str:
    named = sorted(counts, key=lambda value: (-counts[value], value))[:_NAMED_VALUES]
    text = ", ".join(f"{value!r} ({_percent(counts[value] / values)})" for value in named)
    return text + (f" and {len(counts) - len(named)} more" if len(counts) > len(named) else "")


def _percent(share: float) -> str:
    return "<1%" if share < 0.01 else f"{math.floor(100 * share)}%"


def _bool_domain(feature: Feature, stats: FeatureNameStatistics) -> Iterator[Finding]:
    domain = feature.bool_domain
    words = [getattr(domain, field) for field in ("true_value", "false_value") if domain.HasField(field)]
    if stats.type in (FeatureNameStatistics.STRING, FeatureNameStatistics.BYTES):
        yield from _bool_words(words, stats)
        return
    if words:
        yield Finding(
            AnomalyInfo.BOOL_TYPE_INVALID_CONFIG,
            "Malformed bool domain",
            "true_value and false_value are for strings; numbers are 1 and 0.",
        )
    extremes = _extremes(stats)
    if stats.type == FeatureNameStatistics.INT and extremes:
        if extremes[0] < 0:
            yield Finding(
                AnomalyInfo.BOOL_TYPE_SMALL_INT, "Values that are no bools", f"{extremes[0]:.6g} is neither 0 nor 1."
            )
        elif extremes[1] > 1:
            yield Finding(
                AnomalyInfo.BOOL_TYPE_BIG_INT, "Values that are no bools", f"{extremes[1]:.6g} is neither 0 nor 1."
            )
    elif stats.type == FeatureNameStatistics.FLOAT and (odd := _float_that_is_no_bool(stats, extremes)):
        yield Finding(AnomalyInfo.BOOL_TYPE_UNEXPECTED_FLOAT, "Values that are no bools", f"{odd} is neither 0 nor 1.")


def _bool_words(words: list[str], stats: FeatureNameStatistics) -> Iterator[Finding]:
    if not words:
        yield Finding(
            AnomalyInfo.BOOL_TYPE_INVALID_CONFIG,
            "Malformed bool domain",
            "For strings the bool domain must give true_value or false_value.",
        )
        return
    unknown = {value: count for value, count in views.frequencies(stats).items() if value not in words}
    if unknown:
        yield Finding(
            AnomalyInfo.BOOL_TYPE_UNEXPECTED_STRING,
            "Values that are no bools",
            f"Values other than {' and '.join(map(repr, words))}: {_listed(unknown, views.total(stats))}.",
        )


def _float_that_is_no_bool(stats: FeatureNameStatistics, extremes: tuple[float, float] | None) -> str | None:
    if views.nans(stats):
        return "NaN"
    for extreme in extremes or ():
        if extreme not in (0, 1):
            return f"{extreme:.6g}"
    for histogram in stats.num_stats.histograms:
        for bucket in histogram.buckets:
            # Standard buckets have edges between 0 and 1 of their own making; what quantiles have there is a value.
            strictly = bucket.low_value > 0 and bucket.high_value < 1
            if bucket.sample_count > 0 and strictly:
                return f"A value from {bucket.low_value:.6g} to {bucket.high_value:.6g}"
    return None


def _extremes(stats: FeatureNameStatistics) -> tuple[float, float] | None:
    if stats.HasField("num_stats"):
        if views.nans(stats) and not any(histogram.buckets for histogram in stats.num_stats.histograms):
            return None  # nothing but NaN
        return stats.num_stats.min, stats.num_stats.max
    numbers = [number for value in views.frequencies(stats) if (number := _as_float(value)) is not None]
    return (min(numbers), max(numbers)) if numbers else None


def _as_float(text: str) -> float | None:
    try:
        number = float(text) if "_" not in text else math.nan
    except ValueError:
        return None
    return number if "_" not in text else None


def _as_int(text: str) -> int | None:
    try:
        number = int(text) if "_" not in text else 2**63
    except ValueError:
        return None
    return number if -(2**63) <= number < 2**63 else None


def _int_domain(feature: Feature, stats: FeatureNameStatistics) -> Iterator[Finding]:
    domain = feature.int_domain
    if stats.type == FeatureNameStatistics.FLOAT:
        return  # reported as the wrong type
    if stats.HasField("num_stats"):
        least, most = stats.num_stats.min, stats.num_stats.max
    else:
        numbers = {value: _as_int(value) for value in views.frequencies(stats)}
        odd = next((value for value, number in numbers.items() if number is None), None)
        if odd is not None:
            kind = (
                AnomalyInfo.DOMAIN_INVALID_FOR_TYPE
                if stats.type == FeatureNameStatistics.INT
                else AnomalyInfo.INT_TYPE_NOT_INT_STRING
            )
            yield Finding(kind, "Values that are no integers", f"Some values are no 64-bit integers, such as {odd!r}.")
            return
        integers = [number for number in numbers.values() if number is not None]
        if not integers:
            return
        least, most = min(integers), max(integers)
    if domain.HasField("min") and least < domain.min:
        yield Finding(
            AnomalyInfo.INT_TYPE_SMALL_INT, "Out of range", f"The least value is {least:.15g}, below {domain.min}."
        )
    if domain.HasField("max") and most > domain.max:
        yield Finding(
            AnomalyInfo.INT_TYPE_BIG_INT, "Out of range", f"The greatest value is {most:.15g}, above {domain.max}."
        )


def _float_domain(feature: Feature, stats: FeatureNameStatistics) -> Iterator[Finding]:
    domain = feature.float_domain
    if stats.type == FeatureNameStatistics.INT:
        return  # reported as the wrong type
    nan, extremes = views.nans(stats) > 0, None
    if stats.HasField("num_stats"):
        extremes = _extremes(stats)
    else:
        numbers = {value: _as_float(value) for value in views.frequencies(stats)}
        odd = next((value for value, number in numbers.items() if number is None), None)
        if odd is not None:
            yield Finding(
                AnomalyInfo.FLOAT_TYPE_STRING_NOT_FLOAT,
                "Values that are no floats",
                f"Some values are no floats, such as {odd!r}.",
            )
            return
        floats = [number for number in numbers.values() if number is not None]
        nan = any(map(math.isnan, floats))
        floats = [number for number in floats if not math.isnan(number)]
        extremes = (min(floats), max(floats)) if floats else None
    if domain.disallow_nan and nan:
        yield Finding(AnomalyInfo.FLOAT_TYPE_HAS_NAN, "NaN values", "Some values are NaN.")
    if not extremes:
        return
    # The domain's bounds are single precision: 0.1 in the data must not be below a min of 0.1.
    with np.errstate(over="ignore"):
        least, most = (float(np.float32(extreme)) for extreme in extremes)
    if domain.HasField("min") and least < domain.min:
        yield Finding(
            AnomalyInfo.FLOAT_TYPE_SMALL_FLOAT,
            "Out of range",
            f"The least value is {extremes[0]:.6g}, below {domain.min:.6g}.",
        )
    if domain.HasField("max") and most > domain.max:
        yield Finding(
            AnomalyInfo.FLOAT_TYPE_BIG_FLOAT,
            "Out of range",
            f"The greatest value is {extremes[1]:.6g}, above {domain.max:.6g}.",
        )
    if domain.disallow_inf and any(map(math.isinf, extremes)):
        yield Finding(AnomalyInfo.FLOAT_TYPE_HAS_INF, "Infinite values", "Some values are infinite.")


def _unique_constraints(feature: Feature, stats: FeatureNameStatistics) -> Iterator[Finding]:
    bounds, unique = feature.unique_constraints, stats.string_stats.unique
    if not stats.HasField("string_stats"):
        yield Finding(
            AnomalyInfo.FEATURE_TYPE_NO_UNIQUE,
            "Distinct values are not counted",
            "unique_constraints are for strings and categorical numbers; of others, distinct values are not counted.",
        )
        return
    if bounds.HasField("min") and unique < bounds.min:
        yield Finding(
            AnomalyInfo.FEATURE_TYPE_LOW_UNIQUE,
            "Too few distinct values",
            f"{unique} distinct values, fewer than {bounds.min}.",
        )
    if bounds.HasField("max") and unique > bounds.max:
        yield Finding(
            AnomalyInfo.FEATURE_TYPE_HIGH_UNIQUE,
            "Too many distinct values",
            f"{unique} distinct values, more than {bounds.max}.",
        )


RULES: Mapping[str, Rule] = {
    "value_count": _value_count,
    "value_counts": _value_counts,
    "shape": _shape,
    "presence": _presence,
    "type": _data_type,
    "string_domain": _string_domain,
    "bool_domain": _bool_domain,
    "int_domain": _int_domain,
    "float_domain": _float_domain,
    "unique_constraints": _unique_constraints,
}
