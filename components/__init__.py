"""Penstock's components: `from penstock.components import ingest, train`."""

if __name__ != "penstock.components":
    raise ImportError(f"this package is penstock.components, not {__name__}: run `make setup`, then import it so")

from penstock.components.evaluation.component import evaluate
from penstock.components.ingestion.component import ingest
from penstock.components.registry.component import register
from penstock.components.training.component import train
from penstock.components.validation.component import validate

__all__ = ["evaluate", "ingest", "register", "train", "validate"]
