"""What a schema says of its features: which of them apply, and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

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


def contradiction(schema: schema_pb2.Schema) -> str:
    """Return what a schema says of a feature that cannot be meant, in a few words; empty: nothing.

    TFX refuses references to features that are not there when it reads a schema for Transform; of two features of one
    name, or one without a name, it drops a demand in silence.
    """
    names = Counter(feature.name for feature in schema.feature)
    if names[""]:
        place = next(place for place, feature in enumerate(schema.feature, 1) if not feature.name)
        return f"the feature in place {place} has no name"
    if twice := [name for name, times in names.items() if times > 1]:
        return f"the feature {twice[0]!r} is there {names[twice[0]]} times"
    domains = Counter(domain.name for domain in schema.string_domain)
    if twice := [name for name, times in domains.items() if times > 1]:
        return f"the string_domain {twice[0]!r} is there {domains[twice[0]]} times"
    known = {*names, *(feature.name for feature in schema.sparse_feature)}
    for who, name in _references(schema):
        if name not in known:
            return f"{who} refers to a feature {name!r}, which is not there"
    return ""


def _references(schema: schema_pb2.Schema) -> Iterator[tuple[str, str]]:
    """Yield what refers to a feature, and the feature's name."""
    for sparse in schema.sparse_feature:
        for part in (*sparse.index_feature, sparse.value_feature):
            yield f"the sparse_feature {sparse.name!r}", part.name
    for group in schema.tensor_representation_group.values():
        for name, tensor in group.tensor_representation.items():
            dense, sparse_tensor = (tensor.dense_tensor, tensor.varlen_sparse_tensor), tensor.sparse_tensor
            columns = [each.column_name for each in dense]
            columns += [*sparse_tensor.index_column_names, sparse_tensor.value_column_name]
            columns += tensor.ragged_tensor.feature_path.step[:1]
            yield from ((f"the tensor_representation {name!r}", column) for column in columns if column)
