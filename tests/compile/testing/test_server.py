"""The server under every stand-in, its journal and its faults, by plain HTTP."""

import http.client
import json
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request

import pytest

from penstock.testing import ALWAYS, Answer, ApiError, Fault, Route, StandIn


class Counter(StandIn):
    """Counts, for tests."""

    def routes(self):
        self.count = 0
        return [
            Route("POST", "/counters/{name}:add", self._add),
            Route("GET", "/counters/{name}", lambda request, name: {"name": name, "count": self.count}),
            Route("GET", "/files/{path...}", lambda request, path: Answer(path.encode())),
            Route("GET", "/bug", lambda request: 1 / 0),
        ]

    def _add(self, request, name):
        if request.json().get("by", 0) < 0:
            raise ApiError(400, "by: not less than 0")
        self.count += request.json()["by"]
        return {"name": name, "count": self.count}


@pytest.fixture
def counter():
    with Counter() as stand_in:
        yield stand_in


def call(stand_in, method, path, body=None, headers=None, timeout=10, context=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(stand_in.url + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout, context=context) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_route_takes_names_out_of_the_path_and_answers_json(counter):
    assert call(counter, "POST", "/counters/a%20b:add", {"by": 2}) == (200, {"name": "a b", "count": 2})
    with urllib.request.urlopen(f"{counter.url}/files/a/b%2Fc", timeout=10) as answer:
        assert answer.read() == b"a/b/c"


def test_what_is_refused_not_there_or_broken_is_an_error_in_json(counter, capsys):
    assert call(counter, "POST", "/counters/a:add", {"by": -1})[1]["error"]["message"] == "by: not less than 0"
    assert call(counter, "POST", "/counters/a:add", [])[0] == 400
    status, body = call(counter, "GET", "/nothing")
    assert (status, body["error"]["message"]) == (404, "Counter has no GET /nothing")
    status, body = call(counter, "GET", "/bug")
    assert status == 500
    assert "ZeroDivisionError" in body["error"]["message"]


def test_the_journal_keeps_every_request_without_secrets(counter):
    headers = {"Authorization": "Bearer canary", "X-Team": "taxi", "Cookie": "canary"}
    call(counter, "POST", "/counters/a:add?sig=canary&dry=1", {"by": 1}, headers)
    call(counter, "GET", "/counters/a")
    first, second = counter.requests
    assert (first.method, first.path, first.query["dry"]) == ("POST", "/counters/a:add", "1")
    assert (first.body, first.status, first.headers["x-team"]) == ({"by": 1}, 200, "taxi")
    assert second.status == 200
    assert "canary" not in repr(counter.requests)
    assert counter.seen("POST *:add") == (first,)
    counter.forget()
    assert counter.requests == ()


def test_a_fault_happens_as_often_as_it_says_after_what_it_lets_through(counter):
    counter.add_faults(Fault.answer("POST *:add", 503, times=2, after=1, retry_after=0.5))
    statuses = [call(counter, "POST", "/counters/a:add", {"by": 1})[0] for _ in range(4)]
    assert statuses == [200, 503, 503, 200]
    assert counter.count == 2
    assert counter.pending_faults == ()
    assert [request.fault is not None for request in counter.requests] == [False, True, True, False]


def test_an_error_can_ask_for_patience(counter):
    counter.add_faults(Fault.answer("* *", 429, retry_after=7))
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{counter.url}/counters/a", timeout=10)
    assert (caught.value.code, caught.value.headers["Retry-After"]) == (429, "7")
    caught.value.close()


def test_a_reset_connection_did_nothing_and_a_lost_answer_did(counter):
    counter.add_faults(Fault.reset("POST *:add"), Fault.lost("POST *:add"))
    for expected in (0, 5):
        with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
            call(counter, "POST", "/counters/a:add", {"by": 5})
        assert counter.count == expected
    assert call(counter, "POST", "/counters/a:add", {"by": 5}) == (200, {"name": "a", "count": 10})


def test_a_stall_keeps_others_going_and_does_the_work_in_the_end(counter):
    counter.add_faults(Fault.stall("POST *:add", 2))
    with pytest.raises(TimeoutError):
        call(counter, "POST", "/counters/a:add", {"by": 1}, timeout=0.1)
    assert call(counter, "GET", "/counters/a")[1]["count"] == 0
    end = time.monotonic() + 60
    while counter.count == 0:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_closing_ends_a_stall_at_once():
    stand_in = Counter(faults=[Fault.stall("* *", 200, times=ALWAYS)])
    problems = []

    def ask():
        try:
            call(stand_in, "GET", "/counters/a")
        except OSError as error:
            problems.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not stand_in.requests:
        time.sleep(0.01)
    begin = time.monotonic()
    stand_in.close()
    thread.join(60)
    assert problems
    assert time.monotonic() - begin < 60
    assert not stand_in.folder.exists()


def test_a_mistaken_fault_is_refused_when_it_is_made():
    with pytest.raises(ValueError, match="is not a method and a path"):
        Fault.answer("*:cancel")


def test_many_clients_at_once_each_get_their_answer(counter):
    threads = [
        threading.Thread(target=lambda: [call(counter, "POST", "/counters/a:add", {"by": 1}) for _ in range(10)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.count == 80
    assert len(counter.requests) == 80


def test_chunked_bodies_are_read(counter):
    connection = http.client.HTTPConnection(*counter.address.split(":"), timeout=10)
    connection.request(
        "POST", "/counters/a:add", iter([b'{"by"', b": 3}"]), {"Content-Type": "application/json"}, encode_chunked=True
    )
    assert json.loads(connection.getresponse().read())["count"] == 3
    connection.close()


def test_over_tls_clients_trust_its_certificate_alone():
    with Counter(tls=True) as stand_in:
        assert stand_in.url.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=stand_in.ca_file)
        trusting.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 sets by itself
        assert call(stand_in, "GET", "/counters/a", context=trusting) == (200, {"name": "a", "count": 0})
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            call(stand_in, "GET", "/counters/a", context=ssl.create_default_context())
        # One that does not shake hands keeps no other waiting.
        with socket.create_connection(("127.0.0.1", int(stand_in.address.rpartition(":")[2]))):
            assert call(stand_in, "GET", "/counters/a", context=trusting)[0] == 200
        stand_in.add_faults(Fault.reset("* *"))
        with pytest.raises((ConnectionResetError, urllib.error.URLError, http.client.RemoteDisconnected)):
            call(stand_in, "GET", "/counters/a", context=trusting)
