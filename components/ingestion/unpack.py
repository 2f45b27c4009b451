"""Lays one file out for reading: linked if it is plain and near, else fetched, decompressed or re-encoded.

DuckDB could decompress by itself, but takes a truncated file for a shorter one; and only a plain file is read by
several threads.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import shutil
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from penstock.components._shared import remote
from penstock.components.ingestion.problems import problem

ENCODINGS = {"utf-8": "utf-8", "latin-1": "latin-1", "utf-16": "utf-16"}
_CHUNK = 4 << 20

COMPRESSIONS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".zst": lambda path: pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"),
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
REFUSED = (
    ".zip", ".7z", ".rar", ".tar", ".tgz", ".tbz2", ".txz", ".lz4", ".lzo", ".br", ".z", ".sz", ".snappy", ".lzma",
    ".gzip", ".zstd", ".zlib",
)  # fmt: skip


def lay_out(name: str, where: Path | remote.Remote, path: Path, encoding: str) -> None:
    """Make `path` the plain content of a file, in UTF-8 if it is text.

    Raises:
        UserError: It cannot be fetched, decompressed or decoded.
    """
    fetched = path.with_name(path.name + ".fetched")
    if isinstance(where, remote.Remote):
        where.fetch(fetched)
        where = fetched
    opener = COMPRESSIONS.get(Path(name).suffix.lower())
    if opener:
        unpacked = path.with_name(path.name + ".unpacked")
        _decompress(name, opener, where, unpacked)
        fetched.unlink(missing_ok=True)
        where = unpacked
    if encoding != "utf-8":
        _to_utf8(name, where, path, encoding)
    elif where.parent == path.parent:
        where.rename(path)
    else:
        path.symlink_to(where.resolve())


def least(name: str, where: Path | remote.Remote, encoding: str) -> int:
    """Return how many bytes a file takes, at the least, where it is laid out; 0 where nobody knows."""
    size = (where.stat().st_size if isinstance(where, Path) else where.size) or 0
    if isinstance(where, Path) and is_plain(name, encoding):
        return 0  # a link
    suffix = Path(name).suffix.lower()
    if suffix in COMPRESSIONS:
        told = 0
        if suffix == ".gz" and size > 4 and isinstance(where, Path):
            # What a member ends with: the length of its content, modulo 2**32; see RFC 1952, section 2.3.1.
            told = int.from_bytes(read_range(where, size - 4, size), "little")
        size = max(size // 2, told)  # headers apart, nothing becomes much larger by being compressed
    return size // 2 if encoding == "utf-16" else size


def is_plain(name: str, encoding: str) -> bool:
    """Return whether the plain content of a file is its bytes."""
    return Path(name).suffix.lower() not in COMPRESSIONS and encoding == "utf-8"


def lay_out_ranges(where: Path | remote.Remote, ranges: Iterable[tuple[int, int]], path: Path, in_place: bool) -> None:
    """Make `path` the bytes of a file from one place to another, of several.

    Args:
        in_place: Leave room for what lies between them, which takes none on the disk.

    Raises:
        UserError: They cannot be fetched.
    """
    with path.open("wb") as output:
        for begin, end in ranges:
            for place in range(begin, end, _CHUNK):
                if in_place:
                    output.seek(place)
                output.write(read_range(where, place, min(place + _CHUNK, end)))


def read_range(where: Path | remote.Remote, begin: int, end: int) -> bytes:
    """Return the bytes of a file from one place to another.

    Raises:
        UserError: They cannot be fetched.
    """
    if isinstance(where, remote.Remote):
        return where.read(begin, end)
    with where.open("rb") as file:
        file.seek(begin)
        return file.read(end - begin)


def _decompress(name: str, opener: Callable[[Path], Any], packed: Path, unpacked: Path) -> None:
    try:
        with opener(packed) as stream, unpacked.open("wb") as plain:
            shutil.copyfileobj(stream, plain, _CHUNK)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
        reason = str(error) if packed.stat().st_size else "it has not one byte"
        raise problem("source", f"{name} cannot be decompressed ({reason})", "Write or fetch it again") from None


def _to_utf8(name: str, where: Path, path: Path, encoding: str) -> None:
    decoder = codecs.getincrementaldecoder(ENCODINGS[encoding])()
    read = 0
    with where.open("rb") as raw, path.open("w", encoding="utf-8", newline="") as text:
        while True:
            chunk = raw.read(_CHUNK)
            try:
                text.write(decoder.decode(chunk, final=not chunk))
            except UnicodeError as error:
                what = f"{name} is not {encoding} near byte {read + 1} ({error})"
                raise problem("encoding", what, "Give another encoding") from None
            read += len(chunk)
            if not chunk:
                break
    if where.parent == path.parent:
        where.unlink()


def guess_encoding(head: bytes) -> str:
    """Return the encoding to try for bytes that are not UTF-8."""
    return "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "latin-1"


def text_stream(path: Path) -> IO[bytes]:
    """Open a laid-out text file behind its byte order mark, if it has one."""
    stream = path.open("rb", buffering=io.DEFAULT_BUFFER_SIZE * 16)
    if stream.read(3) != codecs.BOM_UTF8:
        stream.seek(0)
    return stream
