"""A schema's demands that are not checked."""

import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_metadata.proto.v0.schema_pb2 import Feature, Schema

from penstock.components.validation import coverage
from penstock.components.validation.coverage import unimplemented
from penstock.components.validation.rules import RULES

UNIMPLEMENTED = {
    'feature { name: "x" image_domain { minimum_supported_image_fraction: 0.9 } }': ("x", "image_domain"),
    'feature { name: "x" natural_language_domain {} }': ("x", "natural_language_domain"),
    'feature { name: "x" url_domain {} }': ("x", "url_domain"),
    'feature { name: "x" mid_domain {} }': ("x", "mid_domain"),
    'feature { name: "x" time_domain { integer_format: UNIX_SECONDS } }': ("x", "time_domain"),
    'feature { name: "x" time_of_day_domain {} }': ("x", "time_of_day_domain"),
    'feature { name: "x" struct_domain { feature { name: "y" } } }': ("x", "struct_domain"),
    'feature { name: "x" group_presence { required: true } }': ("x", "group_presence"),
    'feature { name: "x" float_domain { is_embedding: true } }': ("x", "float_domain.is_embedding"),
    'feature { name: "x" sequence_metadata {} }': ("x", "sequence_metadata"),
    'feature { name: "x" validation_derived_source {} }': ("x", "validation_derived_source"),
    'sparse_feature { name: "sparse" }': ("sparse", "sparse_feature"),
    'weighted_feature { name: "heavy" }': ("heavy", "weighted_feature"),
    'int_domain { name: "ages" }': ("ages", "int_domain"),
    'float_domain { name: "shares" }': ("shares", "float_domain"),
    'tensor_representation_group { key: "" value {} }': ("", "tensor_representation_group"),
    "represent_variable_length_as_ragged: true": ("", "represent_variable_length_as_ragged"),
    "dataset_constraints { num_examples_version_comparator {} }": (
        "",
        "dataset_constraints.num_examples_version_comparator",
    ),
    "feature { type: INT }": ("", "a feature without a name"),
    'feature { name: "x" } feature { name: "x" }': ("x", "all but its first definition"),
}


@pytest.mark.parametrize("schema", UNIMPLEMENTED)
def test_a_rule_that_is_not_implemented_is_named_with_its_feature(schema):
    [item] = unimplemented(text_format.Parse(schema, Schema()))
    assert (item.feature, item.rule) == UNIMPLEMENTED[schema]
    assert item.rule in str(item)
    assert repr(item.feature) in str(item) or not item.feature


@pytest.mark.parametrize(
    "schema",
    [
        'feature { name: "x" annotation { tag: "t" comment: "c" extra_metadata { type_url: "u" } } }',
        'feature { name: "x" lifecycle_stage: DEPRECATED image_domain {} }',
        'feature { name: "x" float_domain { is_embedding: false } }',
        'feature { name: "x" skew_comparator { jensen_shannon_divergence { source { type: QUANTILES } } } }',
        'default_environment: "TRAINING" annotation { comment: "c" }',
        "represent_variable_length_as_ragged: false",
    ],
)
def test_what_is_honoured_or_demands_nothing_is_not_named(schema):
    assert unimplemented(text_format.Parse(schema, Schema())) == []


def test_a_field_that_tensorflow_metadata_does_not_know_is_named():
    feature = Feature.FromString(Feature(name="x").SerializeToString() + b"\xca\x3e\x00")  # field 1001
    [item] = unimplemented(Schema(feature=[feature]))
    assert (item.feature, item.rule) == (
        "x",
        "field 1001, which the installed tensorflow-metadata does not know",
    )


def test_a_field_that_a_newer_tensorflow_metadata_brings_is_named(monkeypatch):
    monkeypatch.setitem(coverage.HONOURED, "Feature", coverage.HONOURED["Feature"] - {"unique_constraints"})
    [item] = unimplemented(text_format.Parse('feature { name: "x" unique_constraints { max: 1 } }', Schema()))
    assert (item.feature, item.rule) == ("x", "unique_constraints")


def test_every_rule_is_of_a_field_that_counts_as_honoured():
    assert set(RULES) <= coverage.HONOURED["Feature"]


def test_every_honoured_field_exists():
    messages = {}

    def collect(descriptor):
        if descriptor.name not in messages:
            messages[descriptor.name] = descriptor
            for field in descriptor.fields:
                if field.message_type:
                    collect(field.message_type)

    collect(schema_pb2.Schema.DESCRIPTOR)
    for message, fields in coverage.HONOURED.items():
        assert fields <= {field.name for field in messages[message].fields}, message
