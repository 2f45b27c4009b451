"""CSV: types that fit, rows that do not, and nothing lost in silence."""

import random

import pytest

HEADER = "a,b,c\n"
GOOD = "1,x,1.5\n2,y,2.5\n"
MANY = "".join(f"{number},word,{number}.5\n" for number in range(60_000))
MORE = MANY * 3  # of a file that large, what lies between MANY and MORE is not sampled


def test_types_are_those_that_every_value_fits(file, ingested):
    source = file(
        "t.csv",
        "zip,whole,real,day,moment,instant,flag,text\n"
        "01234,1,1,2019-01-01,2019-01-01 10:00:00,2019-01-01T10:00:00Z,true,1\n"
        "12345,-2,2.5e3,2019-01-02,2019-01-02,2019-01-01T10:00:00+02:00,FALSE,x\n"
        ",,,,,,,\n",
    )
    outcome = ingested(source)
    assert outcome.types == {
        "zip": "string",  # a leading zero would be lost in a number
        "whole": "int64",
        "real": "double",
        "day": "date32[day]",
        "moment": "timestamp[us]",
        "instant": "timestamp[us, tz=UTC]",
        "flag": "bool",
        "text": "string",
    }
    assert [row["real"] for row in outcome.train] == [1.0, 2500.0, None]
    assert outcome.train[1]["instant"].isoformat() == "2019-01-01T08:00:00+00:00"


def test_a_column_that_is_empty_in_one_file_gets_its_type_from_another(file, ingested):
    file("1.csv", "day,surcharge\n2018-12-31,\n2018-12-30,\n")
    second = file("2.csv", "day,surcharge\n2019-02-01,2.5\n")
    outcome = ingested(second.parent / "*.csv")
    assert outcome.types["surcharge"] == "double"
    assert [row["surcharge"] for row in outcome.train] == [None, None, 2.5]


def test_files_are_joined_by_name_whatever_the_order_of_their_columns(file, ingested):
    file("1.csv", "a,b\n1,x\n")
    file("2.csv", "B,A\ny,2\n")
    last = file("3.csv", "c,a\n0.5,3\n")
    assert ingested(last.parent / "*.csv").train == [
        {"a": 1, "b": "x", "c": None},
        {"a": 2, "b": "y", "c": None},
        {"a": 3, "b": None, "c": 0.5},
    ]


def test_a_fraction_after_the_sample_makes_the_column_real_and_rounds_nothing(file, ingested):
    outcome = ingested(file("t.csv", HEADER + MANY + "7.5,x,1\n" + MORE))
    assert outcome.types["a"] == "double"
    assert outcome.train[60_000]["a"] == 7.5
    assert len(outcome.train) == 240_001


def test_a_time_of_day_after_the_sample_makes_the_column_a_timestamp(file, ingested):
    days = "2019-01-02,word\n" * 60_000
    outcome = ingested(file("t.csv", "day,b\n" + days + "2019-01-02 10:30:00,x\n" + days * 3))
    assert outcome.types["day"] == "timestamp[us]"
    assert str(outcome.train[60_000]["day"]) == "2019-01-02 10:30:00"


def test_whole_numbers_beyond_the_precision_of_a_double_stay_exact(file, ingested):
    outcome = ingested(file("t.csv", HEADER + MANY + "9007199254740993,x,1\n" + MORE))
    assert outcome.types["a"] == "int64"
    assert outcome.train[60_000]["a"] == 9007199254740993


def test_given_types_hold_and_what_does_not_fit_them_is_a_bad_row(file, ingested):
    source = file("t.csv", HEADER + GOOD + "2.5,z,1\n9007199254740993,x,1\n300,y,2\n")
    outcome = ingested(source, columns={"A": "BIGINT", "c": "VARCHAR"}, max_bad_rows=1)
    assert outcome.types == {"a": "int64", "b": "string", "c": "string"}
    assert [row["a"] for row in outcome.train] == [1, 2, 9007199254740993, 300]
    [reject] = outcome.rejects
    assert (reject["line"], reject["column"], reject["reason"]) == (4, "a", "'2.5' is no BIGINT")


def test_bad_values_and_ragged_rows_are_kept_aside_with_line_column_reason_and_text(file, ingested):
    source = file("t.csv", HEADER + GOOD + "x,y,1\n3,z\n" + GOOD + "4,5,1,7\n8,9,1,\n\n1,2,zz\n")
    outcome = ingested(source, columns={"a": "BIGINT", "c": "DOUBLE"}, max_bad_rows=4)
    assert [row["a"] for row in outcome.train] == [1, 2, 1, 2, 8]  # a last comma alone is harmless
    assert [tuple(reject.values()) for reject in outcome.rejects] == [
        (str(source), 4, "a", "'x' is no BIGINT", "x,y,1"),
        (str(source), 5, None, "3 columns were expected, and there are 2", "3,z"),
        (str(source), 8, None, "3 columns were expected, and there are 4", "4,5,1,7"),
        (str(source), 11, "c", "'zz' is no DOUBLE", "1,2,zz"),
    ]
    assert outcome.result.bad_rows == 4


