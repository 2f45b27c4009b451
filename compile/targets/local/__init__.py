"""The local engine: a compiled pipeline on this machine."""

from penstock.compile.targets.local.engine import resume, run

__all__ = ["resume", "run"]
