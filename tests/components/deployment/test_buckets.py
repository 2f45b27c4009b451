"""Models come from Google Cloud Storage and request logs go there, by gcsfs and a small server on loopback."""

import http.server
import importlib
import json
import re
import sys
import threading
import urllib.parse

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.components._shared.errors import UserError
from penstock.components.deployment.serving import buckets
from tests.components.deployment.conftest import row, serving

pytest.importorskip("gcsfs")


class Storage(http.server.BaseHTTPRequestHandler):
    """Lists, reads and writes the objects of one bucket."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        found = re.fullmatch(r"(?:/download)?/storage/v1/b/data/o(?:/(.+))?", url.path)
        name = urllib.parse.unquote(found[1]) if found and found[1] else ""
        if found and not name:
            prefix = query.get("prefix", [""])[0]
            items = [item(name, content) for name, content in self.server.objects.items() if name.startswith(prefix)]
            self.answer(200, json.dumps({"kind": "storage#objects", "items": items}).encode())
        elif name not in self.server.objects:
            self.answer(404, b'{"error": {"code": 404, "message": "not found"}}')
        elif query.get("alt") == ["media"]:
            self.answer(200, self.server.objects[name], "application/octet-stream")
        else:
            self.answer(200, json.dumps(item(name, self.server.objects[name])).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        boundary = re.search(r"boundary=\"?([^\";]+)", self.headers["Content-Type"])[1].encode()
        _, head, content = re.split(rb"\r?\n?--" + re.escape(boundary) + rb"(?:--)?\r?\n?", body)[:3]
        name = json.loads(re.split(rb"\r?\n\r?\n", head, maxsplit=1)[1])["name"]
        self.server.objects[name] = re.split(rb"\r?\n\r?\n", content, maxsplit=1)[1]
        self.answer(200, json.dumps(item(name, self.server.objects[name])).encode())

    def answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def item(name: str, content: bytes) -> dict:
    kind = "storage#object"
    return {"kind": kind, "bucket": "data", "name": name, "size": str(len(content)), "generation": "1"}


@pytest.fixture
def storage(monkeypatch):
    """A server with one bucket, `data`; gcsfs in this process and those it starts use it."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Storage)
    server.objects = {}
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_is_served_from_a_bucket_and_its_log_goes_to_one(storage, models):
    folder = models("xgboost-binary")
    for file in folder.rglob("*"):
        if file.is_file():
            storage.objects[f"runs/1/model/{file.relative_to(folder)}"] = file.read_bytes()
    storage.objects["runs/10/model/other"] = b"not of this one"
    with serving(None, AIP_STORAGE_URI="gs://data/runs/1/", PENSTOCK_LOG="gs://data/log") as server:
        assert server.post("/predict", {"instances": [row(1)]})[0] == 200
        assert server.stop() == 0
    [name] = [name for name in storage.objects if name.startswith("log/")]
    assert re.fullmatch(r"log/part-\d{8}T\d{6}-[0-9a-f]{8}-00001\.parquet", name)
    [logged] = pq.read_table(pa.BufferReader(storage.objects[name])).to_pylist()
    assert {name: logged[name] for name in row(1)} == row(1)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("none/file", "gs://data/model: there is no such folder"),
        ("model/../../escaped", "model/../../escaped is no name of a file"),
    ],
)
def test_what_cannot_be_fetched_ends_the_server_with_one_line(storage, name, problem):
    storage.objects[name] = b"x"
    with serving("gs://data/model", ready=False) as server:
        assert server.process.wait(60) == 65
    assert server.lines[-1].startswith("error: serving: model: ")
    assert problem in server.lines[-1]


def test_where_gcsfs_is_not_installed_the_error_ends_in_how_to_install_it(monkeypatch, tmp_path):
    importlib.import_module("fsspec")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "gs", raising=False)
    with pytest.raises(UserError, match=r"gs://data/model cannot be read: .*pip install 'penstock\[serving,gcs\]'"):
        buckets.fetch("gs://data/model", tmp_path)
