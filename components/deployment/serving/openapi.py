"""What the server takes and answers as an OpenAPI 3.1 document, made of the model's signature.

What JSON Schema cannot say (that the columns of a request have one length, or a tensor as many values as its shape
says) stands in descriptions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from penstock.components.deployment.serving.metrics import CONTENT_TYPE
from penstock.components.deployment.serving.payloads import CSV, DATATYPES, JSON, LONGEST_ID
from penstock.components.deployment.serving.signature import KINDS, LARGEST, Signature

VERSION = "3.1.0"
_MOST = 1.7976931348623157e308  # of a double

Schema = dict[str, Any]

# By MLflow's name of a type: what JSON has for it.
_TYPES: dict[str, Schema] = {
    "long": {"type": "integer", "minimum": -LARGEST, "maximum": LARGEST},
    "double": {"type": "number", "minimum": -_MOST, "maximum": _MOST},
    "boolean": {"type": "boolean"},
    "any": {"type": "boolean"},
    "string": {"type": "string"},
}


@dataclass(frozen=True)
class Document:
    """What an OpenAPI document is made of.

    Attributes:
        name: Of the model.
        version: Of the model.
        signature: What it reads and writes.
        max_bytes: Longest body of a request.
        secured: Whether a bearer token is asked for.
        example: Rows of the model's own example, by column.
    """

    name: str
    version: str
    signature: Signature
    max_bytes: int
    secured: bool
    example: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class _Get:
    """What a route that is read answers.

    Attributes:
        schema: Of the answer; None where it is no JSON.
        statuses: Other statuses than 200 with the same answer.
    """

    summary: str
    schema: Schema | None
    statuses: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Predict:
    """What a route for predictions takes and answers."""

    summary: str
    request: Callable[[Document], Schema]
    response: Schema
    example: Callable[[Document], Any]
    csv: bool = False


def write(document: Document, routes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI document of a server.

    Args:
        routes: By path: what has a `label`, the name of a row below, and `is_open`, whether it needs no token.
    """
    paths = {
        path: _predicted(document, _PREDICTIONS[route.label])
        if route.label in _PREDICTIONS
        else _read(document, _GETS[route.label], route.is_open)
        for path, route in sorted(routes.items())
    }
    schemas = {
        "Row": _row(document.signature),
        "Values": _values(document.signature),
        "Prediction": _prediction(document.signature),
        "Error": _ERROR,
    }
    schemes = {"bearer": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": VERSION,
        "info": {
            "title": document.name,
            "version": document.version,
            "description": "Predictions of one model in four protocols. A body has at most "
            f"{document.max_bytes} bytes, decompressed; send more rows in several requests.",
            "x-penstock": version("penstock"),
        },
        "paths": paths,
        "components": {"schemas": schemas, **({"securitySchemes": schemes} if document.secured else {})},
        **({"security": [{"bearer": []}]} if document.secured else {}),
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _array(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _object(properties: Mapping[str, Schema], **more: Any) -> Schema:
    return {"type": "object", "properties": dict(properties), "required": list(properties), **more}


def _value(kind: str, required: bool) -> Schema:
    found = _TYPES[kind]
    return found if required else {**found, "type": [found["type"], "null"]}


def _row(signature: Signature) -> Schema:
    return {
        "type": "object",
        "description": "A value by column; columns that the model does not read are ignored.",
        "properties": {field.name: _value(field.type, field.required) for field in signature.inputs},
        "required": [field.name for field in signature.inputs if field.required],
    }


def _values(signature: Signature) -> Schema:
    count = len(signature.inputs)
    return {
        "type": "array",
        "description": f"The values of {', '.join(field.name for field in signature.inputs)}, in this order.",
        "prefixItems": [_value(field.type, field.required) for field in signature.inputs],
        "minItems": count,
        "maxItems": count,
    }


def _prediction(signature: Signature) -> Schema:
    return _object({name: _TYPES[kind] for name, kind in signature.outputs}, additionalProperties=False)


_ROWS: Schema = {"anyOf": [_array(_ref("Row")), _array(_ref("Values"))]}
_NONE: Schema = {"type": ["object", "null"], "maxProperties": 0, "description": "The model takes none."}
_PREDICTED: Schema = _object({"predictions": _array(_ref("Prediction"))})
_KINDS_OF_ERRORS = (
    "malformed",
    "invalid",
    "unauthorized",
    "not_found",
    "method",
    "timeout",
    "too_large",
    "content_type",
    "loading",
    "overloaded",
    "internal",
    "model",
)
_PROBLEM = _object(
    {"row": {"type": ["integer", "null"]}, "field": {"type": "string"}, "problem": {"type": "string"}},
    description="A value that the model cannot read; row null: in all rows.",
)
_ERROR: Schema = {
    **_object(
        {
            "error": {"type": "string", "description": "What is wrong, in one line."},
            "kind": {"type": "string", "enum": list(_KINDS_OF_ERRORS)},
            "request_id": {"type": "string"},
        }
    ),
    "additionalProperties": False,
}
_ERROR["properties"]["problems"] = _array(_PROBLEM)
_ERRORS = {
    400: "The body is not of the protocol's form, or the model cannot read its values.",
    401: "The bearer token is missing or another.",
    408: "The body did not arrive in time.",
    413: "The body is too long.",
    415: "The body is of another type.",
    500: "The server or the model failed.",
    503: "The model is being loaded, or too many requests are at work; Retry-After says when to come again.",
    504: "The prediction was not there in time.",
}


def _split(document: Document) -> Schema:
    columns = [field.name for field in document.signature.inputs]
    return _object(
        {"columns": {"type": "array", "const": columns}, "data": _array(_ref("Values"))},
        description="Rows as pandas has them in its form `split`; the columns may come in another order, with their "
        "values, and others beside them.",
    )


def _by_column(document: Document) -> Schema:
    fields = document.signature.inputs
    return {
        "type": "object",
        "description": "The values of each column, all of one length.",
        "properties": {field.name: _array(_value(field.type, field.required)) for field in fields},
        "required": [field.name for field in fields if field.required],
    }


def _one_of(forms: Mapping[str, Schema], *parameters: str) -> Schema:
    """Return the schema of an object with exactly one of some keys."""
    return {
        "anyOf": [
            {
                "type": "object",
                "properties": {
                    name: schema,
                    **{other: False for other in forms if other != name},
                    **dict.fromkeys(parameters, _NONE),
                },
                "required": [name],
            }
            for name, schema in forms.items()
        ]
    }


def _mlflow(document: Document) -> dict[str, Schema]:
    return {
        "dataframe_split": _split(document),
        "dataframe_records": _ROWS,
        "instances": _ROWS,
        "inputs": {"anyOf": [_by_column(document), *_ROWS["anyOf"]]},
    }


def _azureml(document: Document) -> dict[str, Schema]:
    split_or_rows = {"anyOf": [_split(document), *_ROWS["anyOf"]]}
    return {"input_data": split_or_rows, "data": _ROWS, **_mlflow(document)}


def _tensors(document: Document) -> Schema:
    names = [name for name, _ in document.signature.outputs]
    tensor = _object(
        {
            "name": {"type": "string"},
            "datatype": {"type": "string", "enum": list(DATATYPES)},
            "shape": _array({"type": "integer", "minimum": 0}, minItems=1, maxItems=2),
            "data": {"type": "array"},
        },
        description="A column: as many values as `shape`, [rows] or [rows, 1], says. Each has another name.",
    )
    columns = ", ".join(f"{field.name} ({field.kind.datatype})" for field in document.signature.inputs)
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string", "maxLength": LONGEST_ID},
            "inputs": _array(tensor, description=f"The columns of the model: {columns}."),
            "outputs": _array(
                _object({"name": {"type": "string", "enum": names}}), description="Columns of the answer; none: all."
            ),
        },
        "required": ["inputs"],
    }


