"""JSON Lines files: keys, sample, and the SQL that reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

from penstock.components._shared.engine import identifier, literal
from penstock.components.ingestion.problems import problem
from penstock.components.ingestion.rejects import NOT_UTF8, Reject
from penstock.components.ingestion.sieve import LONGEST_LINE, Record, in_blocks, sieve
from penstock.components.ingestion.sources import File
from penstock.components.ingestion.types import MARK, Column, Evidence, choose
from penstock.components.ingestion.unpack import text_stream

SAMPLED = 4 << 20  # bytes of all files together, but at least SAMPLED_LINES lines of each
SAMPLED_LINES = 100


@dataclass(frozen=True)
class JsonlFiles:
    """JSON Lines files and their columns: the keys of their objects; objects and arrays inside stay JSON text.

    Attributes:
        is_sieved: Whether they are to be sieved, be they readable from end to end or not.
    """

    files: tuple[File, ...]
    columns: tuple[Column, ...]
    is_sieved: bool = False

    def relation(self, bare: bool = False) -> str:
        """Return the SQL of the rows of all files, in order; bare, for fitted()."""
        read = ", ".join(
            f"CAST(object.{identifier(column.name)} AS {column.read_as}) AS {identifier(column.name)}"
            for column in self.columns
        )
        values = ", ".join(
            f"{column.value(number, bare)} AS {identifier(column.name)}" for number, column in enumerate(self.columns)
        )
        return f"SELECT {values} FROM (SELECT {read} FROM {self._objects([file.path for file in self.files])})"

    def only(self, number: int) -> JsonlFiles:
        """Return these files without the others."""
        return replace(self, files=(self.files[number],))

    def clean(self, connection: duckdb.DuckDBPyConnection, number: int, target: Path) -> Iterator[list[Reject]]:
        """Write a copy of one file without its bad rows to `target`, and yield these."""
        file = self.files[number]
        names = ", ".join(f"object.{identifier(column.name)}" for column in self.columns)
        known = {column.name for column in self.columns}
        yield from sieve(
            connection,
            file.name,
            in_blocks(_records(file.path, known, file.left_out)),
            target,
            b"",
            lambda block: f"(SELECT {names} FROM {self._objects([block])})",
            self.columns,
        )

    def replaced(self, cleaned: dict[int, Path]) -> JsonlFiles:
        """Return the same with clean copies in the place of files, by their numbers."""
        return replace(
            self,
            files=tuple(replace(file, path=cleaned.get(number, file.path)) for number, file in enumerate(self.files)),
        )

    def _objects(self, paths: Sequence[Path]) -> str:
        """Return the SQL of a table with the column `object`: a struct of the texts of all columns."""
        structure = json.dumps({column.name: "VARCHAR" for column in self.columns})
        other = f"error('{MARK}other')"
        known = literal([column.name for column in self.columns])
        # Another key, or something that is no object, is an error, so that the file is sieved.
        is_known = f"json_type(json) = 'OBJECT' AND list_has_all({known}, json_keys(json))"
        return (
            f"(SELECT json_transform(CASE WHEN {is_known} THEN json ELSE {other} END, {literal(structure)}) AS object "
            f"FROM read_ndjson_objects({literal(map(str, paths))}, maximum_object_size = {2 * LONGEST_LINE}))"
        )


@dataclass(frozen=True)
class JsonlLook:
    """What one file of several shows.

    Attributes:
        keys: Of the objects in its sample, each with the first line it is in.
        texts: Keys that have a string for a value somewhere.
        passed: What its sample says of types; see Evidence.
        any_line: Whether there is a line, be it no object.
    """

    keys: tuple[tuple[str, int], ...]
    texts: frozenset[str]
    passed: Mapping[str, frozenset[str]]
    any_line: bool

    def told(self) -> dict[str, Any]:
        """Return it as JSON values."""
        passed = {name: sorted(tests) for name, tests in self.passed.items()}
        return vars(self) | {"texts": sorted(self.texts), "passed": passed}

    @classmethod
    def of(cls, told: dict[str, Any]) -> JsonlLook:
        """Return what `told` made JSON values of."""
        keys = tuple((key, line) for key, line in told["keys"])
        passed = {name: frozenset(tests) for name, tests in told["passed"].items()}
        return cls(keys, frozenset(told["texts"]), passed, told["any_line"])


def look(connection: duckdb.DuckDBPyConnection, file: File, files: int, scratch: Path) -> JsonlLook:
    """Return what a file shows.

    Args:
        files: How many files share what is sampled.
    """
    keys: dict[str, int] = {}
    texts: set[str] = set()
    evidence = Evidence()
    any_line = False
    sample = scratch / "sample.json"
    with sample.open("w", encoding="utf-8") as output:
        for record, value in _sampled(file.path, SAMPLED // files):
            any_line = True
            if not isinstance(value, dict):
                continue
            for key, item in value.items():
                keys.setdefault(key, record.line)
                if isinstance(item, str):
                    texts.add(key)
            output.write(json.dumps({key: _text(item) for key, item in value.items()}) + "\n")
    if keys and len({key.casefold() for key in keys}) == len(keys):  # otherwise open_jsonl refuses them
        structure = literal(json.dumps(dict.fromkeys(sorted(keys), "VARCHAR")))
        table = f"(SELECT unnest(json_transform(json, {structure})) FROM read_ndjson_objects({literal([str(sample)])}))"
        evidence.add(connection, sorted(keys), table)
    passed = {name: frozenset(tests) for name, tests in evidence.passed.items()}
    return JsonlLook(tuple(keys.items()), frozenset(texts), passed, any_line)


def open_jsonl(files: Sequence[File], looks: Sequence[JsonlLook], given: dict[str, str]) -> JsonlFiles:
    """Return files with their columns and types, from a look at each.

    Raises:
        UserError: No line is an object, or `given` names a column that is in no file.
    """
    names: dict[str, str] = {}
    texts: set[str] = set()
    evidence = Evidence()
    for file, each in zip(files, looks, strict=True):
        for key, line in each.keys:
            if names.setdefault(key.casefold(), key) != key:
                what = f"{file.name}:{line}: {names[key.casefold()]!r} and {key!r} differ only in case"
                raise problem("source", what, "Give one of the keys another name")
        texts |= each.texts
        for name, passed in each.passed.items():
            evidence.keep(name, set(passed))
    if not names:
        what = "no line is a JSON object" if any(each.any_line for each in looks) else "there is no data row"
        shown = files[0].name if len(files) == 1 else f"{files[0].name} and the {len(files) - 1} after it"
        raise problem("source", f"{shown}: {what}", "Write one JSON object a line")
    types = {name: type for name, type in evidence.types().items() if not (name in texts and _is_scalar(type))}
    return JsonlFiles(tuple(files), choose([*names.values()], types, given))


def _is_scalar(type: str) -> bool:
    return type in ("BOOLEAN", "BIGINT", "DOUBLE")


def _text(item: Any) -> str | None:
    return item if item is None or isinstance(item, str) else json.dumps(item)


def _sampled(path: Path, most: int) -> Iterator[tuple[Record, Any]]:
    read = 0
    for record in _records(path, None):
        read += len(record.raw)
        if read > most and record.line > SAMPLED_LINES:
            return
        yield record, None if record.fault else json.loads(record.raw)


def _records(path: Path, known: set[str] | None, line: int = 0) -> Iterator[Record]:
    with text_stream(path) as stream:
        while raw := stream.readline(LONGEST_LINE + 1):
            line += 1
            if len(raw) > LONGEST_LINE and not raw.endswith(b"\n"):
                while (rest := stream.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                    pass
                yield Record(line, raw, f"the line is longer than {LONGEST_LINE} bytes")
            elif raw.strip():
                raw = raw.strip()
                yield Record(line, raw, _fault(raw, known))


def _fault(raw: bytes, known: set[str] | None) -> str:
    try:
        value = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return f"byte {error.start + 1} of the line, 0x{raw[error.start]:02x}, {NOT_UTF8}"
    except (ValueError, RecursionError) as error:
        return f"this is not JSON ({error})"
    if not isinstance(value, dict):
        return "this is JSON, but not an object"
    if known is not None and (others := value.keys() - known):
        return f"the key {min(others)!r} is in no sampled line; name it in columns"
    return ""
