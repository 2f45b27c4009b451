"""The process in which a stand-in runs a spec: reads on stdin what to run, and ends when stdin does."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from penstock.compile.errors import PenstockError
from penstock.compile.targets import local


def main() -> int:
    """Run what stdin says; return 2 where it cannot start, with the reason as the last line of stderr."""
    wish: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_until_nobody_waits, daemon=True).start()
    root, how = Path(wish["root"]), {name: wish[name] for name in ("jobs", "runner", "reuse")}
    try:
        if wish["again"]:
            local.resume(wish["run_id"], root=root, **how)
        else:
            local.run(Path(wish["spec"]), wish["parameters"], root=root, run_id=wish["run_id"], **how)
    except PenstockError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _until_nobody_waits() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
