import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.components._shared import disk
from penstock.components._shared.dataset import open_dataset, write_dataset
from penstock.components._shared.errors import UserError


def test_what_is_free_is_what_can_be_written(small_disk):
    room = disk.free(small_disk / "not" / "yet" / "there")
    assert room == 1 << 20
    (small_disk / "half").write_bytes(bytes(1 << 19))
    assert disk.free(small_disk) == 1 << 19
    disk.require({small_disk: 1 << 19}, "ingest", "source", "its files", "Give more")
    with pytest.raises(UserError) as caught:
        disk.require(
            {small_disk / "a": 1 << 18, small_disk / "b": (1 << 18) + 1}, "ingest", "source", "its files", "Give more"
        )
    assert str(caught.value) == (
        f"ingest: source: its files take at least 1 MB in {small_disk}/a and {small_disk}/b, where 1 MB are free. "
        "Give more."
    )
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "other").write_bytes(bytes((1 << 19) + 1))


def test_folders_on_different_disks_do_not_share_one(small_disk, tmp_path):
    disk.require({small_disk: 1 << 20, tmp_path: 1 << 20}, "ingest", "source", "its files", "Give more")
    assert disk.lack({small_disk: (1 << 20) + 1, tmp_path: 0}).startswith(f"1 MB in {small_disk}, where")


def test_the_disk_of_a_folder_is_asked(tmp_path):
    room = disk.free(tmp_path)
    found = shutil.disk_usage(tmp_path)
    assert found.free * 0.9 < room < found.total
    assert disk.lack({tmp_path: room * 2})
    assert not disk.lack({tmp_path: room // 2})


def test_a_disk_that_says_nothing_of_itself_is_taken_to_have_room(tmp_path, monkeypatch):
    silent = os.statvfs_result((4096, 4096, 0, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(disk.os, "statvfs", lambda folder: silent)
    assert disk.free(tmp_path) is None
    assert not disk.lack({tmp_path: 1 << 60})


def test_columns_that_are_carried_over_take_no_less_than_is_said(tmp_path):
    some = np.random.default_rng(1)
    rows = pa.table(
        {
            "id": range(200_000),
            "x": some.normal(size=200_000),
            "s": [f"s{number}" for number in some.integers(0, 9, 200_000)],
            "same": ["same"] * 200_000,
        }
    )
    write_dataset(tmp_path / "rows", rows.schema, rows.to_batches(50_000))
    data = open_dataset(tmp_path / "rows", "test", "rows")
    for names in (["id"], ["x", "s"], ["same"], list(rows.schema.names)):
        kept = pq.read_table(data.files[0], columns=names)
        write_dataset(tmp_path / "kept", kept.schema, kept.to_batches(70_000))
        size = (tmp_path / "kept" / "part-00000.parquet").stat().st_size
        assert 0.45 * size - 5000 < disk.carried(data, names) <= size
