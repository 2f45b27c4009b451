"""The server under load, under limits, and at its end."""

import concurrent.futures
import contextlib
import gzip
import json
import socket
import threading
import time

import pytest

from penstock.components._shared.errors import UserError
from penstock.components.deployment.serving.served import load
from penstock.components.deployment.serving.settings import Settings
from tests.components.deployment.conftest import row, serving

BODY = {"instances": [row(1), row(2)]}
JSON = "Content-Type: application/json\r\n"


def batch(rows: int) -> bytes:
    return json.dumps({"instances": [row(number) for number in range(rows)]}).encode()


@contextlib.contextmanager
def half_sent(server, path: str = "/predict", length: int = 1000, more: str = JSON):
    """Yield a socket on which the head of a request has been sent, and nothing of its body."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n{more}\r\n"
        connection.sendall(head.encode())
        yield connection


def answer_on(connection) -> tuple[int, dict]:
    """Return status and JSON of the answer that ends a connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
            head, found, body = received.partition(b"\r\n\r\n")
            length = [
                int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
            ]
            if found and length and len(body) >= length[0]:
                break
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if body.startswith(b"{") else body


def working(server) -> None:
    """Wait until a request is at work beside the one that asks."""
    end = time.monotonic() + 60
    while server.metric("penstock_requests_in_flight") < 2:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def storage_that_hangs(monkeypatch):
    """A bucket's server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{listening.getsockname()[1]}")
        yield


def test_unknown_routes_methods_and_types_are_told(server):
    status, answer = server.get("/predictions")
    assert (status, answer["kind"]) == (404, "not_found")
    assert "there is no '/predictions'; there are /, /health" in answer["error"]
    status, answer = server.post("/v2/models/other/infer", {})
    assert (status, answer["error"]) == (404, "'/v2/models/other/infer' is not here; the model is model, version 7")
    status, answer, headers = server.ask("GET", "/predict")
    assert (status, answer["error"], headers["allow"]) == (405, "/predict takes POST", "POST")
    assert server.ask("POST", "/health", {})[0] == 405
    assert server.ask("HEAD", "/health")[:2] == (200, "")
    for path, kind in (
        ("/predict", "text/csv"),
        ("/invocations", "text/plain"),
        ("/score", "application/json; charset=x"),
    ):
        assert server.post(path, b"{}", headers={"Content-Type": kind})[0] == 415
    assert server.post("/predict", BODY, headers={"Content-Type": "application/json; charset=UTF-8"})[0] == 200
    binary = {"Inference-Header-Content-Length": "10"}
    assert server.post("/v2/models/model/infer", b"", headers=binary)[0] == 415


def test_a_request_keeps_its_id_and_gets_one_where_it_has_none(server):
    assert server.ask("POST", "/predict", BODY, {"X-Request-Id": "mine-1"})[2]["x-request-id"] == "mine-1"
    assert len(server.ask("POST", "/predict", BODY)[2]["x-request-id"]) == 36
    for bad in ("a b", "x" * 200, "é"):
        assert server.ask("POST", "/predict", {}, {"X-Request-Id": bad})[1]["request_id"] != bad


def test_a_body_beyond_the_limit_is_refused_however_it_comes(server):
    most = 1_000_000
    body = b" " * most + b"{}"
    status, answer = server.post("/predict", body)
    assert (status, answer["kind"]) == (413, "too_large")
    assert f"more than {most} bytes" in answer["error"]
    with half_sent(server, length=10**15) as connection:  # before a byte of it has come
        assert answer_on(connection)[0] == 413
    bomb = gzip.compress(b" " * 100_000_000)
    assert len(bomb) < most
    assert server.post("/predict", bomb, headers={"Content-Encoding": "gzip"})[0] == 413
    with half_sent(server, more=JSON.replace("\r\n", "\r\nTransfer-Encoding: chunked\r\n")) as connection:
        assert answer_on(connection)[0] == 400, "a length and chunks at once are smuggled"
    packed = gzip.compress(json.dumps(BODY).encode())
    assert server.post("/predict", packed, headers={"Content-Encoding": "gzip"})[0] == 200
    assert server.post("/predict", b"no gzip", headers={"Content-Encoding": "gzip"})[0] == 400


def test_a_client_that_expects_to_be_told_to_continue_is(server):
    body = json.dumps(BODY).encode()
    with half_sent(server, length=len(body), more=f"{JSON}Expect: 100-continue\r\n") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.sendall(body)
        assert answer_on(connection)[0] == 200


@pytest.mark.parametrize(
    "sent",
    [b"\r\n\r\n\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01", b"GET / HTTP/9.9\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
     b"POST /predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n"],
)  # fmt: skip
def test_what_is_not_http_ends_its_connection_and_nothing_else(server, sent):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                received += chunk
    assert received == b"" or b" 400 " in received.partition(b"\r\n")[0]
    assert server.get("/health")[0] == 200
    assert not any("Traceback" in line for line in server.lines)


def test_metrics_tell_latency_errors_and_what_was_predicted(server):
    names = {
        "requests": 'penstock_requests_total{route="predict",status="200"}',
        "refused": 'penstock_requests_total{route="predict",status="400"}',
        "invalid": 'penstock_errors_total{kind="invalid"}',
        "seconds": 'penstock_request_seconds_count{route="predict"}',
        "fast": 'penstock_request_seconds_bucket{le="30.0",route="predict"}',
        "rows": "penstock_rows_total",
        "true": 'penstock_labels_total{label="true"}',
        "false": 'penstock_labels_total{label="false"}',
        "count": 'penstock_predictions_count{output="probability_true"}',
        "high": 'penstock_predictions_bucket{le="1.0",output="probability_true"}',
        "half": 'penstock_predictions_bucket{le="0.5",output="probability_true"}',
        "sum": 'penstock_predictions_sum{output="probability_true"}',
    }
    before = {name: server.metric(metric) for name, metric in names.items()}
    answers = server.post("/predict", {"instances": [row(number) for number in range(40)]})[1]["predictions"]
    assert server.post("/predict", {"instances": [{}]})[0] == 400
    change = {name: server.metric(metric) - before[name] for name, metric in names.items()}
    positive = sum(each["prediction"] for each in answers)
    assert 0 < positive < 40
    assert change.pop("sum") == pytest.approx(sum(each["probability_true"] for each in answers))
    assert change == {
        "requests": 1, "refused": 1, "invalid": 1, "seconds": 2, "fast": 2, "rows": 40, "true": positive,
        "false": 40 - positive, "count": 40, "high": 40, "half": 40 - positive,
    }  # fmt: skip
    assert server.metric('penstock_model{framework="xgboost",name="model",version="7"}') == 1
    assert server.metric("penstock_ready") == 1
    assert server.metric("process_resident_memory_bytes") > 1e6


def test_many_at_once_each_get_their_own_answer(server):
    def ask(number: int) -> bool:
        instances = [row(number), row(number + 1)]
        status, answer = server.post("/predict", {"instances": instances})
        [one], [two] = (server.post("/predict", {"instances": [each]})[1]["predictions"] for each in instances)
        return status == 200 and answer["predictions"] == [one, two]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(100)))
    assert server.metric("penstock_requests_in_flight") == 1  # the one that asks


def test_health_answers_while_large_requests_are_predicted(server):
    body, stop, done = batch(8000), threading.Event(), []

    def load() -> None:
        while not stop.is_set():
            done.append(server.post("/predict", body)[0])

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    working(server)
    waits = []
    while len(done) < 8:
        began = time.monotonic()
        assert server.get("/health")[0] == 200
        waits.append(time.monotonic() - began)
    stop.set()
    for thread in threads:
        thread.join()
    assert set(done) == {200}
    assert len(waits) > 10
    assert sorted(waits)[len(waits) * 9 // 10] < 0.5


def test_a_token_is_asked_for_and_never_told(models, tmp_path):
    secret = "s3cret-тoken"
    (tmp_path / "token").write_text(f"{secret}\n")
    with serving(
        models("xgboost-binary"), PENSTOCK_TOKEN=f"file:{tmp_path}/token", PENSTOCK_LOG=str(tmp_path / "log")
    ) as server:
        for path in (
            "/health",
            "/",
            "/ping",
            "/version",
            "/v2/health/live",
            "/v2/health/ready",
            "/v2/models/model/ready",
        ):
            assert server.get(path)[0] == 200, path
        for path in ("/metrics", "/v2", "/v2/models/model"):
            assert server.get(path)[0] == 401, path
        bearer = f"Bearer {secret}".encode().decode("latin-1")
        for given in (None, "", "Bearer", "Bearer wrong", bearer + "x", bearer[:-1], bearer.replace("Bearer", "Basic")):
            headers = {"Authorization": given} if given is not None else {}
            status, answer, found = server.ask("POST", "/predict", BODY, headers)
            assert (status, answer["kind"], found["www-authenticate"]) == (401, "unauthorized", "Bearer")
            assert secret not in json.dumps(answer, ensure_ascii=False)
        assert server.post("/predict", BODY, headers={"Authorization": bearer})[0] == 200
        assert server.post("/predict", BODY, headers={"Authorization": bearer.replace("Bearer", "bearer")})[0] == 200
        metrics = server.get("/metrics", headers={"Authorization": bearer})[1]
        assert 'penstock_errors_total{kind="unauthorized"} 10.0' in metrics
        assert server.stop() == 0
    assert not any(secret in line for line in server.lines)
    assert not any(secret.encode() in file.read_bytes() for file in (tmp_path / "log").iterdir())


@pytest.mark.slow
def test_slow_bodies_slow_predictions_and_too_many_of_them_are_refused(models):
    limits = {"PENSTOCK_REQUEST_SECONDS": "0.3", "PENSTOCK_MAX_CONCURRENT": "1", "PENSTOCK_IDLE_SECONDS": "0.5"}
    with serving(models("xgboost-binary"), PENSTOCK_MAX_BYTES="100000000", **limits) as server:
        with half_sent(server) as connection:
            working(server)
            status, answer, headers = server.ask("POST", "/predict", BODY)
            assert (status, answer["kind"], headers["retry-after"]) == (503, "overloaded", "1")
            assert server.get("/health")[0] == 200
            status, answer = answer_on(connection)
            assert (status, answer["kind"]) == (408, "timeout")
        assert server.post("/predict", BODY)[0] == 200
        with half_sent(server):
            working(server)  # and goes away without a word
        status, answer = server.post("/predict", batch(100_000))
        assert (status, answer["error"]) == (504, "the prediction was not there within 0.3 s")
        end = time.monotonic() + 30
        while server.post("/predict", BODY)[0] == 503:  # it is at work until it has ended
            assert time.monotonic() < end
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(b"GET /health HT")  # a head that never ends
            assert connection.recv(100) == b""


def test_sigterm_drains(models):
    body = json.dumps(BODY).encode()
    with (
        serving(models("xgboost-binary"), PENSTOCK_DRAIN_DELAY_SECONDS="1", PENSTOCK_DRAIN_SECONDS="30") as server,
        half_sent(server, length=len(body)) as first,
        half_sent(server, length=len(body)) as second,
    ):
        working(server)
        server.process.terminate()
        while server.get("/health")[0] == 200:
            time.sleep(0.01)
        assert server.get("/v2/health/ready")[0] == server.get("/v2/models/model/ready")[0] == 503
        assert server.get("/v2/health/live")[0] == 200
        first.sendall(body)
        assert answer_on(first)[0] == 200
        status, answer, headers = server.ask("POST", "/predict", BODY)  # readiness has not been heard everywhere yet
        assert (status, len(answer["predictions"]), headers["connection"]) == (200, 2, "close")
        while True:
            try:
                server.get("/health")
            except OSError:
                break
        second.sendall(body)  # at work since before it stopped listening
        assert answer_on(second)[0] == 200
        assert server.process.wait(60) == 0
    assert server.lines[-1] == "serving: drained"


def test_a_request_that_does_not_end_does_not_keep_the_server(models):
    with serving(models("xgboost-binary"), PENSTOCK_DRAIN_SECONDS="0.5") as server, half_sent(server):
        working(server)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 8


def test_a_second_signal_ends_at_once(models):
    long = {"PENSTOCK_DRAIN_SECONDS": "60", "PENSTOCK_DRAIN_DELAY_SECONDS": "60"}
    with serving(models("xgboost-binary"), **long) as server, half_sent(server):
        working(server)
        server.process.terminate()
        while server.get("/health")[0] == 200:
            time.sleep(0.01)
        assert server.stop(10) == 0
    assert server.lines[-1] == "serving: ends with 1 requests unanswered"


def test_no_request_fails_when_the_server_ends_under_load(models):
    answers, refused = [], []

    def load() -> None:
        while True:
            try:
                answers.append(server.post("/predict", BODY)[0])
            except ConnectionRefusedError:
                refused.append(True)
                return
            except OSError as error:
                answers.append(error)
                return

    with serving(models("xgboost-binary"), PENSTOCK_DRAIN_DELAY_SECONDS="0.3") as server:
        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(answers) < 50:
            time.sleep(0.01)
        assert server.stop() == 0
        for thread in threads:
            thread.join()
    # What waits to be accepted when the socket is closed is reset by the kernel, unread; nothing that was read is lost.
    failed = [answer for answer in answers if answer != 200]
    assert all(isinstance(answer, ConnectionResetError) for answer in failed)
    assert len(failed) + len(refused) == 4


def test_a_folder_that_is_no_model_is_told_in_one_line(models, tmp_path):
    (tmp_path / "empty").mkdir()
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in models("xgboost-binary").iterdir():
        if file.is_file():
            (damaged / file.name).write_bytes(file.read_bytes())
    for place, problem in (
        (tmp_path / "nowhere", "cannot be read: No such file or directory"),
        (tmp_path / "empty", "holds no model"),
        (damaged, "is missing"),
        ("s3://bucket/model", "s3:// is not read here"),
    ):
        with pytest.raises(UserError, match=problem) as error:
            load(Settings(model=str(place)))
        assert error.value.argument == "model"
    with serving(damaged, ready=False) as server:
        assert server.process.wait(60) == 65
    [error] = [line for line in server.lines if "error: " in line]
    assert error == server.lines[-1]
    assert error.startswith(f"error: serving: model: {damaged}: ")


def test_sigterm_ends_a_server_that_still_loads(storage_that_hangs):
    with serving("gs://data/model", ready=False) as server:
        while not server.port:
            assert server.process.poll() is None
        assert server.get("/health")[0] == 503
        assert server.get("/v2/health/live")[0] == 200
        status, answer, headers = server.ask("POST", "/predict", BODY)
        assert (status, answer["kind"], headers["retry-after"]) == (503, "loading", "1")
        assert server.stop() == 0
    with serving("gs://data/model", ready=False, PENSTOCK_LOAD_SECONDS="1") as server:
        assert server.process.wait(60) == 65
    assert server.lines[-1] == "error: serving: model: not loaded within 1 s."


def test_a_port_that_is_taken_ends_the_server_with_one_line(models, server):
    with serving(models("xgboost-binary"), ready=False, port=server.port) as other:
        assert other.process.wait(60) == 65
    assert other.lines == [
        f"error: serving: port: 127.0.0.1:{server.port} cannot be listened on: Address already in use. Give another."
    ]
