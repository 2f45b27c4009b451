"""Importers of remote artifacts: what is fetched is whole, what cannot be is one line without secrets."""

import datetime
import email.utils
import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from kfp import dsl

from penstock.compile import from_kfp, graph, launcher
from penstock.compile.targets.local import fetch

pytest.importorskip("aiohttp")


@dataclass
class Web:
    """A web server on loopback: its files by path, statuses to give before them, and the requests it got."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    before: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server; of files named cut it sends the half, of files named silent too and then falls silent."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            found.asked.append((self.command, self.path))
            status, headers = found.before.pop(0) if found.before else (200 if path in found.files else 404, {})
            if status != 200:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                return
            content = found.files[path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if "cut" in path or "silent" in path else content)
            if "silent" in path:
                self.wfile.flush()
                over.wait(20)

        def log_message(self, *arguments: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    found = Web(f"http://127.0.0.1:{httpd.server_port}")
    yield found
    over.set()
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PAUSE", 0.01)
    monkeypatch.setattr(fetch, "DEADLINE", 0.5)


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that expects a URI not to be fetched, in one line and with nothing left, and returns why."""

    def run(uri: str) -> str:
        with pytest.raises(fetch.FetchError) as raised:
            fetch.fetch(uri, tmp_path / "out" / "data")
        assert not list((tmp_path / "out").glob("*"))
        return str(raised.value)

    return run


@pytest.fixture
def imported(tmp_path: Path, compiled) -> Callable[..., launcher.Outputs]:
    """Return a function that runs the importer of a URI as the engine does."""

    def run(uri: str, stop: launcher.Stop | None = None) -> launcher.Outputs:
        @dsl.pipeline(name="one")
        def one():
            dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset, metadata={"rows": 2})

        (task,) = from_kfp.read(compiled(one)).dag.tasks.values()
        assert isinstance(task.component.body, graph.Importer)
        whole = fetch.import_task(task, uri, task.component.body.metadata, sys.executable)
        return launcher.run(whole, {"uri": uri}, {}, tmp_path / "task", stop=stop)

    return run


def test_an_importer_gives_the_local_copy_as_its_artifact(web, imported, tmp_path):
    web.files["/data/rows.csv"] = b"a\n1\n2\n"
    artifact = imported(f"{web.address}/data/rows.csv?token=hush").artifacts["artifact"]
    assert artifact.uri == str(tmp_path / "task" / "outputs" / "artifact")
    assert Path(artifact.uri).read_bytes() == b"a\n1\n2\n"
    assert artifact.type["schemaTitle"] == "system.Dataset"
    assert artifact.metadata == {"rows": 2}
    assert sorted(path.name for path in (tmp_path / "task").rglob("*")) == ["artifact", "log.txt", "outputs"]
    log = (tmp_path / "task" / "log.txt").read_text()
    assert f"fetching {web.address}/data/rows.csv?…\nfetched 1 file, 6 bytes, in" in log
    assert ("GET", "/data/rows.csv?token=hush") in web.asked


def test_an_importer_that_fails_says_why_in_one_line_with_the_code_of_a_users_mistake(web, imported):
    with pytest.raises(launcher.TaskError) as caught:
        imported(f"{web.address}/absent.csv?token=hush")
    assert str(caught.value) == f"importer: there is no {web.address}/absent.csv?…; check the URI"
    assert caught.value.exit_code == launcher.USER_ERROR_EXIT_CODE
    assert len(web.asked) == 1


def test_an_importer_is_stopped_at_once(web, imported, tmp_path):
    web.files["/silent.bin"] = bytes(1000)
    stop = launcher.Stop(grace=5)
    outcome = []

    def run() -> None:
        with pytest.raises(launcher.Stopped):
            imported(f"{web.address}/silent.bin", stop)
        outcome.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    while not web.asked:
        time.sleep(0.02)
    begin = time.monotonic()
    stop.request()
    thread.join()
    assert outcome[0] - begin < 3
    assert not (tmp_path / "task" / "outputs").exists()


def test_a_large_file_arrives_whole(web, tmp_path):
    web.files["/large.bin"] = os.urandom(9_000_001)
    assert fetch.fetch(f"{web.address}/large.bin", tmp_path / "data") == (1, 9_000_001)
    assert (tmp_path / "data").read_bytes() == web.files["/large.bin"]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_passing_fault_is_tried_again(web, quick, tmp_path, capsys, status):
    web.files["/x"] = b"1"
    web.before += [(status, {}), (status, {})]
    fetch.fetch(f"{web.address}/x?token=hush", tmp_path / "data")
    assert len(web.asked) == 3
    said = capsys.readouterr().out
    assert str(status) in said
    assert "attempt 3 of 4" in said
    assert "hush" not in said


