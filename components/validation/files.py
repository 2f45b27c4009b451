"""Reading and writing the messages: statistics in binary, schemas and anomalies as text; both forms are read."""

from __future__ import annotations

import os
import threading
import urllib.parse
from pathlib import Path

import fsspec
from google.protobuf import text_format
from google.protobuf.message import Message
from tensorflow_metadata.proto.v0.schema_pb2 import Schema

from penstock.components._shared.errors import UserError
from penstock.components._shared.messages import parse, read_bytes
from penstock.components._shared.paths import user_path
from penstock.components.validation.schemas import contradiction

SCHEMA_BYTES = 16 << 20
FETCH_SECONDS = 60.0
_EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3", "abfs": "azure-storage", "abfss": "azure-storage"}


def write_text(message: Message, path: str | os.PathLike[str]) -> None:
    """Write a message as text (pbtxt), atomically."""
    _write(text_format.MessageToString(message, as_utf8=True).encode(), path)


def write_binary(message: Message, path: str | os.PathLike[str]) -> None:
    """Write a message in binary, atomically; the same message gives the same bytes."""
    _write(message.SerializeToString(deterministic=True), path)


def _write(content: bytes, path: str | os.PathLike[str]) -> None:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(target.name + ".unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(target)


def read_schema(path: str | os.PathLike[str], argument: str) -> Schema:
    """Read a schema, as text or in binary.

    Raises:
        UserError: It is not there or does not parse; the line is named.
    """
    return parse_schema(read_bytes(path, "validate", argument), str(path), argument)


def fetch_schema(uri: str, argument: str, seconds: float = FETCH_SECONDS) -> Schema:
    """Read a schema from a path or a URI of a storage that fsspec knows, of at most 16 MiB.

    Raises:
        UserError: It is not there, too large, not here in time, or does not parse.
    """
    scheme = urllib.parse.urlsplit(uri).scheme
    if len(scheme) < 2:  # a path; one letter is a drive
        return read_schema(user_path(uri), argument)
    return parse_schema(_fetch(uri, scheme, argument, seconds), uri, argument)


def parse_schema(content: bytes, origin: str, argument: str) -> Schema:
    """Return the schema that `content` holds, as text or in binary.

    Raises:
        UserError: It holds none, and the line is named; or it contradicts itself, and the feature is.
    """
    if len(content) > SCHEMA_BYTES:
        raise UserError(
            argument=argument, component="validate", problem=f"{origin} is larger than 16 MiB", remedy=_SCHEMA
        )
    schema: Schema = parse(content, Schema(), origin, "validate", argument, _SCHEMA)
    if not schema.ListFields():
        raise UserError("validate", argument, f"{origin} is an empty schema", _SCHEMA)
    if wrong := contradiction(schema):
        raise UserError("validate", argument, f"{origin}: {wrong}", "Mend the schema; TFX would refuse or ignore it")
    return schema


_SCHEMA = "Give a schema (tensorflow-metadata Schema) as text, like the one this component writes"


def _fetch(uri: str, scheme: str, argument: str, seconds: float) -> bytes:
    outcome: list[bytes | BaseException] = []

    def read() -> None:
        try:
            with fsspec.open(uri, "rb") as file:
                outcome.append(file.read(SCHEMA_BYTES + 1))
        except BaseException as error:
            outcome.append(error)

    # fsspec's storages have no deadline in common; a thread that nobody waits for gives them one.
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(seconds)
    if not outcome:
        raise UserError("validate", argument, f"{uri} was not read within {seconds:g} s", "Check address and network")
    content = outcome[0]
    if isinstance(content, bytes):
        return content
    if isinstance(content, ImportError) and scheme in _EXTRAS:
        remedy = f"pip install 'penstock[{_EXTRAS[scheme]}]'"
        raise UserError("validate", argument, f"{uri} needs a package that is not installed", remedy)
    problem = f"{uri} cannot be read: {type(content).__name__}: {content}"
    raise UserError("validate", argument, problem, "Check the address and that you may read it")
