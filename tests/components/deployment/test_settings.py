"""A server is told by its environment; what is wrong there is told in one line."""

import pytest

from penstock.components._shared.errors import UserError
from penstock.components.deployment.serving.settings import Settings, read_token


def test_nothing_set_gives_what_is_documented():
    settings = Settings.read({})
    assert (settings.model, settings.host, settings.port) == ("/mnt/models", "127.0.0.1", 8080)
    assert (settings.health_route, settings.predict_route) == ("/health", "/predict")
    assert 1 <= settings.workers <= 4


def test_ours_go_before_the_platforms_and_what_is_empty_is_not_set():
    environment = {"AIP_HTTP_PORT": "8081", "AIP_STORAGE_URI": "gs://b/m", "AZUREML_MODEL_DIR": "/azure"}
    assert Settings.read(environment).port == 8081
    assert Settings.read(environment).model == "gs://b/m"
    ours = {"PENSTOCK_PORT": " 8082 ", "PENSTOCK_MODEL": "/ours", "PENSTOCK_HOST": ""}
    settings = Settings.read({**environment, **ours})
    assert (settings.port, settings.model, settings.host) == (8082, "/ours", "127.0.0.1")
    assert Settings.read({**environment, **ours}, port=1).port == 1


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("PENSTOCK_PORT", "99999", "'99999' is not a whole number from 0 to 65535"),
        ("AIP_HTTP_PORT", "http", "'http' is not a whole number from 0 to 65535"),
        ("PENSTOCK_LOG_SAMPLE", "1.5", "'1.5' is not a number from 0 to 1"),
        ("PENSTOCK_LOG_SAMPLE", "nan", "'nan' is not a number from 0 to 1"),
        ("PENSTOCK_MAX_BYTES", "0", "'0' is not a whole number of at least 1"),
        ("AIP_PREDICT_ROUTE", "predict", "'predict' is no route"),
        ("PENSTOCK_MODEL_NAME", "a/b", "'a/b' cannot be part of a route"),
    ],
)
def test_a_wrong_value_is_told_with_its_variable(variable, value, problem):
    with pytest.raises(UserError) as error:
        Settings.read({variable: value})
    assert str(error.value).startswith(f"serving: {variable}: {problem}.")


def test_a_token_is_read_by_reference(tmp_path):
    (tmp_path / "token").write_text(" abc\n")
    assert read_token("", {}) == b""
    assert read_token(f"file:{tmp_path}/token", {}) == b"abc"
    assert read_token("env:SECRET", {"SECRET": "def"}) == b"def"


def test_a_token_that_cannot_be_had_is_told_without_it(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\xff")
    for reference, problem in (
        ("hunter2", "is no reference to a secret"),
        ("env:", "is no reference to a secret"),
        ("env:SECRET", "the variable SECRET is not set"),
        (f"file:{tmp_path}/empty", "holds nothing"),
        (f"file:{tmp_path}/none", "cannot be read: No such file or directory"),
        (f"file:{tmp_path}/binary", "cannot be read: it is no text"),
    ):
        with pytest.raises(UserError, match=problem) as error:
            read_token(reference, {})
        assert "hunter2" not in str(error.value)
