"""What requests and answers look like in each protocol; a row of PROTOCOLS is all that the server knows of one.

    vertex   {"instances": [record or list, …], "parameters": {}}
             → {"predictions": [record, …]}
    mlflow   {"dataframe_split" | "dataframe_records" | "instances" | "inputs": …}, or CSV
             → {"predictions": [record, …]}
    azureml  {"input_data": {"columns": …, "data": …} | [record or list, …]}, {"data": …}, or MLflow's
             → [record, …]
    v2       {"inputs": [a tensor a column]}
             → {"outputs": [a tensor a column]}

A record has a value by column; a list has the values in the order of the signature. Values are not looked at here:
signature.py does that for all protocols alike.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.components.deployment.serving.refusal import Problem, Refusal, invalid, malformed, shown
from penstock.components.deployment.serving.signature import ABSENT, KINDS, Signature

JSON, CSV = "application/json", "text/csv"
CONTENT_TYPES = (JSON, CSV)
LONGEST_ID = 128


@dataclass(frozen=True)
class Rows:
    """The rows of a request.

    Attributes:
        count: How many there are.
        columns: Values by column, one a row, None or ABSENT where there is none; columns that the model does not read
            may be among them.
        id: What the request calls itself; empty where it does not.
        outputs: Columns that the answer is to have; None: all.
    """

    count: int
    columns: Mapping[str, Sequence[Any]]
    id: str = ""
    outputs: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Answer:
    """Predictions of the rows of a request.

    Attributes:
        columns: Values by output, as JSON has them.
        request_id: Of the request.
    """

    rows: Rows
    columns: Mapping[str, Sequence[Any]]
    signature: Signature
    model_name: str
    model_version: str
    request_id: str


@dataclass(frozen=True)
class Protocol:
    """How one protocol is read and written.

    Attributes:
        read: Makes rows of the parsed JSON of a body.
        write: Makes the JSON of an answer.
        csv: Whether a body may be CSV, too.
    """

    read: Callable[[Any, Signature], Rows]
    write: Callable[[Answer], Any]
    csv: bool = field(default=False)


def read(protocol: Protocol, content_type: str, body: bytes, signature: Signature) -> Rows:
    """Return the rows of a body.

    Raises:
        Refusal: It is not what the protocol says.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise malformed(f"the body is not UTF-8: byte {error.start}") from None
    if content_type == CSV:
        return _read_csv(text, signature)
    try:
        parsed = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise malformed("the body is nested too deeply") from None
    except ValueError as error:
        raise malformed(f"the body is not JSON: {error}") from None
    return protocol.read(parsed, signature)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value; write null for what is missing")


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise malformed(f"{what} is {_article(value)}, not an object")
    return value


def _array(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise malformed(f"{what} is {_article(value)}, not an array")
    return value


def _article(value: Any) -> str:
    return shown(value) if value is None or isinstance(value, list | dict) else f"the value {shown(value)}"


def _no_parameters(body: Mapping[str, Any], *names: str) -> None:
    for name in names:
        given = body.get(name)
        if given is not None and _object(given, name):
            raise malformed(f"{name} has {_names(given)}; the model takes none")


def _one_of(body: Any, names: Sequence[str]) -> tuple[str, Any]:
    """Return the one of these keys that an object has, and its value."""
    found = [name for name in names if name in _object(body, "the body")]
    if len(found) != 1:
        what = f"both {found[0]} and {found[1]}" if found else f"none of {', '.join(names)}"
        raise malformed(f"the body has {what}; give one of them" + ("" if found else f", not {_names(body)}"))
    return found[0], body[found[0]]


def _names(values: Sequence[str] | Mapping[str, Any]) -> str:
    names = [shown(name) for name in values]
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "") if names else "nothing"


def _records(rows: Any, what: str, signature: Signature) -> Rows:
    """Return rows that are objects by column, or arrays in the order of the signature."""
    rows = _array(rows, what)
    kinds = set(map(type, rows))
    if kinds <= {dict}:
        columns = {each.name: [row.get(each.name, ABSENT) for row in rows] for each in signature.inputs}
        return Rows(len(rows), columns)
    if kinds == {list}:
        return _table([each.name for each in signature.inputs], rows, what)
    if not kinds <= {dict, list}:
        place = next(place for place, row in enumerate(rows) if type(row) not in (dict, list))
        raise malformed(
            f"{what}[{place}] is {_article(rows[place])}, neither an object by column nor an array of values"
        )
    raise malformed(f"{what} has objects and arrays; give one of the two")


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]], what: str) -> Rows:
    for place, row in enumerate(rows):
        if len(row) != len(names):
            raise malformed(f"{what}[{place}] has {len(row)} values for {len(names)} columns")
    return Rows(len(rows), {name: [row[place] for row in rows] for place, name in enumerate(names)})