def test_more_bad_rows_than_allowed_are_refused_with_their_number_and_the_first(file, refused):
    source = file("t.csv", HEADER + GOOD + "x,y,1\n3,z\n" + GOOD)
    error = refused(source, columns={"a": "BIGINT"}, max_bad_rows=1)
    assert error.argument == "source"
    assert "2 bad rows, 1 allowed" in error.problem
    assert f"{source}:4, column a: 'x' is no BIGINT" in error.problem
    assert "max_bad_rows=2" in error.remedy
    assert "columns={'a': 'VARCHAR'}" in error.remedy


def test_a_value_that_no_number_holds_after_the_sample_is_a_bad_row_not_a_column_of_text(file, refused, ingested):
    source = file("t.csv", HEADER + MANY + "n/a,x,1\n" + MORE)
    assert f"{source}:60002, column a: 'n/a' is no BIGINT" in str(refused(source))
    assert ingested(source, max_bad_rows=1).types["a"] == "int64"


def test_a_bad_value_counts_whatever_columns_the_query_takes(file, ingested):
    source = file("t.csv", HEADER + GOOD + "x,y,1\n")
    outcome = ingested(source, columns={"a": "BIGINT"}, query="SELECT b FROM source", max_bad_rows=1)
    assert outcome.train == [{"b": "x"}, {"b": "y"}]
    assert outcome.result.bad_rows == 1


def test_one_stray_quote_does_not_swallow_the_rows_after_it(file, ingested):
    source = file(
        "t.csv", HEADER + GOOD + '4,"5,1\n6,"fine",1\n7,"two\nlines",3\n8,"q"z,1\n' + GOOD + '9,"open,4\n10,x,1\n'
    )
    outcome = ingested(source, max_bad_rows=3)
    assert [row["a"] for row in outcome.train] == [1, 2, 6, 7, 1, 2, 10]
    assert outcome.train[3]["b"] == "two\nlines"
    assert [(reject["line"], reject["reason"], reject["text"]) for reject in outcome.rejects] == [
        (4, "there is text after a closing quote", '4,"5,1'),
        (8, "there is text after a closing quote", '8,"q"z,1'),
        (11, "a quote is opened and not closed", '9,"open,4'),
    ]


@pytest.mark.slow
def test_a_quote_left_open_in_a_large_file_costs_one_row(file, ingested):
    source = file("t.csv", HEADER + MANY + '4,"5,1\n' + MANY * 4)  # 4 MB after it, twice the longest line
    outcome = ingested(source, max_bad_rows=1)
    assert outcome.result.train_rows == 300_000
    assert [reject["line"] for reject in outcome.rejects] == [60_002]


def test_a_file_where_every_row_is_bad_is_refused(file, refused):
    source = file("t.csv", HEADER + "x,y,1\n" * 5)
    assert "5 bad rows, 0 allowed" in str(refused(source, columns={"a": "BIGINT"}))
    assert "there is no good row, and 5 bad ones" in str(refused(source, columns={"a": "BIGINT"}, max_bad_rows=5))


def test_counting_ends_when_there_are_very_many_bad_rows(file, refused):
    source = file("t.csv", HEADER + "x,y,1\n" * 50_000)
    assert "more than 10000 bad rows, 0 allowed" in str(refused(source, columns={"a": "BIGINT"}))


def test_line_breaks_of_both_kinds_in_one_file_are_read(file, ingested):
    source = file("t.csv", "a,b\r\n1,x\r\n2,y\n3,z\r\n")
    outcome = ingested(source)
    assert outcome.train == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}, {"a": 3, "b": "z"}]
    assert outcome.result.bad_rows == 0


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_lines_are_numbered_as_an_editor_numbers_them(file, ingested, ending):
    source = file("t.csv", 'a,b\n1,"two\nlines"\n\n2,x\nbad,y\n3,z\n'.replace("\n", ending))
    outcome = ingested(source, columns={"a": "BIGINT"}, max_bad_rows=1)
    assert [row["a"] for row in outcome.train] == [1, 2, 3]
    assert outcome.train[0]["b"] == f"two{ending}lines"
    assert [(reject["line"], reject["text"]) for reject in outcome.rejects] == [(6, "bad,y")]