_TENSORS: Schema = _object(
    {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "outputs": _array(
            _object(
                {
                    "name": {"type": "string"},
                    "datatype": {"type": "string", "enum": sorted({kind.datatype for kind in KINDS.values()})},
                    "shape": _array({"type": "integer", "minimum": 0}, minItems=1, maxItems=1),
                    "data": {"type": "array"},
                }
            )
        ),
    }
)


def _example_tensors(document: Document) -> Any:
    rows = document.example
    return {
        "inputs": [
            {
                "name": field.name,
                "datatype": field.kind.datatype,
                "shape": [len(rows)],
                "data": [row.get(field.name) for row in rows],
            }
            for field in document.signature.inputs
        ]
    }


_PREDICTIONS = {
    "predict": _Predict(
        "Predict rows: Vertex AI's protocol.",
        lambda document: _one_of({"instances": _ROWS}, "parameters"),
        _PREDICTED,
        lambda document: {"instances": list(document.example)},
    ),
    "score": _Predict(
        "Predict rows: the protocol of Azure ML.",
        lambda document: _one_of(_azureml(document), "params", "parameters", "GlobalParameters"),
        _array(_ref("Prediction")),
        lambda document: {"input_data": list(document.example)},
    ),
    "invocations": _Predict(
        "Predict rows: MLflow's protocol.",
        lambda document: _one_of(_mlflow(document), "params", "parameters"),
        _PREDICTED,
        lambda document: {"dataframe_records": list(document.example)},
        csv=True,
    ),
    "infer": _Predict("Predict rows: the Open Inference Protocol, version 2.", _tensors, _TENSORS, _example_tensors),
}

