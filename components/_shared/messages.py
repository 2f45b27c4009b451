"""Reading the messages of tensorflow-metadata, as text and in binary."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatistics, DatasetFeatureStatisticsList

from penstock.components._shared.errors import UserError

M = TypeVar("M", bound=Message)
ALL_EXAMPLES = "All Examples"  # TFDV's name of the slice that is no slice


def read_statistics(path: str | os.PathLike[str], component: str, argument: str) -> DatasetFeatureStatistics:
    """Read the statistics of a whole dataset, in binary or as text.

    Raises:
        UserError: They are not there, do not parse, or are of slices only.
    """
    remedy = "Give a DatasetFeatureStatisticsList, as validate, TFDV and TFX write it"
    content = read_bytes(path, component, argument)
    datasets = parse(content, DatasetFeatureStatisticsList(), str(path), component, argument, remedy).datasets
    whole = [dataset for dataset in datasets if len(datasets) == 1 or dataset.name == ALL_EXAMPLES]
    if not whole:
        names = ", ".join(repr(dataset.name) for dataset in datasets)
        found = f"has only the slices {names}" if names else "holds no statistics"
        raise UserError(component, argument, f"{path} {found}", remedy)
    return whole[0]


def read_bytes(path: str | os.PathLike[str], component: str, argument: str) -> bytes:
    """Return the content of a file.

    Raises:
        UserError: It cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}"
        raise UserError(component, argument, problem, "Give the path of a file") from None


def parse(content: bytes, message: M, origin: str, component: str, argument: str, remedy: str) -> M:
    """Return the message filled with `content`, which is text or binary.

    Raises:
        UserError: It does not parse; the line is named.
    """
    failure = None
    if not _is_binary(content):
        try:
            text_format.Parse(content.decode("utf-8-sig"), message)
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            failure = f"line {line}: not UTF-8"
        except text_format.ParseError as error:
            failure = f"line {error.GetLine()}, column {error.GetColumn()}: {_without_place(error)}"
        else:
            return message
        message.Clear()
    try:
        message.ParseFromString(content)
        # Text may happen to read as binary, but not as binary that makes sense throughout.
        if message.ListFields() and not (failure and UnknownFieldSet(message)):
            return message
    except DecodeError:
        pass
    kind = message.DESCRIPTOR.name
    raise UserError(component, argument, f"{origin} is no {kind}: {failure or 'neither text nor binary'}", remedy)


def _is_binary(content: bytes) -> bool:
    return any(byte < 32 and byte not in b"\t\n\r\f\v" for byte in content)


def _without_place(error: text_format.ParseError) -> str:
    return str(error).partition(" : ")[2] or str(error)
