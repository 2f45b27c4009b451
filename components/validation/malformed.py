"""Demands that make no sense whatever the data are: they are anomalies, and what is left of the feature is checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_metadata.proto.v0.anomalies_pb2 import AnomalyInfo
from tensorflow_metadata.proto.v0.schema_pb2 import Feature, Schema

from penstock.components.validation import schemas

# Types that a domain suits.
_TYPES = {
    "domain": {schema_pb2.BYTES},
    "string_domain": {schema_pb2.BYTES},
    "bool_domain": {schema_pb2.INT, schema_pb2.BYTES, schema_pb2.FLOAT},
    "int_domain": {schema_pb2.INT, schema_pb2.BYTES},
    "float_domain": {schema_pb2.FLOAT, schema_pb2.BYTES},
    "struct_domain": {schema_pb2.STRUCT},
    "natural_language_domain": {schema_pb2.INT, schema_pb2.BYTES},
    "image_domain": {schema_pb2.BYTES},
    "mid_domain": {schema_pb2.BYTES},
    "url_domain": {schema_pb2.BYTES},
    "time_domain": {schema_pb2.INT, schema_pb2.BYTES},
}


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: an AnomalyInfo.Type, what it is in a few words, and in a sentence."""

    type: int
    short: str
    long: str


def repair(feature: Feature, schema: Schema) -> tuple[Feature | None, list[Finding]]:
    """Return a feature with its named domain filled in and without demands that make no sense, and what these were.

    Where nothing is left that could be checked, the feature is None.
    """
    fixed = Feature()
    fixed.CopyFrom(feature)
    findings = [finding for mend in _REPAIRS for finding in mend(fixed, schema)]
    return (fixed if fixed.HasField("type") else None), findings


def _give_type(feature: Feature, schema: Schema) -> Iterator[Finding]:
    if feature.HasField("type"):
        return
    short = "No type in the schema"
    if feature.WhichOneof("domain_info") in ("domain", "string_domain"):
        feature.type = schema_pb2.BYTES
        long = "The schema gives the feature no type; its domain implies BYTES."
    else:
        long = "The schema gives the feature no type, so nothing is checked."
    yield Finding(AnomalyInfo.FEATURE_MISSING_TYPE, short, long)


def _mend_presence(feature: Feature, schema: Schema) -> Iterator[Finding]:
    if feature.presence.min_fraction < 0:
        feature.presence.ClearField("min_fraction")
        yield _invalid("presence.min_fraction must not be negative")
    elif feature.presence.min_fraction > 1:
        feature.presence.min_fraction = 1
        yield _invalid("presence.min_fraction must not be above 1")


def _mend_value_counts(feature: Feature, schema: Schema) -> Iterator[Finding]:
    counts = [feature.value_count] if feature.HasField("value_count") else feature.value_counts.value_count
    for count in counts:
        if count.min < 0:
            count.ClearField("min")
            yield _invalid("The min of a value count must not be negative")
        if count.HasField("max") and count.max < count.min:
            count.max = count.min
            yield _invalid("The max of a value count must not be below its min")


def _mend_shape(feature: Feature, schema: Schema) -> Iterator[Finding]:
    if any(dim.size <= 0 for dim in feature.shape.dim):
        feature.ClearField("shape")
        yield _invalid("The sizes of a shape must be positive")


def _mend_domain(feature: Feature, schema: Schema) -> Iterator[Finding]:
    domain = feature.WhichOneof("domain_info")
    if domain in _TYPES and feature.HasField("type") and feature.type not in _TYPES[domain]:
        feature.ClearField(domain)
        long = f"A {domain} does not suit the type {schema_pb2.FeatureType.Name(feature.type)}."
        yield Finding(AnomalyInfo.DOMAIN_INVALID_FOR_TYPE, "Domain does not suit the type", long)
    elif domain == "domain" and (named := schemas.string_domain(feature.domain, schema)):
        feature.string_domain.CopyFrom(named)
    elif domain == "domain":
        known = ", ".join(sorted(known.name for known in schema.string_domain)) or "none"
        long = f"The schema defines no string_domain {feature.domain!r}; it defines {known}."
        feature.ClearField("domain")
        yield Finding(AnomalyInfo.INVALID_DOMAIN_SPECIFICATION, "No such domain", long)


def _find_repeated_values(feature: Feature, schema: Schema) -> Iterator[Finding]:
    repeated = [value for value, times in Counter(feature.string_domain.value).items() if times > 1]
    if repeated:
        long = f"Values given more than once: {', '.join(repeated)}."
        yield Finding(AnomalyInfo.INVALID_DOMAIN_SPECIFICATION, "Malformed string domain", long)


def _find_equal_bools(feature: Feature, schema: Schema) -> Iterator[Finding]:
    domain = feature.bool_domain
    if domain.HasField("true_value") and domain.HasField("false_value") and domain.true_value == domain.false_value:
        long = f"True and false are the same value, {domain.true_value!r}."
        yield Finding(AnomalyInfo.INVALID_DOMAIN_SPECIFICATION, "Malformed bool domain", long)


def _mend_distribution(feature: Feature, schema: Schema) -> Iterator[Finding]:
    if feature.HasField("distribution_constraints") and not feature.HasField("string_domain"):
        feature.ClearField("distribution_constraints")
        yield _invalid("distribution_constraints need a domain of strings")


def _invalid(what: str) -> Finding:
    return Finding(AnomalyInfo.INVALID_SCHEMA_SPECIFICATION, what, f"{what}.")


# In this order: a domain's type has to be known before the domain is judged.
_REPAIRS: tuple[Callable[[Feature, Schema], Iterator[Finding]], ...] = (
    _give_type,
    _mend_presence,
    _mend_value_counts,
    _mend_shape,
    _mend_domain,
    _find_repeated_values,
    _find_equal_bools,
    _mend_distribution,
)
