"""What tests of ingest share: files written from text, and what came out of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from penstock.components._shared.dataset import open_dataset
from penstock.components._shared.errors import UserError
from penstock.components.ingestion.ingest import Ingested, ingest


@dataclass(frozen=True)
class Outcome:
    """What ingest returned and wrote."""

    result: Ingested
    folder: Path

    def rows(self, port: str) -> list[dict[str, Any]]:
        files = open_dataset(self.folder / port, "test", port).files
        return [row for file in files for row in pq.read_table(file).to_pylist()]

    @property
    def train(self) -> list[dict[str, Any]]:
        return self.rows("train_set")

    @property
    def eval(self) -> list[dict[str, Any]]:
        return self.rows("eval_set")

    @property
    def rejects(self) -> list[dict[str, Any]]:
        return self.rows("rejects")

    @property
    def types(self) -> dict[str, str]:
        return open_dataset(self.folder / "train_set", "test", "train_set").schema


PORTS = ("train_set", "eval_set", "rejects")


@pytest.fixture
def ingested(tmp_path: Path) -> Callable[..., Outcome]:
    """Return a function that ingests a source, all of it into train_set unless a split is asked for."""

    def run(source: str | Path, **arguments: Any) -> Outcome:
        number = sum(1 for _ in tmp_path.glob("out-*"))
        folder = tmp_path / f"out-{number}"
        if not arguments.keys() & {"time_column", "eval_fraction"}:
            arguments["eval_fraction"] = 0
        return Outcome(ingest(str(source), *(folder / port for port in PORTS), **arguments), folder)

    return run


@pytest.fixture
def refused(ingested: Callable[..., Outcome], tmp_path: Path) -> Callable[..., UserError]:
    """Return a function that expects ingest to refuse in one line and to leave nothing behind, and returns why."""

    def run(source: str | Path, **arguments: Any) -> UserError:
        before = set(tmp_path.glob("out-*/*"))
        with pytest.raises(UserError) as raised:
            ingested(source, **arguments)
        assert "\n" not in str(raised.value)
        assert raised.value.component == "ingest"
        assert set(tmp_path.glob("out-*/*")) == before
        return raised.value

    return run


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes text or bytes to a file of the given name."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write