@pytest.mark.parametrize("seed", range(3))
def test_every_row_of_a_large_mixed_file_is_either_read_or_rejected_at_its_line(file, ingested, seed):
    rnd = random.Random(seed)
    faults = {
        "cast": "{},bad,x1\n",
        "few": "{},bad\n",
        "many": "{},bad,1,2\n",
        "quote": '{},"bad"z,1\n',
        "open": '{},"bad,1\n',
    }
    text, line, good, bad = ["a,b,c\n"], 2, [], []
    for number in range(30_000):
        kind = rnd.random()
        if kind < 0.002:
            row = rnd.choice(list(faults.values())).format(number)
            bad.append((line, row[:-1]))
        else:
            row = (
                f'{number},"two\n""lines"", {"z" * rnd.randrange(40)}",{number}.5\n'
                if kind < 0.2
                else f"{number},word,1.5\n"
            )
            good.append(number)
        text.append(row)
        line += row.count("\n")
    outcome = ingested(file("t.csv", "".join(text)), columns={"a": "BIGINT", "c": "DOUBLE"}, max_bad_rows=len(bad))
    assert [row["a"] for row in outcome.train] == good
    assert [(reject["line"], reject["text"]) for reject in outcome.rejects] == bad


def test_a_line_of_millions_of_bytes_is_a_bad_row(file, ingested):
    outcome = ingested(file("t.csv", HEADER + GOOD + "1," + "z" * 2_100_000 + ",1\n" + GOOD), max_bad_rows=1)
    assert len(outcome.train) == 4
    assert outcome.rejects[0]["reason"] == "the line is longer than 2000000 bytes"
    assert len(outcome.rejects[0]["text"]) == 100_000


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings_are_read_when_they_are_named(file, ingested, encoding):
    source = file("t.csv", "a,é\n1,café\n".encode(encoding))
    assert ingested(source, encoding=encoding).train == [{"a": 1, "é": "café"}]


def test_the_wrong_encoding_names_the_file_the_line_and_the_encoding_to_try(file, refused, ingested):
    source = file("t.csv", ("a,b\n" + "1,x\n" * 3 + "2,café\n").encode("latin-1"))
    error = refused(source)
    assert error.argument == "encoding"
    assert f"{source}:5" in error.problem
    assert "0xe9" in error.problem
    assert "encoding='latin-1'" in error.remedy
    assert ingested(source, max_bad_rows=1).rejects[0]["text"] == r"2,caf\xe9"


def test_the_wrong_encoding_in_a_header_names_the_encoding_to_try(file, refused):
    assert "encoding='latin-1'" in str(refused(file("t.csv", "a,é\n1,x\n".encode("latin-1"))))
    assert "encoding='utf-16'" in str(refused(file("u.csv", "a,b\n1,x\n".encode("utf-16"))))
    assert "is not utf-16 near byte 1" in str(refused(file("v.csv", "a,b\n1,x\n"), encoding="utf-16"))


def test_semicolons_tabs_and_a_byte_order_mark_are_recognized(file, ingested):
    assert ingested(file("s.csv", "\ufeffa;b\n1;x,y\n")).train == [{"a": 1, "b": "x,y"}]
    assert ingested(file("t.tsv", "a\tb\n1\tx,y\n")).train == [{"a": 1, "b": "x,y"}]
    assert ingested(file("t.txt", "a\tb\n1\tx,y\n"), format="tsv").train == [{"a": 1, "b": "x,y"}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty: it has not one byte"),
        ("a,b\n", "no data rows, only a header"),
        ("a,b", "no data rows, only a header"),
        ("\na,b\n1,2\n", "the first line of"),
        ("1,2\n3,4\n", "holds numbers"),
        ("a,A\n1,2\n", "has two columns 'a'"),
        ('a,"b\n1,2\n', "the header cannot be read"),
    ],
)
def test_files_without_rows_or_names_are_refused(file, refused, content, words):
    error = refused(file("t.csv", content))
    assert error.argument == "source"
    assert words in error.problem
    assert "t.csv" in error.problem


def test_an_unknown_column_lists_the_known_ones(file, refused):
    error = refused(file("t.csv", HEADER + GOOD), columns={"d": "BIGINT"})
    assert str(error) == "ingest: columns: there is no column 'd'. The columns are a, b, c."


@pytest.mark.parametrize("type", ["MONEY", "", "BIGINT); SELECT 1", "NULL"])
def test_an_unknown_type_lists_some_known_ones(file, refused, type):
    error = refused(file("t.csv", HEADER + GOOD), columns={"a": type})
    assert error.argument == "columns"
    assert "BIGINT, DOUBLE" in error.remedy


def test_names_of_columns_may_hold_quotes_and_blanks(file, ingested):
    source = file("t.csv", '"the ""best"" \'a\'", b c\n1,2\n')
    assert ingested(source).train == [{"the \"best\" 'a'": 1, "b c": 2}]
