"""The local engine: a compiled pipeline on this machine."""

from penstock.compile.targets.local.engine import run

__all__ = ["run"]
