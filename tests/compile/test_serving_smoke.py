"""What smoke.yaml of an image that serves may say."""

import pytest

from penstock.compile import serving_smoke
from penstock.compile.errors import PenstockError
from penstock.compile.images import Environment


@pytest.fixture
def environment(tmp_path):
    (tmp_path / "containers" / "one").mkdir(parents=True)
    return Environment("one", tmp_path, "acme", "1.0")


def test_an_environment_that_serves_nothing_is_none(environment):
    assert serving_smoke.serve_of(environment) is None
    (environment.folder / "smoke.yaml").write_text("run: x\n")
    assert serving_smoke.serve_of(environment) is None


def test_what_is_served_is_read(environment):
    text = "run: x\nserve: {models: [a.b/model], at: /m, check: [ask, 1], environment: {SECONDS: 0}}\n"
    (environment.folder / "smoke.yaml").write_text(text)
    assert serving_smoke.serve_of(environment) == serving_smoke.Serve(
        (("a.b", "model"),), "/m", ("ask", "1"), {"SECONDS": "0"}
    )


@pytest.mark.parametrize(
    ("serve", "problem"),
    [
        ("[]", "`serve` wants models, at and check"),
        ("{at: /m, check: [a]}", "'models'"),
        ("{models: [model], at: /m, check: [a]}", "'model' is no TASK/OUTPUT"),
        ("{models: [a/b], at: m, check: [a]}", "`at` a path from the root"),
        ("{models: [], at: /m, check: [a]}", "need an entry each"),
        ("{models: [a/b], at: /m, check: [a], chek: 1}", "chek is not known"),
        ("{models: [a/b", "`serve` wants"),
    ],
)
def test_what_is_said_otherwise_is_told(environment, serve, problem):
    (environment.folder / "smoke.yaml").write_text(f"run: x\nserve: {serve}\n")
    with pytest.raises(PenstockError, match=problem):
        serving_smoke.serve_of(environment)
