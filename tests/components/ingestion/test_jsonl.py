"""JSON Lines: types of keys, bad lines, and keys that the sample has not seen."""

import pytest

GOOD = '{"a": 1, "b": "x"}\n{"b": "y", "a": 2}\n'


def test_types_come_from_values_and_what_is_inside_stays_json_text(file, ingested):
    source = file(
        "t.jsonl",
        '{"whole": 1, "real": 1, "flag": true, "digits": "12", "moment": "2019-01-01T10:00:00", "inner": {"x": [1, 2]}}'
        "\n"
        "\n"
        '{"inner": [3], "real": 2.5, "whole": null, "extra": "z"}\n',
    )
    outcome = ingested(source)
    assert outcome.types == {
        "whole": "int64",
        "real": "double",
        "flag": "bool",
        "digits": "string",
        "moment": "timestamp[us]",
        "inner": "string",
        "extra": "string",
    }
    assert [row["inner"] for row in outcome.train] == ['{"x":[1,2]}', "[3]"]
    assert [row["whole"] for row in outcome.train] == [1, None]


def test_bad_lines_are_kept_aside_with_line_column_and_reason(file, ingested):
    source = file("t.jsonl", GOOD + '{"a": 3\n[1]\n\n{"a": "x"}\n{"a": 4, "b": "caf\xe9"}\n{"a": 5.5}\n' + GOOD)
    outcome = ingested(source, columns={"a": "BIGINT"}, max_bad_rows=4)
    assert [row["a"] for row in outcome.train] == [1, 2, 4, 1, 2]
    found = [(reject["line"], reject["column"], reject["reason"].partition(" (")[0]) for reject in outcome.rejects]
    assert found == [
        (3, None, "this is not JSON"),
        (4, None, "this is JSON, but not an object"),
        (6, "a", "'x' is no BIGINT"),
        (8, "a", "'5.5' is no BIGINT"),
    ]
    assert outcome.rejects[0]["text"] == '{"a": 3'


def test_the_first_bad_line_is_named(file, refused):
    source = file("t.jsonl", GOOD + '{"a": 3\n')
    assert f"1 bad row, 0 allowed by max_bad_rows; the first is {source}:3: this is not JSON" in str(refused(source))


def test_bytes_that_are_not_utf8_are_a_bad_row(file, ingested):
    source = file("t.jsonl", GOOD.encode() + b'{"a": 3, "b": "caf\xe9"}\n')
    assert ingested(source, max_bad_rows=1).rejects[0]["text"] == '{"a": 3, "b": "caf\\xe9"}'


def test_a_key_that_no_sampled_line_has_is_not_dropped_in_silence(file, refused, ingested):
    filler = '{"a": 1, "b": "' + "z" * 1000 + '"}\n'
    source = file("t.jsonl", filler * 5000 + '{"a": 1, "late": 5}\n')
    assert f"{source}:5001: the key 'late' is in no sampled line" in str(refused(source))
    assert ingested(source, max_bad_rows=1).result.train_rows == 5000


@pytest.mark.parametrize("content", ["\n\n", "[]\n1\n", "{}\n"])
def test_files_without_objects_are_refused(file, refused, content):
    assert refused(file("t.jsonl", content)).argument == "source"


def test_keys_that_differ_only_in_case_are_refused(file, refused):
    assert "'a' and 'A' differ only in case" in str(refused(file("t.jsonl", '{"a": 1}\n{"A": 2}\n')))


def test_an_unknown_column_lists_the_known_ones(file, refused):
    error = refused(file("t.jsonl", GOOD), columns={"c": "BIGINT"})
    assert (error.argument, error.remedy) == ("columns", "The columns are a, b")


def test_files_with_other_keys_are_joined_by_name(file, ingested):
    file("1.jsonl", '{"a": 1}\n')
    second = file("2.ndjson", '{"b": 2}\n')
    assert ingested(second.parent).train == [{"a": 1, "b": None}, {"a": None, "b": 2}]
