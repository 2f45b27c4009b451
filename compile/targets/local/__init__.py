"""The local engine: a compiled pipeline on this machine."""
