"""The whole of ingest: order, determinism, kills in the middle, memory, and the real months."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from penstock.components._shared import engine
from penstock.components._shared.dataset import fingerprint, open_dataset
from penstock.components._shared.errors import UserError
from penstock.components.ingestion.ingest import ingest

PORTS = ("train_set", "eval_set", "rejects")
INGEST = "import sys; from penstock.components.ingestion.ingest import ingest; "


def large(rows: int) -> str:
    return "id,fare,note\n" + "".join(f"{row},{row / 4},note number {row % 1000}\n" for row in range(rows))


def test_rows_keep_the_order_of_the_source_in_both_sets(file, ingested):
    outcome = ingested(file("t.csv", large(300_000)), eval_fraction=0.3)
    for rows in (outcome.train, outcome.eval):
        numbers = [row["id"] for row in rows]
        assert numbers == sorted(numbers)
    assert len(outcome.train) + len(outcome.eval) == 300_000


@pytest.mark.parametrize("query", ["", "SELECT *, fare * 2 AS double_fare FROM source WHERE id % 3 > 0"])
def test_bytes_do_not_depend_on_the_number_of_threads(file, ingested, monkeypatch, query):
    source = file("t.csv", large(400_000))  # several scan tasks and row groups
    parts = []
    for threads in (1, 2, 4):
        monkeypatch.setattr(engine, "THREADS", threads)
        monkeypatch.setattr(engine, "cores", lambda: 4)
        folder = ingested(source, eval_fraction=0.2, query=query).folder
        parts.append([(folder / port / "part-00000.parquet").read_bytes() for port in PORTS])
    assert parts[0] == parts[1] == parts[2]


def test_the_fingerprint_is_of_both_sets_together_and_ignores_the_order_of_files(file, ingested):
    rows = [f"{row},text {row % 3}\n" for row in range(100)]
    file("x/1.csv", "a,b\n" + "".join(rows[:60]))
    first = file("x/2.csv", "a,b\n" + "".join(rows[60:])).parent
    second = file("y/1.csv", "a,b\n" + "".join(reversed(rows))).parent
    outcome = ingested(first, eval_fraction=0.5)
    assert outcome.result.fingerprint == ingested(second, eval_fraction=0.5).result.fingerprint
    datasets = [open_dataset(outcome.folder / port, "test", port) for port in ("train_set", "eval_set")]
    assert outcome.result.fingerprint == fingerprint(file for dataset in datasets for file in dataset.files)
    assert datasets[0].fingerprint != datasets[1].fingerprint


def test_what_was_at_the_outputs_before_is_gone_even_when_ingest_fails(file, ingested):
    outcome = ingested(file("t.csv", "a\n1\n"))
    with pytest.raises(UserError):
        ingest("nowhere.csv", *(outcome.folder / port for port in PORTS))
    assert not any((outcome.folder / port).exists() for port in PORTS)


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_whole_datasets_or_none(file, tmp_path):
    source = file("t.csv", large(200_000))
    script = INGEST + "print('ready', flush=True); ingest(sys.argv[1], *sys.argv[2:])"
    rnd, finished = random.Random(0), 0
    for attempt in range(8):
        folders = [tmp_path / f"killed-{attempt}" / port for port in PORTS]
        process = subprocess.Popen(
            [sys.executable, "-c", script, source, *folders],
            stdout=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        assert process.stdout
        process.stdout.readline()
        time.sleep(rnd.random() * 0.4)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        for folder in folders:
            try:
                rows = open_dataset(folder, "test", "dataset").rows
            except UserError:
                continue
            finished += 1
            assert rows > 0 or folder.name == "rejects"
    assert finished < 8 * len(PORTS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["good", "bad"])
def test_memory_does_not_grow_with_the_file(tmp_path, kind):
    """A file four times as large must not need half as much more; rows that are all bad are no exception."""
    script = (
        INGEST + "import re; from penstock.components._shared.errors import UserError\n"
        "try: ingest(sys.argv[1], *sys.argv[2:], columns={'id': 'BIGINT'}, max_bad_rows=10**9)\n"
        "except UserError as error: assert 'bad ones' in str(error)\n"
        # getrusage() would tell the peak of the process that started this one, where that is the higher.
        r"print(re.search(r'VmHWM:\s+(\d+)', open('/proc/self/status').read())[1])"
    )
    sign = "" if kind == "good" else "x"
    rows = "".join(f"{sign}{row},{row / 4},note number {row % 1000}\n" for row in range(100_000))
    peaks = []
    for copies in (15, 60) if kind == "good" else (3, 12):
        with (tmp_path / "t.csv").open("w") as stream:
            stream.write("id,fare,note\n")
            stream.writelines(rows for _ in range(copies))
        command = [sys.executable, "-c", script, tmp_path / "t.csv", *(tmp_path / "out" / port for port in PORTS)]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert peaks[1] < 1.5 * peaks[0]  # of which libraries are half
    assert peaks[1] < 1.5 * 2**20  # KiB


@pytest.mark.corpus
def test_the_real_months_are_read_whole_with_their_types(taxi_months, ingested):
    outcome = ingested(taxi_months / "*.csv", time_column="pickup_datetime", eval_from="2019-02-01")
    assert (outcome.result.bad_rows, outcome.result.train_rows + outcome.result.eval_rows) == (0, 150_000)
    assert outcome.types["congestion_surcharge"] == "double"
    assert outcome.types["pickup_datetime"] == "timestamp[us]"
    assert outcome.types["passenger_count"] == "int64"
    assert outcome.types["store_and_fwd_flag"] == "string"
    charged = [row for row in outcome.eval if row["congestion_surcharge"] == 2.5]
    assert len(charged) > 0.8 * len(outcome.eval)
    assert all(row["pickup_datetime"].isoformat() >= "2019-02-01" for row in outcome.eval)
