"""Texts and files become the values that a pipeline declares, or are refused by name."""

import subprocess
from typing import Optional  # kfp reads this name

import pytest
from kfp import dsl

from penstock.compile import from_kfp, parameters
from penstock.compile.errors import PenstockError


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def work(rows: dsl.Input[dsl.Dataset] = None):
    pass


@dsl.pipeline(name="tune")
def tune(
    source: str,
    rounds: int,
    rate: float = 0.1,
    quick: bool = False,
    columns: list = ["a"],  # noqa: B006 kfp copies it
    options: dict = {},  # noqa: B006
    note: Optional[str] = None,  # noqa: UP045
    rows: dsl.Input[dsl.Dataset] = None,
    spec_sha256: str = "",
    git_commit: str = "",
):
    work(rows=rows)


@pytest.fixture
def pipeline(compiled):
    return from_kfp.read(compiled(tune))


def test_texts_become_values_of_the_declared_types(pipeline):
    texts = {
        "source": "007", "rounds": "7", "rate": "1e-3", "quick": "True", "columns": '["x", 2]', "options": '{"a": [1]}',
        "rows": "data/rows",
    }  # fmt: skip
    assert parameters.from_text(pipeline, texts) == {
        "source": "007", "rounds": 7, "rate": 0.001, "quick": True, "columns": ["x", 2], "options": {"a": [1]},
        "rows": "data/rows",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rounds", "many", "parameter rounds: expected an integer, got 'many'"),
        ("rounds", "1.5", "parameter rounds: expected an integer, got a number: 1.5"),
        ("rounds", "9007199254740993", r"parameter rounds: 9007199254740993 is beyond 2\^53-1"),
        ("rate", "NaN", "parameter rate: nan is not a finite number"),
        ("rate", "-Infinity", "parameter rate: -inf is not a finite number"),
        ("quick", "yes", "parameter quick: expected true or false, got 'yes'"),
        ("columns", "a,b", r"""parameter columns: expected a JSON list, got 'a,b', for example '\["a", "b"\]'"""),
        ("options", "[]", "parameter options: expected an object, got a list"),
        ("options", '{"a": NaN}', "parameter options: nan is not a finite number"),
        ("round", "7", "pipeline tune has no parameter round; did you mean rounds"),
        ("zzz", "7", "has no parameter zzz; it has columns, git_commit, note, options"),
    ],
)
def test_texts_that_do_not_fit_are_refused_by_name(pipeline, name, text, message):
    with pytest.raises(PenstockError, match=message):
        parameters.from_text(pipeline, {name: text})


def test_a_file_gives_values_by_name(pipeline, tmp_path):
    path = tmp_path / "values.yaml"
    path.write_text("source: 2019-01-01\nrounds: 7\nrate: 1\ncolumns: [a, b]\n")
    values = parameters.from_file(pipeline, path)
    assert values == {"source": "2019-01-01", "rounds": 7, "rate": 1.0, "columns": ["a", "b"]}
    for text in ("rate: 1e-4\nrounds: 1e2\nsource: 1e-4\n", '{"rate": 1e-4, "rounds": 1e2, "source": "1e-4"}'):
        path.write_text(text)
        assert parameters.from_file(pipeline, path) == {"rate": 0.0001, "rounds": 100, "source": "1e-4"}
    path.write_text('{"rounds": "7"}')
    with pytest.raises(PenstockError, match="parameter rounds: expected an integer, got text: '7'"):
        parameters.from_file(pipeline, path)
    path.write_text("rate: .nan\n")
    with pytest.raises(PenstockError, match="parameter rate: nan is not a finite number"):
        parameters.from_file(pipeline, path)
    path.write_text("- a\n")
    with pytest.raises(PenstockError, match="expected names and values"):
        parameters.from_file(pipeline, path)


def test_defaults_complete_what_is_given_and_the_rest_is_left_out(pipeline):
    assert parameters.complete(pipeline, {"source": "x", "rounds": 7.0, "note": None}) == {
        "source": "x", "rounds": 7, "rate": 0.1, "quick": False, "columns": ["a"], "options": {}, "spec_sha256": "",
        "git_commit": "",
    }  # fmt: skip


def test_all_missing_values_are_named_at_once(pipeline):
    with pytest.raises(PenstockError, match=r"pipeline tune needs rounds \(NUMBER_INTEGER\), source \(STRING\)"):
        parameters.complete(pipeline, {})


def test_values_are_checked_as_texts_are(pipeline):
    with pytest.raises(PenstockError, match="did you mean source"):
        parameters.complete(pipeline, {"sorce": "x"})
    with pytest.raises(PenstockError, match="parameter quick: expected a boolean, got text"):
        parameters.complete(pipeline, {"quick": "true"})
    with pytest.raises(PenstockError, match="parameter rows: give the path or URI"):
        parameters.complete(pipeline, {"rows": 5})


def test_lineage_is_filled_in_where_it_is_not_given(pipeline, tmp_path):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=T", "-c", "user.email=t@example.com"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    assert parameters.with_lineage(pipeline, {}, "abc", tmp_path) == {"spec_sha256": "abc", "git_commit": ""}
    git("init", "-q")
    assert parameters.git_commit(tmp_path) == ""
    git("commit", "-q", "--allow-empty", "-m", "first")
    head = git("rev-parse", "HEAD")
    filled = parameters.with_lineage(pipeline, {"git_commit": "", "spec_sha256": "mine"}, "abc", tmp_path)
    assert filled == {"spec_sha256": "mine", "git_commit": head}
    assert len(head) == 40
