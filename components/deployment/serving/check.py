"""Asks the server beside it for its model's own example in every protocol; exits with 0 where each answer is right.

    python -m penstock.components.deployment.serving.check

It reads the same settings as the server. Right is, bit for bit, what the model predicts in this process.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from typing import Any

from penstock.components._shared.errors import USER_ERROR_EXIT_CODE, UserError
from penstock.components.deployment.serving import payloads, served
from penstock.components.deployment.serving.health import ask
from penstock.components.deployment.serving.settings import Settings, read_token

SECONDS = 60.0  # for the server to become ready
ANSWER = 30.0  # seconds for one answer

Example = Mapping[str, Any]  # {"columns": […], "data": [[…], …]}


def main() -> int:
    """Ask; return the code to exit with."""
    try:
        settings = Settings.read(os.environ)
        model = served.load(settings)
        token = read_token(settings.token, os.environ).decode()
    except UserError as error:
        print(f"error: {error}")
        return USER_ERROR_EXIT_CODE
    rows = payloads.read(payloads.PROTOCOLS["mlflow"], payloads.JSON, model.example, model.signature)
    expected = {name: values.tolist() for name, values in model.predict(rows).items()}
    if not _ready(settings):
        print(f"port {settings.port} is not ready after {SECONDS:g} s")
        return 1
    wrong = 0
    example = json.loads(model.example)["dataframe_split"]
    for route, kind, body in requests(settings, model, example):
        try:
            answer = _predictions(settings, route, kind, body, token)
            problem = "" if columns(answer) == expected else f"predicts {json.dumps(answer)[:500]}"
        except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
            problem = f"fails: {error}"
        wrong += bool(problem)
        print(f"POST {route} ({kind}): {problem or 'what the model predicts'}")
    return 1 if wrong else 0


def requests(settings: Settings, model: served.Served, example: Example) -> Iterator[tuple[str, str, bytes]]:
    """Yield route, content type and body of a request in every form that the server understands."""
    names, data = example["columns"], example["data"]
    records = [dict(zip(names, row, strict=True)) for row in data]
    by_column = {name: [row[place] for row in data] for place, name in enumerate(names)}
    for route, body in (
        (settings.predict_route, {"instances": records, "parameters": {}}),
        (settings.predict_route, {"instances": data}),
        ("/score", {"input_data": example}),
        ("/score", {"input_data": records}),
        ("/score", {"data": data}),
        ("/invocations", {"dataframe_split": example}),
        ("/invocations", {"dataframe_records": records}),
        ("/invocations", {"instances": records}),
        ("/invocations", {"inputs": by_column}),
        *(
            (f"/v2/models/{model.name}{tail}/infer", tensors(model, by_column))
            for tail in ("", f"/versions/{model.version}")
        ),
    ):
        yield route, payloads.JSON, json.dumps(body).encode()
    yield "/invocations", payloads.CSV, _as_csv(names, data)


def tensors(model: served.Served, by_column: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Return a request of the Open Inference Protocol."""
    return {
        "inputs": [
            {
                "name": field.name,
                "datatype": field.kind.datatype if field.type != "long" or _whole(values) else "FP64",
                "shape": [len(values)],
                "data": values,
            }
            for field in model.signature.inputs
            for values in [by_column[field.name]]
        ]
    }


def columns(answer: Any) -> dict[str, list[Any]]:
    """Return the columns of an answer of any protocol."""
    if isinstance(answer, dict) and "outputs" in answer:
        return {tensor["name"]: tensor["data"] for tensor in answer["outputs"]}
    records = answer["predictions"] if isinstance(answer, dict) else answer
    return {name: [record[name] for record in records] for name in records[0]}


def _whole(values: list[Any]) -> bool:
    return all(value is None or isinstance(value, int) for value in values)


def _as_csv(names: list[str], data: list[list[Any]]) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(names)
    writer.writerows([["" if value is None else value for value in row] for row in data])
    return file.getvalue().encode()


def _predictions(settings: Settings, route: str, kind: str, body: bytes, token: str) -> Any:
    headers = {"Content-Type": kind, **({"Authorization": f"Bearer {token}"} if token else {})}
    status, answer = ask(settings, "POST", route, body, headers, seconds=ANSWER)
    if status != 200:
        raise ValueError(f"{status}: {answer.decode(errors='replace')[:500]}")
    return json.loads(answer)


def _ready(settings: Settings) -> bool:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError, HTTPException):
            if ask(settings, "GET", settings.health_route, seconds=5)[0] == 200:
                return True
        time.sleep(0.1)
    return False


if __name__ == "__main__":
    sys.exit(main())
