"""The server's own OpenAPI document: what it says is so, whatever is sent."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jsonschema
import pytest
import schemathesis

from penstock.components.deployment.serving import openapi
from tests.components.deployment.conftest import MODELS, serving

TOKEN = "s3cret"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)


def documented(loaded, name: str, **more) -> dict:
    """Return the document of a model, with the routes for predictions."""
    model = loaded(name)
    given = {"max_bytes": 1000, "secured": False, **more}
    document = openapi.Document(model.name, model.version, model.signature, example=model.example_rows, **given)
    return openapi.write(document, ROUTES)


class _Route:
    def __init__(self, label: str) -> None:
        self.label, self.is_open = label, False


ROUTES = {f"/{label}": _Route(label) for label in ("predict", "score", "invocations", "infer")}


def resolved(document: dict, schema: dict) -> dict:
    return {**schema, "components": document["components"]}


@pytest.mark.parametrize("name", MODELS)
def test_the_document_is_sound_and_its_examples_fit_its_schemas(loaded, name):
    document = documented(loaded, name)
    schemathesis.openapi.from_dict(document).validate()
    for path in document["paths"].values():
        content = path["post"]["requestBody"]["content"]["application/json"]
        jsonschema.Draft202012Validator(resolved(document, content["schema"])).validate(content["example"])


def test_schemas_are_those_of_the_signature(loaded):
    row = documented(loaded, "xgboost-binary")["components"]["schemas"]["Row"]
    assert row["required"] == ["size", "color", "shut"]
    types = {name: schema["type"] for name, schema in row["properties"].items()}
    assert types == {
        "size": "integer",
        "color": "string",
        "gaps": ["number", "null"],
        "share": ["number", "null"],
        "open": ["boolean", "null"],
        "shut": "boolean",
    }
    prediction = documented(loaded, "xgboost-multiclass")["components"]["schemas"]["Prediction"]
    assert set(prediction["required"]) > {"prediction", "probability_warm"}


@pytest.mark.parametrize(
    ("form", "fits"),
    [
        ({"instances": []}, True),
        ({"inputs": {"size": [1], "color": ["red"], "shut": [True]}}, True),
        ({"inputs": {"size": [1]}}, False),
        ({"inputs": [], "instances": []}, False),
        ({"instances": [], "params": {}}, True),
        ({"instances": [], "params": {"top": 1}}, False),
        ({"dataframe_records": [{"size": "x", "color": "red", "shut": True}]}, False),
        ({}, False),
    ],
)
def test_schemas_refuse_what_the_server_refuses(loaded, server, form, fits):
    document = documented(loaded, "xgboost-binary")
    schema = document["paths"]["/invocations"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert jsonschema.Draft202012Validator(resolved(document, schema)).is_valid(form) is fits
    assert (server.post("/invocations", form)[0] == 200) is fits


def test_every_route_is_described_and_nothing_else(server):
    status, document = server.get("/openapi.json")
    assert status == 200
    there = server.get("/nowhere")[1]["error"].partition("there are ")[2].split(", ")
    assert list(document["paths"]) == there
    assert (document["info"]["title"], document["info"]["version"]) == ("model", "7")
    assert "1000000 bytes" in document["info"]["description"]


def test_examples_are_answered_as_the_document_says(server):
    document = server.get("/openapi.json")[1]
    for path, operations in document["paths"].items():
        if "post" not in operations:
            continue
        status, answer = server.post(path, operations["post"]["requestBody"]["content"]["application/json"]["example"])
        assert status == 200, (path, answer)
        schema = operations["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator(resolved(document, schema)).validate(answer)


def test_a_token_is_asked_for_where_the_document_says_so(models):
    with serving(models("xgboost-binary"), PENSTOCK_TOKEN="env:THE_TOKEN", THE_TOKEN=TOKEN) as running:
        assert running.get("/openapi.json")[0] == 401
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        document = running.get("/openapi.json", headers=bearer)[1]
        assert document["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}
        assert document["security"] == [{"bearer": []}]
        for path, operations in document["paths"].items():
            if "get" in operations:
                is_open = operations["get"].get("security") == []
                assert (running.get(path)[0] == 401) is not is_open, path


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_request_without_the_token_is_answered(models):
    with serving(models("xgboost-binary"), PENSTOCK_TOKEN="env:THE_TOKEN", THE_TOKEN=TOKEN) as running:
        fuzzed(running, "ignored_auth", examples=3, options=[f"--header=Authorization: Bearer {TOKEN}"])


def fuzzed(running, *more: str, examples: int, options: Sequence[str] = ()) -> None:
    """Send a server what its document allows, and what it does not, and hold its answers to the document."""
    command = [
        Path(sys.executable).with_name("schemathesis"),
        "run",
        f"http://127.0.0.1:{running.port}/openapi.json",
        f"--checks={','.join((*CHECKS, *more))}",
        "--phases=examples,coverage,fuzzing",
        f"--max-examples={examples}",
        "--mode=all",
        "--seed=1",
        "--no-color",
        *options,
    ]
    with tempfile.TemporaryDirectory() as folder:  # it keeps what it has found
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    [sent] = re.findall(r"(\d+) generated", done.stdout)
    assert int(sent) > 100


@pytest.mark.slow
def test_no_request_that_can_be_made_of_the_document_is_answered_otherwise(server):
    fuzzed(server, examples=5)
    assert server.metric('penstock_errors_total{kind="internal"}') == 0


def test_what_the_schema_of_rows_allows_is_predicted(server):
    fuzzed(server, "positive_data_acceptance", examples=30, options=["--include-path=/predict"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_model_of_another_task_holds_to_its_document_too(models):
    with serving(models("sklearn-regression")) as running:
        fuzzed(running, examples=10)
        assert running.metric('penstock_errors_total{kind="internal"}') == 0


def test_a_body_that_is_too_long_is_refused_as_the_document_says(server):
    document = server.get("/openapi.json")[1]
    status, answer = server.post("/predict", {"instances": [{"color": "x" * 1_000_001}]})
    assert status == 413
    schema = document["paths"]["/predict"]["post"]["responses"]["413"]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator(resolved(document, schema)).validate(answer)
    assert answer["kind"] == "too_large"
