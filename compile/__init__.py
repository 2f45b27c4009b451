"""Reads, checks, rewrites and runs compiled KFP pipelines, whoever wrote them."""

if __name__ != "penstock.compile":
    raise ImportError(f"this package is penstock.compile, not {__name__}: run `make setup`, then import it so")