@pytest.mark.parametrize(("status", "text"), [(400, "400"), (401, "401"), (403, "403"), (410, "there is no")])
def test_what_stays_as_it_is_is_asked_once(web, quick, refused, status, text):
    web.before += [(status, {})] * 4
    assert text in refused(f"{web.address}/x?token=hush")
    assert len(web.asked) == 1


def test_a_server_that_never_recovers_is_given_up_after_four_attempts(web, quick, refused):
    web.before += [(503, {})] * 9
    message = refused(f"{web.address}/x?token=hush")
    assert "503" in message
    assert message.endswith("check the URI, the network and this machine's credentials for it")
    assert "hush" not in message
    assert len(web.asked) == fetch.ATTEMPTS


def test_a_server_that_says_when_to_come_back_is_heeded(web, quick, tmp_path):
    web.files["/x"] = b"1"
    web.before.append((429, {"Retry-After": "1"}))
    begin = time.monotonic()
    fetch.fetch(f"{web.address}/x", tmp_path / "data")
    assert time.monotonic() - begin >= 1


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_server_that_wants_a_long_pause_is_not_waited_for(web, quick, refused, form):
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    web.before.append((503, {"Retry-After": "3600" if form == "seconds" else email.utils.format_datetime(later)}))
    message = refused(f"{web.address}/x")
    assert "to be asked again in 3" in message
    assert len(web.asked) == 1


def test_a_body_that_is_cut_short_and_a_server_that_falls_silent_are_given_up(web, quick, refused):
    web.files |= {"/cut.bin": bytes(100_000), "/silent.bin": bytes(100_000)}
    assert "not completed" in refused(f"{web.address}/cut.bin")
    begin = time.monotonic()
    assert "nothing came for 0.5 s" in refused(f"{web.address}/silent.bin")
    assert time.monotonic() - begin < 10
    assert len(web.asked) == 2 * fetch.ATTEMPTS


def test_nobody_listening_is_one_line(quick, refused):
    assert "http://127.0.0.1:9/x cannot be read: " in refused("http://127.0.0.1:9/x")


