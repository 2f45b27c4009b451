"""Which demands of a schema are not checked, found by walking over every field that is set.

HONOURED lists, message by message, the fields that are. Whatever else is set, fields that did not exist when this was
written included, is reported: a schema is never weaker than it reads without somebody being told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from tensorflow_metadata.proto.v0 import schema_pb2

from penstock.components.validation import schemas

HONOURED: dict[str, frozenset[str]] = {
    message: frozenset(fields.split())
    for message, fields in {
        "Schema": "feature string_domain default_environment dataset_constraints annotation",
        "Feature": (
            "name deprecated presence shape value_count value_counts type domain int_domain float_domain string_domain "
            "bool_domain distribution_constraints annotation skew_comparator drift_comparator in_environment "
            "not_in_environment lifecycle_stage unique_constraints"
        ),
        "Annotation": "tag comment extra_metadata",  # demands nothing
        "Any": "type_url value",
        "FeaturePresence": "min_fraction min_count",
        "FixedShape": "dim",
        "Dim": "size name",
        "ValueCount": "min max",
        "ValueCountList": "value_count",
        "IntDomain": "name min max is_categorical",
        "FloatDomain": "name min max disallow_nan disallow_inf is_categorical",
        "StringDomain": "name value is_categorical",
        "BoolDomain": "name true_value false_value",
        "DistributionConstraints": "min_domain_mass",
        "UniqueConstraints": "min max",
        "FeatureComparator": "infinity_norm jensen_shannon_divergence normalized_abs_difference",
        "InfinityNorm": "threshold",
        "JensenShannonDivergence": "threshold source",
        "NormalizedAbsoluteDifference": "threshold",
        "HistogramSelection": "type",
        "DatasetConstraints": "num_examples_drift_comparator min_examples_count max_examples_count",
        "NumericValueComparator": "min_fraction_threshold max_fraction_threshold",
    }.items()
}


@dataclass(frozen=True, order=True)
class Unchecked:
    """A demand of the schema that was not checked.

    Attributes:
        feature: Name of the feature, empty for the schema as a whole.
        rule: Field that states the demand, for example "image_domain".
        reason: Why it was not checked.
    """

    feature: str
    rule: str
    reason: str

    def __str__(self) -> str:
        where = f"feature {self.feature!r}" if self.feature else "the schema"
        return f"{where}: {self.rule} is not checked: {self.reason}"


def unimplemented(schema: schema_pb2.Schema) -> list[Unchecked]:
    """Return the demands that nothing here implements; those of features that are set aside are not wanted anyway."""
    names = Counter(feature.name for feature in schema.feature)
    return [
        *(Unchecked(feature, rule, "this rule is not implemented") for feature, rule in _walk(schema, "", "")),
        *(Unchecked("", "a feature without a name", "nothing can be matched with it") for _ in range(names.pop("", 0))),
        *(
            Unchecked(n, "all but its first definition", "it is defined twice")
            for n, times in names.items()
            if times > 1
        ),
    ]


def _walk(message: Message, feature: str, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(message, schema_pb2.Feature):
        if not schemas.is_active(message):
            return
        feature = message.name
    honoured = HONOURED.get(message.DESCRIPTOR.name, frozenset())
    for field, value in message.ListFields():
        rule = f"{path}{field.name}"
        if field.name not in honoured:
            yield from _named(feature, rule, value)
        elif field.message_type:
            inner = "" if field.name == "feature" else f"{rule}."
            for item in value if hasattr(value, "add") else [value]:
                yield from _walk(item, feature, inner)
    unknown = UnknownFieldSet(message)
    for place in range(len(unknown)):
        number = unknown[place].field_number
        yield feature, f"{path}field {number}, which the installed tensorflow-metadata does not know"


def _named(feature: str, rule: str, value: Any) -> Iterator[tuple[str, str]]:
    if value is False:
        return  # a flag that asks for nothing
    names = [item.name for item in value if hasattr(item, "name")] if not feature and hasattr(value, "add") else []
    for name in names or [feature]:
        yield name, rule
