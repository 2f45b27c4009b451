"""What .ci/upload sends, where to, and what it refuses."""

import os
import re
import subprocess
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.contract.ci import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    """A stand-in for a repository of pipeline templates: `uploads` are (tags, spec), `refusals` its next answers."""

    url: str
    path: str
    uploads: list[tuple[str, str]] = field(default_factory=list)
    refusals: list[tuple[int, str]] = field(default_factory=list)


@pytest.fixture
def repository(tmp_path):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            status, text = it.refusals.pop(0) if it.refusals else (200, "name/sha256:00")
            if self.headers["Authorization"] != "Bearer a-token":
                status, text = 401, "who are you?"
            if status == 200:
                boundary = re.search("boundary=(.*)", self.headers["Content-Type"]).group(1)
                fields = dict(
                    re.match(r'\r\n[^;]*; name="(\w+)".*?\r\n\r\n(.*)\r\n\Z', part, re.DOTALL).groups()
                    for part in body.split(f"--{boundary}")[1:-1]
                )
                it.uploads.append((fields["tags"], fields["content"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            return

    programs = tmp_path / "programs"
    programs.mkdir()
    program(programs / "gcloud", 'case "$*" in "auth print-access-token") echo a-token ;; *) echo "gcloud $*" ;; esac')
    program(programs / "az", 'echo "az $*"')
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    it = Repository(f"http://127.0.0.1:{server.server_port}", f"{programs}{os.pathsep}{os.environ['PATH']}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield it
    server.shutdown()
    thread.join()
    server.server_close()


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def specs(tmp_path):
    folder = tmp_path / "compiled"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.yaml").write_text(f"pipelineInfo:\n  name: {name}\n")
    return folder


def upload(repository, *arguments):
    return subprocess.run(
        [ROOT / ".ci" / "upload", *arguments], env={"PATH": repository.path}, capture_output=True, text=True, timeout=60
    )


def test_a_template_repository_gets_each_spec_tagged_with_the_commit(repository, specs):
    done = upload(repository, specs, COMMIT, f"{repository.url}/project/specs/")
    assert done.returncode == 0, done.stderr
    assert repository.uploads == [(COMMIT, path.read_text()) for path in sorted(specs.iterdir())]
    assert done.stdout.splitlines()[0] == f"{specs}/one.yaml → {repository.url}/project/specs/name/sha256:00"


def test_a_refusal_is_one_line_with_what_the_repository_said_and_without_the_token(repository, specs):
    repository.refusals = [(403, "no permission artifactregistry.repositories.uploadArtifacts")]
    done = upload(repository, specs, COMMIT, f"{repository.url}/project/specs")
    assert done.returncode == 2
    assert "one.yaml: no permission artifactregistry.repositories.uploadArtifacts" in done.stderr
    assert "a-token" not in done.stdout + done.stderr
    assert repository.uploads == []


def test_a_repository_that_is_away_for_a_moment_is_asked_again(repository, specs):
    repository.refusals = [(503, "later")]
    done = upload(repository, specs, COMMIT, f"{repository.url}/project/specs")
    assert done.returncode == 0, done.stderr
    assert len(repository.uploads) == 2


def test_a_bucket_gets_a_folder_a_commit(repository, specs):
    done = upload(repository, specs, COMMIT, "gs://bucket/specs")
    assert done.stdout == f"gcloud storage cp {specs}/one.yaml {specs}/two.yaml gs://bucket/specs/{COMMIT}/\n"


def test_a_blob_container_gets_a_folder_a_commit(repository, specs):
    done = upload(repository, specs, COMMIT, "https://acme.blob.core.windows.net/specs")
    assert f"--source {specs} --account-name acme --destination specs/{COMMIT}\n" in done.stdout
    assert "--auth-mode login" in done.stdout


@pytest.mark.parametrize(
    ("commit", "destination", "reason"),
    [
        ("main", "gs://bucket", "«main» is no git commit"),
        (COMMIT, "s3://bucket", "cannot upload to s3://bucket"),
        (COMMIT, "http://us-kfp.pkg.dev/project/specs", "cannot upload to http://us-kfp.pkg.dev/project/specs"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(repository, specs, commit, destination, reason):
    done = upload(repository, specs, commit, destination)
    assert done.returncode == 2
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_folder_without_specs_is_refused(repository, tmp_path):
    done = upload(repository, tmp_path, COMMIT, "gs://bucket")
    assert done.returncode == 2
    assert done.stderr == f"upload: no .yaml in {tmp_path}; compile first: penstock compile --all --output {tmp_path}\n"
