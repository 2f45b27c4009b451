"""The columns that a model reads and writes, and whether rows are such that it can read them.

MLmodel's signature has the types, features.json which categories there are. A request is held to both before the model
sees it, column by column: the types of all values of a column are looked at as one set, so that of rows without fault
hardly more is asked than to be numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from penstock.components._shared.errors import UserError
from penstock.components._shared.model import TabularModel
from penstock.components._shared.tabular import hashed
from penstock.components.deployment.serving.refusal import SHOWN, Problem, Refusal, invalid, shown

LARGEST = 2**53 - 1  # of whole numbers that a float64 tells apart
REMEMBERED = 100_000  # texts whose bins are


class _Absent:
    """Stands where a row says nothing of a column."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()


class Bins(dict[str, float]):
    """Bins of texts that are hashed, looked up once for texts that come often."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self._bins = bins

    def get(self, text: Any, default: Any = None) -> Any:
        """Return the bin of a text, or the default of an empty one and of none, which are missing."""
        if not isinstance(text, str):
            return default
        found = super().get(text)
        if found is None:
            found = float(hashed([text], self._bins)[0])
            if len(self) < REMEMBERED:
                self[text] = found
        return default if np.isnan(found) else found


@dataclass(frozen=True)
class Field:
    """A column of a signature.

    Attributes:
        type: MLflow's name of it: "long", "double", "boolean", "string", or "any", a boolean that may be missing.
        required: Whether each row has to have a value.
        codes: Place of each category, or bin of any text; empty where the column is no text. None: a transform graph
            reads the texts.
    """

    name: str
    type: str
    required: bool
    codes: Mapping[str, float] | None

    @property
    def kind(self) -> Kind:
        return KINDS[self.type]


@dataclass(frozen=True)
class Kind:
    """What the values of a type are.

    Attributes:
        wanted: How errors call them.
        types: Python types that JSON gives them.
        datatype: Name in the Open Inference Protocol.
        flaw: Returns what is wrong with a value, or nothing.
        parse: Makes one of a text of CSV; raises ValueError.
    """

    wanted: str
    types: frozenset[type]
    datatype: str
    flaw: Callable[[Any], str]
    parse: Callable[[str], Any]


@dataclass(frozen=True)
class Signature:
    """What a model reads and writes.

    Attributes:
        inputs: In the order of the matrix.
        outputs: Name and MLflow's type of each column of a prediction.
        transform: Makes the matrix of the columns, where the model has a transform graph.
    """

    inputs: tuple[Field, ...]
    outputs: tuple[tuple[str, str], ...]
    transform: Callable[[pd.DataFrame], np.ndarray] | None = None

    @classmethod
    def of(cls, model: TabularModel, folder: Path) -> Signature:
        """Return the signature of a verified model folder."""
        written = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["signature"]
        types = {entry["name"]: entry for entry in json.loads(written["inputs"])}
        inputs = tuple(
            Field(
                name=column["name"],
                type=types[column["name"]]["type"],
                required=not column["optional"],
                codes=_codes(column),
            )
            for column in model.columns
        )
        outputs = tuple((entry["name"], entry["type"]) for entry in json.loads(written["outputs"]))
        return cls(inputs, outputs, model.matrix if model.transforms else None)

    def matrix(self, columns: Mapping[str, Sequence[Any]], rows: int) -> np.ndarray:
        """Return the matrix that the model reads, float64: (rows, inputs), or as its transform graph makes it.

        Args:
            columns: Values by column, `rows` of each, None or ABSENT where there is none. Columns that the model does
                not read are ignored.

        Raises:
            Refusal: Values are missing or of another kind; it names row and field.
        """
        matrix = np.full((rows, len(self.inputs)), np.nan, dtype=object if self.transform else np.float64)
        problems: list[Problem] = []
        for place, field in enumerate(self.inputs):
            values = columns.get(field.name)
            if values is None:
                if field.required and rows:
                    problems.append(Problem(None, field.name, f"is missing; the model reads {field.kind.wanted}"))
                continue
            column = _encoded(field, values)
            if column is None:
                problems += _problems(field, values, SHOWN + 1 - len(problems))
            else:
                matrix[:, place] = column
            if len(problems) > SHOWN:
                break
        if problems:
            raise invalid(problems)
        return matrix if self.transform is None else self._transformed(matrix, self.transform)

    def _transformed(self, rows: np.ndarray, transform: Callable[[pd.DataFrame], np.ndarray]) -> np.ndarray:
        kinds = {field.name: object if field.codes is None else np.float64 for field in self.inputs}
        frame = pd.DataFrame({name: rows[:, place].astype(kind) for place, (name, kind) in enumerate(kinds.items())})
        try:
            return transform(frame)
        except UserError as error:
            raise Refusal(400, "invalid", error.problem) from error


def _codes(column: Mapping[str, Any]) -> Mapping[str, float] | None:
    if column["kind"] == "text":
        return Bins(column["bins"]) if "bins" in column else None
    return {text: place for place, text in enumerate(column.get("categories", ()))}


def _encoded(field: Field, values: Sequence[Any]) -> np.ndarray | None:
    """Return a column as the model reads it, or None where one of its values is at fault."""
    types = set(map(type, values))
    gaps = types & _GAPS
    if gaps and field.required:
        return None
    types -= _GAPS
    if not types <= field.kind.types:
        return None
    if field.type == "string":
        present = [value for value in values if type(value) is str] if gaps else values
        try:
            "".join(present).encode()
        except UnicodeEncodeError:
            return None
        codes = field.codes
        if codes is None:
            return np.array([value if type(value) is str else None for value in values], dtype=object)
        return np.array([codes.get(value, np.nan) for value in values], dtype=np.float64)
    try:
        if gaps:
            values = [np.nan if value is None or value is ABSENT else value for value in values]
        column = np.array(values, dtype=np.float64)
    except OverflowError:
        return None
    if field.type in ("long", "double") and types:
        known = column[~np.isnan(column)] if gaps else column
        if not np.isfinite(known).all():
            return None
        if field.type == "long" and ((np.abs(known) > LARGEST).any() or (known != np.floor(known)).any()):
            return None
    return column


_GAPS = {type(None), _Absent}


def _problems(field: Field, values: Sequence[Any], most: int) -> list[Problem]:
    """Return what is wrong with the values of a column, from the first row on."""
    found: list[Problem] = []
    for row, value in enumerate(values):
        if value is None or value is ABSENT:
            gap = "is null" if value is None else "is missing"
            text = f"{gap}; the model reads {field.kind.wanted}" if field.required else ""
        elif type(value) not in field.kind.types:
            text = f"is {_told(value)}; the model reads {field.kind.wanted}"
        else:
            text = field.kind.flaw(value)
        if text:
            found.append(Problem(row, field.name, text))
            if len(found) == most:
                break
    return found


def _told(value: Any) -> str:
    names = {bool: "the boolean ", int: "the number ", float: "the number ", str: "the text "}
    return f"{names.get(type(value), '')}{shown(value)}"


def _number_flaw(value: float) -> str:
    try:
        finite = np.isfinite(float(value))
    except OverflowError:
        finite = False
    return "" if finite else f"is {shown(value)}, beyond what a double holds"


def _whole_flaw(value: float) -> str:
    if flaw := _number_flaw(value):
        return flaw
    if value != int(value):
        return f"is {shown(value)}; the model reads {KINDS['long'].wanted}"
    return "" if abs(value) <= LARGEST else f"is {shown(value)}, beyond ±(2^53 - 1)"


def _text_flaw(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"is {shown(value)}, half of a surrogate pair and no text"
    return ""


def _whole(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return _double(text)


def _double(text: str) -> float:
    value = float(text)
    if not np.isfinite(value):
        raise ValueError(text)
    return value


def _boolean(text: str) -> bool:
    lower = text.strip().lower()
    if lower not in ("true", "false"):
        raise ValueError(text)
    return lower == "true"


_BOOLEAN = Kind("a boolean", frozenset({bool}), "BOOL", lambda value: "", _boolean)
KINDS = {
    "long": Kind("a whole number (long)", frozenset({int, float}), "INT64", _whole_flaw, _whole),
    "double": Kind("a number (double)", frozenset({int, float}), "FP64", _number_flaw, _double),
    "boolean": _BOOLEAN,
    "any": _BOOLEAN,
    "string": Kind("text (string)", frozenset({str}), "BYTES", _text_flaw, str),
}
