"""The request log: what was asked and answered, in whole files, and never at a request's expense."""

import datetime
import json
import os
import resource
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.components._shared.errors import UserError
from penstock.components.deployment.serving import payloads
from penstock.components.deployment.serving.metrics import Metrics
from penstock.components.deployment.serving.payloads import PROTOCOLS
from penstock.components.deployment.serving.request_log import Entry, RequestLog, into_folder
from penstock.components.deployment.serving.served import Answering
from penstock.components.deployment.serving.server import _store
from penstock.components.deployment.serving.settings import Settings
from tests.components.deployment.conftest import row, serving


def entry(number: int = 1, rows: int = 2, size: int = 100) -> Entry:
    inputs = [row(number + place) for place in range(rows)]
    return Entry(
        time=datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        request_id=f"id-{number}",
        rows=rows,
        inputs={name: [each[name] for each in inputs] for name in inputs[0]},
        outputs={"prediction": [True] * rows, "probability_false": [0.25] * rows, "probability_true": [0.75] * rows},
        size=size,
    )


@pytest.fixture
def counts():
    return {}


@pytest.fixture
def open_log(loaded, counts):
    """Return a function that opens a log; those still open are closed."""
    opened = []

    def open_log(store, rows=1000, seconds=60.0, most_bytes=10_000) -> RequestLog:
        def count(outcome: str, number: int) -> None:
            counts[outcome] = counts.get(outcome, 0) + number

        signature = loaded("xgboost-binary").signature
        opened.append(RequestLog(store, signature, "7", rows=rows, seconds=seconds, most_bytes=most_bytes, count=count))
        return opened[-1]

    yield open_log
    for each in opened:
        each.close(10)


def parts(folder) -> list:
    return sorted(folder.glob("*.parquet"))


def wait_for(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_file_has_a_row_a_predicted_row_with_what_was_sent(open_log, counts, tmp_path):
    log = open_log(into_folder(tmp_path))
    log.add(entry())
    log.close(10)
    [part] = parts(tmp_path)
    table = pq.read_table(part)
    assert {field.name: str(field.type) for field in table.schema} == {
        "time": "timestamp[us, tz=UTC]", "request_id": "string", "row": "int32", "model_version": "string",
        "size": "int64", "color": "string", "gaps": "double", "share": "double", "open": "bool", "shut": "bool",
        "prediction": "bool", "probability_false": "double", "probability_true": "double",
    }  # fmt: skip
    first, second = table.to_pylist()
    assert first == {
        "time": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), "request_id": "id-1", "row": 0,
        "model_version": "7", **row(1), "prediction": True, "probability_false": 0.25, "probability_true": 0.75,
    }  # fmt: skip
    assert (second["row"], second["size"]) == (1, row(2)["size"])
    assert counts == {"written": 2}
    assert list(tmp_path.iterdir()) == [part]


def test_files_are_written_after_so_many_rows_and_after_so_many_seconds(open_log, tmp_path):
    many = open_log(into_folder(tmp_path / "rows"), rows=4)
    for number in range(4):
        many.add(entry(number))
    wait_for(lambda: sum(pq.read_metadata(part).num_rows for part in parts(tmp_path / "rows")) == 8)
    slow = open_log(into_folder(tmp_path / "seconds"), seconds=0.1)
    slow.add(entry())
    wait_for(lambda: len(parts(tmp_path / "seconds")) == 1)
    slow.add(entry())
    wait_for(lambda: len(parts(tmp_path / "seconds")) == 2)


def test_what_does_not_fit_in_memory_is_lost_and_counted(open_log, counts, tmp_path):
    at_work, go_on, written = threading.Event(), threading.Event(), []

    def store(name: str, content: bytes) -> None:
        at_work.set()
        go_on.wait(10)
        written.append(pq.read_table(pa.BufferReader(content)).num_rows)

    log = open_log(store, rows=1, most_bytes=250)
    log.add(entry(size=100))
    assert at_work.wait(10)
    for _ in range(5):
        log.add(entry(size=100))  # one more fits beside the one that is being written
    assert counts == {"lost_full": 8}
    go_on.set()
    log.close(10)
    assert (sum(written), counts) == (4, {"lost_full": 8, "written": 4})
    log.add(entry())
    assert counts["lost_full"] == 10, "the log is closed"


def test_columns_of_the_log_keep_their_names_where_a_model_reads_columns_of_the_same(make_dataset, tmp_path):
    from penstock.components.deployment.serving import served
    from penstock.components.deployment.serving.settings import Settings
    from penstock.components.training.fit import fit

    data = make_dataset({"time": [1.0, 2.0] * 20, "row": [0, 1] * 20, "y": [0.5, 1.5] * 20})
    fit(data, data, tmp_path / "model", target="y", max_rounds=2)
    signature = served.load(Settings(model=str(tmp_path / "model"))).signature
    log = RequestLog(
        into_folder(tmp_path / "log"), signature, "1", rows=1, seconds=9, most_bytes=99, count=lambda *_: None
    )
    log.add(
        Entry(datetime.datetime.now(datetime.UTC), "a", 1, {"time": [2**60], "row": [3.0]}, {"prediction": [0.5]}, 1)
    )
    log.close(10)
    [found] = pq.read_table(parts(tmp_path / "log")).to_pylist()
    assert (found["feature_time"], found["feature_row"], found["row"]) == (2.0**60, 3, 0)


