"""Bodies of several parts, as uploads have them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from penstock.testing.server import ApiError


@dataclass(frozen=True)
class Part:
    """A part of a body: its headers by lower-case name, and its very bytes."""

    headers: dict[str, str]
    content: bytes

    def disposition(self, name: str) -> str:
        """Return a value of Content-Disposition, such as that of "name" or "filename"; empty: it has none."""
        found = re.search(rf'(?:^|;)\s*{name}="?([^";]*)"?', self.headers.get("content-disposition", ""))
        return found[1] if found else ""


def parts(content_type: str, content: bytes) -> list[Part]:
    """Return the parts of a multipart body.

    Raises:
        ApiError: it is none.
    """
    found = re.search(r'boundary="?([^";,]+)"?', content_type)
    if not content_type.startswith("multipart/") or found is None:
        raise ApiError(400, f"expected a multipart body, got {content_type or 'one of no type'}")
    pieces = (b"\r\n" + content).split(b"\r\n--" + found[1].encode())
    if len(pieces) < 3 or not pieces[-1].startswith(b"--"):
        raise ApiError(400, "the multipart body is not whole")
    return [_part(piece) for piece in pieces[1:-1]]


def _part(piece: bytes) -> Part:
    # After the boundary: a line end, headers, an empty line, the content. There may be no headers.
    head, _, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    if piece.startswith(b"\r\n\r\n"):
        head, content = b"", piece[4:]
    headers = {}
    for line in head.decode(errors="replace").splitlines():
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Part(headers, content)
