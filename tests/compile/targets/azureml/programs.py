"""What the tasks of random pipelines do in a converted job: as with the local engine, but blind to where files lie."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tests.compile.targets.local import programs
from tests.compile.targets.local.reference import Artifact, Work

_FOLDER = re.compile(r"\S*/")
_work = programs.work


def work(
    program: Mapping[str, Any],
    parameters: Mapping[str, Any],
    artifacts: Mapping[str, Sequence[Artifact]],
    args: Sequence[str],
    env: Mapping[str, str],
    attempt: int,
) -> Work:
    """Return what a command leaves, of whatever folders its arguments and artifacts are in."""
    there = {
        port: [Artifact(one.name, one.type, "", one.metadata, one.content) for one in found]
        for port, found in artifacts.items()
    }
    return _work(program, parameters, there, [_FOLDER.sub("", arg) for arg in args], env, attempt)


def main() -> int:
    """Do what the command line says."""
    programs.work = work
    return programs.main()


if __name__ == "__main__":
    sys.exit(main())
