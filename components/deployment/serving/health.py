"""Exits with 0 where the server of this container is live, else with 1: the image's HEALTHCHECK."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException

from penstock.components.deployment.serving.settings import Settings

SECONDS = 4.0


def main() -> int:
    """Ask; return the code to exit with."""
    try:
        status, body = ask(Settings.read(os.environ), "GET", "/v2/health/live", seconds=SECONDS)
    except (OSError, HTTPException) as error:
        print(error)
        return 1
    print(body.decode(errors="replace"))
    return 0 if status == 200 else 1


def ask(
    settings: Settings,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    seconds: float,
) -> tuple[int, bytes]:
    """Return status and body of the answer of a server with these settings on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104  read, not bound
    connection = HTTPConnection(host, settings.port, timeout=seconds)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
