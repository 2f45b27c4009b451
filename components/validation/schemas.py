"""What a schema says of its features: which of them apply, and where."""

from __future__ import annotations

from tensorflow_metadata.proto.v0 import schema_pb2

# The stages whose features TFDV leaves alone.
_SET_ASIDE = frozenset(
    {
        schema_pb2.PLANNED,
        schema_pb2.ALPHA,
        schema_pb2.DEPRECATED,
        schema_pb2.DEBUG_ONLY,
        schema_pb2.DISABLED,
    }
)


def is_active(feature: schema_pb2.Feature) -> bool:
    """Return whether a feature is to be validated, going by its lifecycle stage."""
    return not feature.deprecated and feature.lifecycle_stage not in _SET_ASIDE


def is_in_environment(feature: schema_pb2.Feature, schema: schema_pb2.Schema, environment: str) -> bool:
    """Return whether a feature belongs to an environment; to none ("") every feature does."""
    if not environment or environment in feature.in_environment:
        return True
    return environment not in feature.not_in_environment and environment in schema.default_environment


def is_required(feature: schema_pb2.Feature, schema: schema_pb2.Schema, environment: str) -> bool:
    """Return whether data without a feature break the schema."""
    demanded = feature.presence.min_count > 0 or feature.presence.min_fraction > 0
    return is_active(feature) and demanded and is_in_environment(feature, schema, environment)


def environments(schema: schema_pb2.Schema) -> list[str]:
    """Return the environments that a schema names."""
    names = set(schema.default_environment)
    for feature in schema.feature:
        names.update(feature.in_environment, feature.not_in_environment)
    return sorted(names)


def string_domain(name: str, schema: schema_pb2.Schema) -> schema_pb2.StringDomain | None:
    """Return the domain of strings that a schema defines by name."""
    return next((domain for domain in schema.string_domain if domain.name == name), None)
