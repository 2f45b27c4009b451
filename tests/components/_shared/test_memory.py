import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.components._shared import engine, memory, rows
from penstock.components._shared.errors import UserError

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {"sys/fs/cgroup/memory.max": "1048576\n"}, 1 << 20),
        ("0::/\n", {"sys/fs/cgroup/memory.max": "max\n"}, MACHINE),
        (
            "0::/pod/step\n",
            {"sys/fs/cgroup/pod/memory.max": "3000\n", "sys/fs/cgroup/pod/step/memory.max": "max"},
            3000,
        ),
        ("0::/of/the/host\n", {"sys/fs/cgroup/memory.max": "4000\n"}, 4000),  # a container's groups begin at its own
        ("5:cpu,memory:/a\n0::/\n", {"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "5000\n"}, 5000),
        ("5:memory:/\n", {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, MACHINE),
        ("5:cpu:/\n", {"sys/fs/cgroup/memory/memory.limit_in_bytes": "5000\n"}, MACHINE),
        ("", {}, MACHINE),
    ],
)
def test_the_least_limit_counts(cgroup, files, expected, system):
    assert memory.limit(system(cgroup, **files)) == expected


def test_a_system_without_such_files_has_its_whole_memory(tmp_path):
    assert memory.limit(tmp_path) == MACHINE
    assert memory.used(tmp_path) == 0


def test_what_does_not_fit_beside_what_is_in_use_is_refused_with_both_numbers(monkeypatch):
    monkeypatch.setattr(memory, "limit", lambda: 3_000_000_000)
    monkeypatch.setattr(memory, "used", lambda: 400_000_000)
    memory.require(2_600_000_000, "train", "engine", "the rows", "Set it to beam")
    with pytest.raises(UserError) as caught:
        memory.require(2_600_000_001, "train", "engine", "the rows", "Set it to beam")
    assert str(caught.value) == (
        "train: engine: the rows take 2.6 GB of memory or more, and this step may use 3.0 GB, "
        "of which 400 MB are in use. Set it to beam."
    )


def test_memory_in_use_is_counted():
    before = memory.used()
    held = bytearray(os.urandom(1) * 50_000_000)
    assert memory.used() - before > 40_000_000
    del held


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [(10**12, 10**9, 640_000_000), (900_000_000, 200_000_000, 350_000_000), (10**9, 10**9, memory.LEAST_SHARE)],
)
def test_what_writes_to_disk_beyond_it_gets_half_of_what_is_left(limit, used, expected, monkeypatch):
    monkeypatch.setattr(memory, "limit", lambda: limit)
    monkeypatch.setattr(memory, "used", lambda: used)
    assert memory.share(640_000_000) == expected


def test_duckdb_is_held_to_less_where_a_step_may_use_less(monkeypatch, tmp_path):
    def held(connection):
        return connection.execute("SELECT current_setting('memory_limit')").fetchone()[0]

    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"x": [1]}), file)
    with rows.connect([file]) as connection, engine.connect(tmp_path) as other:
        assert (held(connection), held(other)) == ("1.0 GiB", "610.3 MiB")
    monkeypatch.setattr(memory, "limit", lambda: memory.used() + (256 << 20))
    with rows.connect([file]) as connection, engine.connect(tmp_path) as other:
        assert all(float(held(each).removesuffix(" MiB")) == pytest.approx(128, abs=8) for each in (connection, other))