_TEXT: Schema = {"type": "string"}
_DESCRIBED = _array(_object({"name": _TEXT, "datatype": _TEXT, "shape": _array({"type": "integer"})}))
_GETS = {
    "live": _Get("Whether the server is there.", _object({"live": {"const": True}})),
    "ready": _Get(
        "Whether requests for predictions are wanted.",
        {**_object({"ready": {"type": "boolean"}}), "additionalProperties": _TEXT},
        statuses=(503,),
    ),
    "version": _Get("Versions.", _object({"penstock": _TEXT, "model_name": _TEXT, "model_version": _TEXT})),
    "openapi": _Get("This document.", _object({"openapi": {"const": VERSION}, "paths": {"type": "object"}})),
    "v2": _Get("The server.", _object({"name": _TEXT, "version": _TEXT, "extensions": _array(_TEXT)})),
    "v2_model": _Get(
        "The columns and types of the model.",
        _object(
            {
                "name": _TEXT,
                "versions": _array(_TEXT),
                "platform": _TEXT,
                "inputs": _DESCRIBED,
                "outputs": _DESCRIBED,
            }
        ),
    ),
    "metrics": _Get("Metrics in Prometheus's text format.", None),
}

_REQUEST_ID = {
    "name": "X-Request-Id",
    "in": "header",
    "description": "What to call the request in the answer and in the log: up to 128 printable ASCII characters.",
    "schema": {"type": "string"},
}
_HEADERS = {"X-Request-Id": {"description": "The request's id, or a new one.", "schema": _TEXT, "required": True}}


def _answer(description: str, schema: Schema | None) -> dict[str, Any]:
    content = {CONTENT_TYPE: {"schema": _TEXT}} if schema is None else {JSON: {"schema": schema}}
    return {"description": description, "headers": _HEADERS, "content": content}


def _errors(document: Document, *statuses: int) -> dict[str, Any]:
    wanted = [status for status in statuses if status != 401 or document.secured]
    return {str(status): _answer(_ERRORS[status], _ref("Error")) for status in wanted}


def _read(document: Document, get: _Get, is_open: bool) -> dict[str, Any]:
    answers = {
        "200": _answer("It is so.", get.schema),
        **{str(status): _answer("It is not so.", get.schema) for status in get.statuses},
        **({} if is_open else _errors(document, 401)),
        **_errors(document, 500),
    }
    operation = {"summary": get.summary, "parameters": [_REQUEST_ID], "responses": answers}
    return {"get": {**operation, **({"security": []} if is_open and document.secured else {})}}


def _predicted(document: Document, predict: _Predict) -> dict[str, Any]:
    content: dict[str, Any] = {JSON: {"schema": predict.request(document), "example": predict.example(document)}}
    if predict.csv:
        content[CSV] = {"schema": {"type": "string", "description": "A header and a line a row; empty is missing."}}
    return {
        "post": {
            "summary": predict.summary,
            "parameters": [_REQUEST_ID],
            "requestBody": {"required": True, "content": content},
            "responses": {
                "200": _answer("A prediction for each row.", predict.response),
                **_errors(document, *_ERRORS),
            },
        }
    }