def _split(value: Any, what: str) -> Rows:
    """Return rows in the form of pandas that is called "split"."""
    value = _object(value, what)
    names = _array(value.get("columns"), f"{what}.columns")
    for name in names:
        if not isinstance(name, str):
            raise malformed(f"{what}.columns has {_article(name)}, not a name")
    if len(set(names)) < len(names):
        raise malformed(f"{what}.columns names a column twice")
    rows = _array(value.get("data"), f"{what}.data")
    for place, row in enumerate(rows):
        _array(row, f"{what}.data[{place}]")
    return _table(names, rows, f"{what}.data")


def _by_column(value: dict[str, Any], what: str) -> Rows:
    lengths = {name: len(_array(values, f"{what}.{name}")) for name, values in value.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{shown(name)} {count}" for name, count in list(lengths.items())[:10])
        raise malformed(f"{what} has columns of different lengths: {told}")
    return Rows(next(iter(lengths.values()), 0), value)


def _split_or_records(value: Any, what: str, signature: Signature) -> Rows:
    return _split(value, what) if isinstance(value, dict) else _records(value, what, signature)


def _columns_or_records(value: Any, what: str, signature: Signature) -> Rows:
    return _by_column(value, what) if isinstance(value, dict) else _records(value, what, signature)


_MLFLOW: dict[str, Callable[[Any, str, Signature], Rows]] = {
    "dataframe_split": lambda value, what, signature: _split(value, what),
    "dataframe_records": _records,
    "instances": _records,
    "inputs": _columns_or_records,
}
_AZUREML = {"input_data": _split_or_records, "data": _records, **_MLFLOW}


def _read_vertex(body: Any, signature: Signature) -> Rows:
    _, instances = _one_of(body, ["instances"])
    _no_parameters(body, "parameters")
    return _records(instances, "instances", signature)


def _read_mlflow(body: Any, signature: Signature) -> Rows:
    name, value = _one_of(body, list(_MLFLOW))
    _no_parameters(body, "params", "parameters")
    return _MLFLOW[name](value, name, signature)


def _read_azureml(body: Any, signature: Signature) -> Rows:
    name, value = _one_of(body, list(_AZUREML))
    _no_parameters(body, "params", "parameters", "GlobalParameters")
    return _AZUREML[name](value, name, signature)


DATATYPES: dict[str, frozenset[type]] = {
    "BOOL": frozenset({bool}),
    "BYTES": frozenset({str}),
    **{f"{sign}INT{bits}": frozenset({int}) for sign in ("", "U") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": frozenset({int, float}) for bits in (16, 32, 64)},
}


def _read_v2(body: Any, signature: Signature) -> Rows:
    body = _object(body, "the body")
    columns: dict[str, Sequence[Any]] = {}
    problems: list[Problem] = []
    known = {each.name: each for each in signature.inputs}
    for place, tensor in enumerate(_array(body.get("inputs"), "inputs")):
        name, values = _tensor(tensor, f"inputs[{place}]")
        if name in columns:
            raise malformed(f"inputs has the tensor {shown(name)} twice")
        columns[name] = values
        datatype = tensor["datatype"]
        if name in known and not known[name].kind.types & DATATYPES[datatype]:
            wanted = known[name].kind
            problems.append(
                Problem(None, name, f"is of {datatype}; the model reads {wanted.wanted}, {wanted.datatype}")
            )
    if problems:
        raise invalid(problems)
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        told = ", ".join(f"{shown(name)} {len(values)}" for name, values in list(columns.items())[:10])
        raise malformed(f"inputs has tensors of different lengths: {told}")
    identity = body.get("id", "")
    if not isinstance(identity, str) or len(identity) > LONGEST_ID or not identity.isprintable():
        raise malformed(f"id is {_article(identity)}, not a printable string of at most {LONGEST_ID} characters")
    return Rows(lengths.pop() if lengths else 0, columns, identity, _wanted(body, signature))


def _tensor(tensor: Any, what: str) -> tuple[str, list[Any]]:
    """Return name and values of a tensor with one value a row."""
    tensor = _object(tensor, what)
    name, datatype = tensor.get("name"), tensor.get("datatype")
    if not isinstance(name, str):
        raise malformed(f"{what}.name is {_article(name)}, not a string")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise malformed(f"{what}.datatype is {_article(datatype)}, none of {', '.join(DATATYPES)}")
    parameters = tensor.get("parameters")
    if isinstance(parameters, dict) and "binary_data_size" in parameters:
        raise malformed(f"{what} is binary; this server takes tensors as JSON")
    values = _array(tensor.get("data"), f"{what}.data")
    if values and all(type(value) is list and len(value) == 1 for value in values):
        values = [value[0] for value in values]
    shape = tensor.get("shape")
    if shape not in ([len(values)], [len(values), 1]) or any(type(size) is not int for size in shape):
        # The shape may be long, or hold anything.
        raise malformed(
            f"{what} ({shown(name)}) has {len(values)} values and another shape than [{len(values)}] or "
            f"[{len(values)}, 1]; give a tensor a column, with a value a row"
        )
    types = set(map(type, values)) - {type(None)}
    if not types <= DATATYPES[datatype]:
        row = next(
            row for row, value in enumerate(values) if value is not None and type(value) not in DATATYPES[datatype]
        )
        raise invalid([Problem(row, name, f"is {_article(values[row])}, which is no {datatype}")])
    return name, values


def _wanted(body: Mapping[str, Any], signature: Signature) -> tuple[str, ...] | None:
    if not body.get("outputs"):
        return None
    known = [name for name, _ in signature.outputs]
    wanted = []
    for place, output in enumerate(_array(body["outputs"], "outputs")):
        name = _object(output, f"outputs[{place}]").get("name")
        if name not in known:
            raise malformed(f"outputs[{place}].name is {_article(name)}; the model has {', '.join(known)}")
        wanted.append(name)
    return tuple(dict.fromkeys(wanted))


def _read_csv(text: str, signature: Signature) -> Rows:
    """Return the rows of a CSV with a header; what is empty is missing."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names = next(reader, [])
        if len(set(names)) < len(names):
            raise malformed("the header of the CSV names a column twice")
        rows = []
        for row in reader:
            if len(row) != len(names) and row:
                raise malformed(f"line {reader.line_num} of the CSV has {len(row)} values for {len(names)} columns")
            if row or len(names) == 1:  # an empty line is a row where there is one column, and its value missing
                rows.append(row or [""])
    except csv.Error as error:
        raise malformed(f"line {reader.line_num} of the CSV cannot be read: {error}") from None
    columns: dict[str, list[Any]] = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    problems = []
    for each in signature.inputs:
        for number, value in enumerate(columns.get(each.name, ())):
            try:
                columns[each.name][number] = each.kind.parse(value) if value else None
            except ValueError:
                problems.append(Problem(number, each.name, f"is {shown(value)}; the model reads {each.kind.wanted}"))
    if problems:
        raise invalid(problems)
    return Rows(len(rows), columns)


def _as_records(answer: Answer) -> list[dict[str, Any]]:
    names = list(answer.columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*answer.columns.values(), strict=True)]


def _as_tensors(answer: Answer) -> dict[str, Any]:
    wanted = answer.rows.outputs or tuple(answer.columns)
    types = dict(answer.signature.outputs)
    return {
        "model_name": answer.model_name,
        "model_version": answer.model_version,
        "id": answer.rows.id or answer.request_id,
        "outputs": [
            {
                "name": name,
                "datatype": KINDS[types[name]].datatype,
                "shape": [answer.rows.count],
                "data": answer.columns[name],
            }
            for name in wanted
        ],
    }


def _as_predictions(answer: Answer) -> dict[str, Any]:
    return {"predictions": _as_records(answer)}


PROTOCOLS = {
    "vertex": Protocol(_read_vertex, _as_predictions),
    "mlflow": Protocol(_read_mlflow, _as_predictions, csv=True),
    "azureml": Protocol(_read_azureml, _as_records),
    "v2": Protocol(_read_v2, _as_tensors),
}


def check_content_type(protocol: Protocol, header: str) -> str:
    """Return the type of a body by its header.

    Raises:
        Refusal: The protocol does not take it.
    """
    kind, *parameters = (part.strip().lower() for part in (header or JSON).split(";"))
    charsets = [part.removeprefix("charset=").strip('"') for part in parameters if part.startswith("charset=")]
    if kind not in (CONTENT_TYPES if protocol.csv else (JSON,)) or any(name not in _CHARSETS for name in charsets):
        wanted = f"{JSON} or {CSV}" if protocol.csv else JSON
        raise Refusal(415, "content_type", f"the body is of type {shown(header)}; send {wanted} in UTF-8")
    return kind


_CHARSETS = ("utf-8", "utf8", "us-ascii")