def test_what_is_there_already_is_not_lost_when_the_disk_refuses(web, tmp_path):
    web.files["/x"] = b"1"
    (tmp_path / "data" / "inside").mkdir(parents=True)
    with pytest.raises(fetch.FetchError, match="cannot be written"):
        fetch.fetch(f"{web.address}/x", tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_an_object_is_fetched_from_s3_by_the_importer(bucket, imported):
    bucket.put_object(Bucket="data", Key="x/rows.csv", Body=b"a\n1\n")
    artifact = imported("s3://data/x/rows.csv").artifacts["artifact"]
    assert Path(artifact.uri).read_bytes() == b"a\n1\n"


def test_a_prefix_is_fetched_from_s3_as_a_folder(bucket, refused, tmp_path):
    content = {"m/a.bin": os.urandom(9_000_000), "m/deep/er/b [1]*?.txt": b"b", "m/empty": b"", "m2/other": b"x"}
    for name, body in {**content, "m/": b""}.items():
        bucket.put_object(Bucket="data", Key=name, Body=body)
    for number, uri in enumerate(("s3://data/m", "s3://data/m/")):
        target = tmp_path / f"{number}"
        assert fetch.fetch(uri, target) == (3, 9_000_001)
        found = {f"m/{path.relative_to(target)}": path.read_bytes() for path in target.rglob("*") if path.is_file()}
        assert found == {name: body for name, body in content.items() if name.startswith("m/")}
    assert refused("s3://data/nothing") == "there is no s3://data/nothing; check the URI"
    assert "there is no s3://nobucket/x" in refused("s3://nobucket/x")


def test_names_that_would_leave_the_folder_or_meet_in_it_are_refused(bucket, refused):
    bucket.put_object(Bucket="data", Key="up/../../../escaped", Body=b"x")
    assert "cannot be a path" in refused("s3://data/up")
    bucket.put_object(Bucket="data", Key="twice/a", Body=b"x")
    bucket.put_object(Bucket="data", Key="twice/a/b", Body=b"x")
    assert "'a' is a file in it and a folder as well" in refused("s3://data/twice")


def test_one_object_that_fails_ends_the_fetching_of_a_folder(bucket, refused, monkeypatch, quick):
    for number in range(20):
        bucket.put_object(Bucket="data", Key=f"x/{number:02d}", Body=b"x")
    pour = fetch._pour

    def forbidden(files, source, sink, size) -> None:
        if source.endswith("07"):
            raise PermissionError("Forbidden")
        pour(files, source, sink, size)

    monkeypatch.setattr(fetch, "_pour", forbidden)
    assert refused("s3://data/x").startswith("s3://data/x/07 cannot be read: Forbidden")


def test_a_size_that_is_not_the_stores_is_not_believed(bucket, refused, monkeypatch, quick):
    bucket.put_object(Bucket="data", Key="x", Body=b"12345")
    monkeypatch.setattr(fetch, "_pour", lambda files, source, sink, size: sink.write(b"123"))
    assert "3 of 5 bytes arrived" in refused("s3://data/x")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("https://example.org/x?sig=hush", None),
        ("s3://bucket/key", None),
        ("gs://bucket/key", None),
        ("abfss://container@account.dfs.core.windows.net/x", None),
        ("oci://registry/model:1", "unknown scheme oci://; models in images are not unpacked here"),
        ("ftp://host/x", "unknown scheme ftp://; give a path, or a URI of https://, s3://, gs://, abfss://"),
        ("minio://bucket/x", "unknown scheme minio://; write it as s3:// and give its server in AWS_ENDPOINT_URL"),
        ("memory://x", "unknown scheme memory://; give a path"),
        ("https://me:hush@example.org/x", "it holds a user or password"),
        ("https://hush@example.org/x", "it holds a user or password"),
        ("s3://hush:hush@bucket/x", "it holds a user or password"),
        ("gs:///x", "it names no host or bucket"),
    ],
)
def test_what_can_never_be_fetched_is_known_before_anything_runs(uri, reason, refused, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    found = fetch.fetchable(uri)
    assert (found is None) is (reason is None)
    if reason:
        assert found.startswith(reason)
        message = refused(uri)
        assert message == f"{fetch.shown(uri)}: {found}"
        assert "hush" not in message


@pytest.mark.parametrize(
    ("scheme", "package", "extra"),
    [
        ("https", "aiohttp", "tabular"),
        ("s3", "s3fs", "s3"),
        ("gs", "gcsfs", "gcs"),
        ("abfss", "adlfs", "azure-storage"),
    ],
)
def test_a_package_that_is_missing_ends_in_the_pip_line(monkeypatch, refused, tmp_path, scheme, package, extra):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find_spec(name))
    expected = f"{scheme}:// needs a package that is not installed ({package}); run pip install 'penstock[{extra}]'"
    assert fetch.fetchable(f"{scheme}://bucket/x") == expected
    assert refused(f"{scheme}://bucket/x").endswith(expected)
    line = [sys.executable, "-c", f"import sys; sys.modules[{package!r}] = None\n"
            "from penstock.compile.targets.local import fetch\nfetch.fetchable = lambda uri: None\n"
            f"sys.exit(fetch.main(['{scheme}://bucket/x', {os.fspath(tmp_path / 'x')!r}]))"]  # fmt: skip
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == launcher.USER_ERROR_EXIT_CODE
    assert done.stderr.startswith(f"error: importer: {scheme}://bucket/x: {scheme}:// needs a package")
    assert done.stderr.rstrip().endswith(f"run pip install 'penstock[{extra}]'")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("https://me:hush@example.org:8443/a/b.csv?sig=hush#part", "https://example.org:8443/a/b.csv?…"),
        ("https://example.org?key=hush", "https://example.org?…"),
        ("s3://hush:hush@bucket/x", "s3://bucket/x"),
        ("abfss://container@account.dfs.core.windows.net/x?sig=hush", "abfss://container@account.dfs.core.windows.net/x?…"),
        ("gs://bucket/x", "gs://bucket/x"),
    ],
)  # fmt: skip
def test_a_uri_is_shown_without_what_may_be_secret(uri, text):
    assert fetch.shown(uri) == text


def test_a_uri_that_is_known_late_and_cannot_be_fetched_fails_its_task_by_name():
    ports = graph.Ports(artifacts={"artifact": graph.ArtifactPort("artifact", graph.ArtifactType("system.Model"))})
    body = graph.Importer("importer", graph.RuntimeParameter("uri"), graph.ArtifactType("system.Model"))
    task = graph.Task("take-in", graph.Component("take-in", graph.Ports(), ports, body))
    with pytest.raises(launcher.TaskError, match=r"^take-in: oci://registry/model: unknown scheme oci://"):
        fetch.import_task(task, "oci://registry/model", {}, sys.executable)
