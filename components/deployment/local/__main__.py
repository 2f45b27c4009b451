"""python -m penstock.components.deployment.local FOLDER [ENDPOINT ...]"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from penstock.components._shared.errors import USER_ERROR_EXIT_CODE, UserError
from penstock.components.deployment.backends.local import connect
from penstock.components.deployment.local.state import FILE

COMPONENT = "local"


def main(arguments: list[str] | None = None) -> int:
    """Start endpoints that have ended; return the code to exit with."""
    parser = argparse.ArgumentParser(
        prog="python -m penstock.components.deployment.local",
        description="Start what has ended of the endpoints in a folder, with the addresses and the traffic they had.",
    )
    parser.add_argument("folder", type=Path, help="folder of the endpoints, such as penstock-out/endpoints")
    parser.add_argument("endpoint", nargs="*", help="name of an endpoint (default: all that are there)")
    given = parser.parse_args(arguments)
    names = given.endpoint or sorted(path.parent.name for path in given.folder.glob(f"*/{FILE}"))
    problems = [] if names else [UserError(COMPONENT, "folder", f"{given.folder} has no endpoints", "Deploy one first")]
    backend = connect({"state": str(given.folder.absolute())}, COMPONENT)
    for name in names:
        try:
            started = backend.revive(name)
        except UserError as error:
            problems.append(error)
            continue
        found = backend.get(name)
        where = f" at {found.url}" if found and found.url else ""
        told = f"started {', '.join(started)}" if started else "nothing of it had ended"
        print(f"{name}{where}: {told}", flush=True)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr, flush=True)
    return USER_ERROR_EXIT_CODE if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