def test_a_server_logs_what_it_answers_and_nothing_else(models, tmp_path):
    with serving(models("xgboost-binary"), PENSTOCK_LOG=str(tmp_path / "log")) as server:
        for number in range(20):
            assert server.post("/predict", {"instances": [row(number), row(number + 1)]})[0] == 200
        assert server.post("/predict", {"instances": [{}]})[0] == 400
        body = {"inputs": {name: [value] for name, value in row(3).items() if value is not None}}
        _, answer, _ = server.ask("POST", "/invocations", body, {"X-Request-Id": "mine"})
        assert server.stop() == 0
    rows = [each for part in parts(tmp_path / "log") for each in pq.read_table(part).to_pylist()]
    assert len(rows) == 41
    [mine] = [each for each in rows if each["request_id"] == "mine"]
    assert {name: mine[name] for name in row(3)} == row(3)
    assert {name: mine[name] for name in answer["predictions"][0]} == answer["predictions"][0]
    assert len({each["request_id"] for each in rows}) == 21


def test_a_sample_is_a_share_of_the_requests(loaded, open_log, tmp_path):
    log = open_log(into_folder(tmp_path), most_bytes=1_000_000)
    answering = Answering(loaded("xgboost-binary"), Metrics(), log, 0.3)
    for number in range(200):
        body = json.dumps({"instances": [row(number)]}).encode()
        answering.answer(PROTOCOLS["vertex"], payloads.JSON, body, str(number))
    log.close(10)
    assert 25 <= sum(pq.read_metadata(part).num_rows for part in parts(tmp_path)) <= 100


def test_the_oldest_files_go_once_there_are_too_many_or_they_are_too_old(open_log, tmp_path):
    kept = into_folder(tmp_path / "few", keep_bytes=250)
    for number in range(1, 6):
        kept(f"part-20260101T00000{number}-a-0000{number}.parquet", b"x" * 100)
    assert [file.name for file in parts(tmp_path / "few")] == [
        "part-20260101T000004-a-00004.parquet", "part-20260101T000005-a-00005.parquet",
    ]  # fmt: skip
    kept("part-20260101T000006-a-00006.parquet", b"x" * 1000)
    assert [file.name for file in parts(tmp_path / "few")] == ["part-20260101T000006-a-00006.parquet"]
    (tmp_path / "few" / "notes.parquet").write_bytes(b"x" * 1000)
    young = into_folder(tmp_path / "few", keep_days=2)
    old = tmp_path / "few" / "part-20250101T000000-b-00001.parquet"
    old.write_bytes(b"x")
    os.utime(old, (time.time() - 3 * 86400,) * 2)
    young("part-20260101T000007-a-00007.parquet", b"x")
    assert sorted(file.name[:20] for file in parts(tmp_path / "few")) == [
        "notes.parquet", "part-20260101T000006", "part-20260101T000007",
    ]  # fmt: skip


def test_a_server_keeps_no_more_of_its_log_than_it_is_told_and_nobody_clears_a_bucket_from_here(models, tmp_path):
    log = tmp_path / "log"
    given = {"PENSTOCK_LOG": str(log), "PENSTOCK_LOG_ROWS": "1", "PENSTOCK_LOG_KEEP_BYTES": "1"}
    with serving(models("xgboost-binary"), **given) as server:
        for number in range(5):
            assert server.post("/predict", {"instances": [row(number)]})[0] == 200
        wait_for(lambda: server.metric('penstock_log_rows_total{outcome="written"}') == 5)
    assert len(parts(log)) == 1
    with pytest.raises(UserError, match="PENSTOCK_LOG: gs://logs/x is a bucket, and only folders are cleared from"):
        _store(Settings(log="gs://logs/x", log_keep_days=3.0))


def full_disk() -> None:
    """Let no file of this process grow beyond some bytes: a write fails half-way."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


def test_a_full_disk_fails_no_request_and_is_counted(models, tmp_path):
    given = {"PENSTOCK_LOG": str(tmp_path / "log"), "PENSTOCK_LOG_ROWS": "2", "PENSTOCK_LOG_SECONDS": "0.1"}
    # What the server writes of its own, byte-code, say, would hit the same wall.
    with serving(models("xgboost-binary"), preexec=full_disk, PYTHONDONTWRITEBYTECODE="1", **given) as server:
        for number in range(10):
            assert server.post("/predict", {"instances": [row(number)]})[0] == 200
        wait_for(lambda: server.metric('penstock_log_rows_total{outcome="lost_failed"}') == 10)
        assert server.metric('penstock_log_rows_total{outcome="written"}') == 0
        assert server.stop() == 0
    assert list((tmp_path / "log").iterdir()) == [], "nothing half-written stays"
    assert sum("request log: " in line and "File too large" in line for line in server.lines) == 1
