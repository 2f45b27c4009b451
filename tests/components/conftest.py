"""What tests of components share: small datasets."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.components._shared.dataset import KIND
from penstock.components._shared.sealed import new_folder, seal


@pytest.fixture(scope="session")
def make_dataset(tmp_path_factory: pytest.TempPathFactory) -> Callable[[pa.Table | dict], Path]:
    """Return a function that writes a table, or a dict of columns, as a sealed dataset and returns its folder."""

    def make(table: pa.Table | dict) -> Path:
        table = pa.table(table)
        rows = repr(table.schema) + "".join(sorted(map(repr, table.to_pylist())))
        with new_folder(tmp_path_factory.mktemp("dataset")) as folder:
            pq.write_table(table, folder / "part-00000.parquet")
            facts = {
                "rows": table.num_rows,
                "schema": [{"name": field.name, "type": str(field.type)} for field in table.schema],
                "fingerprint": hashlib.sha256(rows.encode()).hexdigest(),
            }
            seal(folder, KIND, facts)
        return folder

    return make
