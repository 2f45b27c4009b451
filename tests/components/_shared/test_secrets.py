"""Secrets by reference, from files, variables, and the stores of clouds, played on loopback."""

import base64
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from penstock.components._shared import secrets
from penstock.components._shared.errors import UserError
from penstock.components._shared.secrets import read_secret


@pytest.fixture
def store() -> Iterator[ThreadingHTTPServer]:
    """A server that has two secrets, and notes what it is asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append((self.path, self.headers["Authorization"]))
            answer = {
                "/v1/projects/p/secrets/s/versions/latest:access": {
                    "payload": {"data": base64.b64encode(b"g").decode()}
                },
                "/v1/projects/p/secrets/s/versions/3:access": {"payload": {"data": base64.b64encode(b"g3").decode()}},
                "/secrets/s?api-version=7.4": {"value": "a"},
            }.get(self.path)
            self.send_response(200 if answer else 403)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_files_and_variables(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text(" from a file\n")
    monkeypatch.setenv("SECRET", "from a variable")
    assert read_secret(f"file:{tmp_path}/secret", "c", "a") == "from a file"
    assert read_secret("env:SECRET", "c", "a") == "from a variable"
    assert read_secret("env:SECRET", "c", "a", {"SECRET": "another"}) == "another"


def test_secret_manager_is_asked_with_the_identity_of_the_machine(store, monkeypatch):
    import google.auth
    from google.oauth2.credentials import Credentials

    monkeypatch.setattr(secrets, "SECRET_MANAGER", f"http://127.0.0.1:{store.server_port}")
    monkeypatch.setattr(google.auth, "default", lambda scopes: (Credentials("identity"), "p"))
    assert read_secret("gcp:projects/p/secrets/s", "c", "a") == "g"
    assert read_secret("gcp:projects/p/secrets/s/versions/3", "c", "a") == "g3"
    assert {header for _, header in store.asked} == {"Bearer identity"}
    with pytest.raises(UserError, match="c: a: gcp:projects/p/secrets/other cannot be read: status 403"):
        read_secret("gcp:projects/p/secrets/other", "c", "a")


def test_a_key_vault_is_asked_with_the_identity_of_the_machine(store, monkeypatch, certificate):
    import azure.identity

    class Identity:
        def get_token(self, scope: str) -> object:
            return type("Token", (), {"token": f"for {scope}"})

    store.socket = certificate("v.vault.azure.net").wrap_socket(store.socket, server_side=True)
    monkeypatch.setattr(azure.identity, "DefaultAzureCredential", Identity)
    found = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: found("127.0.0.1", *rest, **more))
    vault = f"azure:https://v.vault.azure.net:{store.server_port}/secrets"
    assert read_secret(f"{vault}/s", "c", "a") == "a"
    assert store.asked == [("/secrets/s?api-version=7.4", "Bearer for https://vault.azure.net/.default")]
    with pytest.raises(UserError, match="status 403"):
        read_secret(f"{vault}/other", "c", "a")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("hunter2", "c: a: is no reference to a secret. Write file:PATH"),
        ("password:hunter2", "is no reference to a secret"),
        ("env:", "is no reference to a secret"),
        ("env:NOWHERE", "the variable NOWHERE is not set"),
        ("env:EMPTY", "env:EMPTY holds nothing"),
        ("file:/nowhere/at/all", "/nowhere/at/all cannot be read: No such file or directory"),
        ("gcp:projects/p", "gcp:projects/p names no secret"),
        ("azure:https://vault.example.org/secrets/s", "azure:… names no secret of a Key Vault"),
        ("azure:http://v.vault.azure.net/secrets/s", "names no secret of a Key Vault"),
        ("azure:https://evil.org/?x=.vault.azure.net", "names no secret of a Key Vault"),
    ],
)
def test_what_leads_nowhere_is_refused_without_showing_what_may_be_the_secret(reference, message):
    with pytest.raises(UserError, match=message) as error:
        read_secret(reference, "c", "a", {"EMPTY": " "})
    assert "hunter2" not in str(error.value)
