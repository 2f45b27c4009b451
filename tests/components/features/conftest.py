"""Datasets of a few rows, written by hand."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from penstock.components._shared.dataset import write_dataset


@pytest.fixture
def dataset(tmp_path) -> Callable[..., Path]:
    """Return a function that writes a table as a dataset."""

    def write(table: pa.Table, name: str = "dataset") -> Path:
        write_dataset(tmp_path / name, table.schema, table.to_batches())
        return tmp_path / name

    return write
