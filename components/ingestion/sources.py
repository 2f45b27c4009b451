"""Finds the files of a source, wherever they are, and lays each out as a plain local file."""

from __future__ import annotations

import functools
import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from penstock.components._shared import remote
from penstock.components._shared.dataset import open_dataset
from penstock.components._shared.paths import user_path
from penstock.components._shared.sealed import MANIFEST
from penstock.components.ingestion import unpack
from penstock.components.ingestion.pieces import Piece
from penstock.components.ingestion.problems import listed, problem

FORMATS = ("csv", "tsv", "parquet", "jsonl")
SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
_FORMS = "Give a path, a glob, or a URI of https, gs, s3, abfss or sample"


@dataclass(frozen=True)
class File:
    """One file of a source.

    Attributes:
        name: Where it came from, as the user knows it.
        path: Plain local copy of it, or link to it, under a name without special characters.
        format: One of FORMATS.
        left_out: Lines that the copy lacks between the header and the first row.
    """

    name: str
    path: Path
    format: str
    left_out: int = 0


@dataclass(frozen=True)
class Found:
    """One file of a source, where it lies.

    Attributes:
        name: What the user knows it by.
        where: Path, or how to fetch it.
        format: One of FORMATS.
    """

    name: str
    where: Path | remote.Remote
    format: str

    @property
    def size(self) -> int | None:
        """Bytes, where they are known."""
        return self.where.stat().st_size if isinstance(self.where, Path) else self.where.size

    def can_be_divided(self, encoding: str) -> bool:
        """Return whether its bytes can be had by their place, and are those of its rows."""
        return self.size is not None and unpack.is_plain(self.name, self.encoded(encoding))

    def least(self, encoding: str) -> int:
        """Return how many bytes it takes, at the least, to lay it out."""
        return unpack.least(self.name, self.where, self.encoded(encoding))

    def encoded(self, encoding: str) -> str:
        """Return the encoding of its text, from that of CSV files."""
        return encoding if self.format in ("csv", "tsv") else "utf-8"


def find(source: str, format: str, encoding: str, scratch: Path) -> list[Found]:
    """Return the files of a source in the order of their names; samples are made in `scratch`.

    Raises:
        UserError: There is none, it cannot be reached, or its format is not known.
    """
    if format != "auto" and format not in FORMATS:
        raise problem("format", f"unknown format {format!r}", f"Give auto, {', '.join(FORMATS)}")
    if encoding not in unpack.ENCODINGS:
        raise problem("encoding", f"unknown encoding {encoding!r}", f"Give {', '.join(unpack.ENCODINGS)}")
    if not source.strip():
        raise problem("source", "is empty", _FORMS)
    scheme, _, rest = source.partition("://")
    found: Sequence[tuple[str, Path | remote.Remote]]
    if not rest or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]+", scheme):
        found = [(str(path), path) for path in _local(source)]
    elif scheme == "file":
        found = [(str(path), path) for path in _local(unquote(urlsplit(source).path))]
    elif scheme == "sample":
        found = [(f"sample://{path.name}", path) for path in _sample(source, scratch / "sample")]
    else:
        found = [(item.name, item) for item in remote.find(source, functools.partial(problem, "source"))]
    formats = [_format(name, format) for name, _ in found]
    if len(set(formats)) > 1:
        raise problem("source", f"{source} has files of the formats {listed(sorted(set(formats)))}", "Give one format")
    return [Found(name, where, kind) for (name, where), kind in zip(found, formats, strict=True)]


def lay_out(found: Found, encoding: str, path: Path, piece: Piece | None = None) -> File:
    """Make `path` the plain content of a file: fetched, decompressed and, if it is text, in UTF-8.

    Args:
        piece: That is all that is needed; of a Parquet file, each byte is where it is in the whole.

    Raises:
        UserError: It is empty, or cannot be fetched, decompressed or decoded.
    """
    in_place = found.format == "parquet"
    if piece and not (in_place and isinstance(found.where, Path)):
        unpack.lay_out_ranges(found.where, piece.ranges, path, in_place)
        return File(found.name, path, found.format, piece.lines)
    unpack.lay_out(found.name, found.where, path, found.encoded(encoding))
    if path.stat().st_size == 0:
        raise problem("source", f"{found.name} is empty: it has not one byte", "Write it again, or leave it out")
    return File(found.name, path, found.format)


def _local(source: str) -> list[Path]:
    path = user_path(source)
    if path.is_dir() and (path / MANIFEST).exists():
        return list(open_dataset(path, "ingest", "source").files)
    if path.is_dir():
        inside = sorted(file for file in path.iterdir() if file.is_file() and file.name[0] not in "._")
        if not inside:
            raise problem("source", f"the folder {source} holds no file", _FORMS)
        return inside
    if path.exists():
        return [path]
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    files = [match for match in matches if match.is_file()]
    if not files:
        what = "no file matches" if glob.has_magic(source) else "there is no file"
        raise problem("source", f"{what} {source}", _FORMS)
    return files


def _sample(source: str, folder: Path) -> list[Path]:
    parts = urlsplit(source)
    samples = {point.name: point for point in entry_points(group="penstock.samples")}
    if parts.netloc not in samples:
        raise problem("source", f"there is no sample {parts.netloc!r}", f"The samples are {listed(sorted(samples))}")
    wanted = {"rows": 1000, "seed": 0}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in wanted or not re.fullmatch(r"\d{1,12}", value) or (name == "rows" and int(value) < 1):
            raise problem(
                "source", f"{name}={value} in {source} means nothing", f"Write sample://{parts.netloc}?rows=1000&seed=0"
            )
        wanted[name] = int(value)
    written: list[Path] = samples[parts.netloc].load()(folder, **wanted)
    return written


def _format(name: str, given: str) -> str:
    path = Path(name)
    if path.suffix.lower() in unpack.COMPRESSIONS:
        path = path.with_suffix("")
    elif path.suffix.lower() in unpack.REFUSED:
        raise problem(
            "source",
            f"{name} is compressed as {path.suffix[1:]}, which is not read here",
            f"Compress it as {', '.join(suffix[1:] for suffix in unpack.COMPRESSIONS)} or not at all",
        )
    if given != "auto":
        return given
    if path.suffix.lower() not in SUFFIXES:
        raise problem(
            "format", f"the name {name} does not tell the format", f"Give format as one of {', '.join(FORMATS)}"
        )
    return SUFFIXES[path.suffix.lower()]
