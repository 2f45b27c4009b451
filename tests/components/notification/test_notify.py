"""What channels are told, by servers on loopback, and what happens where they do not take it."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from penstock.components._shared.errors import UserError
from penstock.components.notification import channels
from penstock.components.notification.notify import Final, notify

PAGE = "https://console.cloud.google.com/vertex-ai/locations/europe-west4/pipelines/runs/taxi-7?project=123"
JOB = "projects/123/locations/europe-west4/pipelineJobs/taxi-7"
FAILED = Final("FAILED", "exit-handler-1", JOB, 9, "The DAG failed because some tasks failed: [train].")
PASSED = Final("SUCCEEDED", "exit-handler-1", "taxi-7")


class Hook:
    """A webhook that answers with the statuses it is given, then with 200."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.answers: list[int] = []


@pytest.fixture
def hook() -> Iterator[Hook]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            found.headers.append(dict(self.headers))
            self.send_response(found.answers.pop(0) if found.answers else 200)
            self.send_header("Retry-After", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Hook(f"http://127.0.0.1:{server.server_port}/hook/secret-path")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def secrets(monkeypatch, hook):
    monkeypatch.setenv("HOOK", hook.url)
    monkeypatch.setenv("TOKEN", "s3cret-token")


def test_slack_is_told_where_and_why_with_markup_made_harmless(hook):
    final = Final("FAILED", "exit-handler-1", JOB, 9, "a <b> & `c`")
    result = notify(final, channels=[{"kind": "slack", "url": "env:HOOK"}], title="taxi <tips>", facts={"auc": 0.71})
    assert (result.told, result.reached) == (True, 1)
    [body] = hook.bodies
    assert body["text"].splitlines() == [
        ":x: *taxi &lt;tips&gt; failed (code 9)*",
        "```a &lt;b&gt; &amp; `c````",
        f"*run*: {JOB}",
        "*part*: exit-handler-1",
        "*auc*: 0.71",
        f"<{PAGE}|Look at the run>",
    ]


def test_teams_is_sent_a_card(hook):
    notify(
        PASSED,
        channels=[{"kind": "teams", "url": "env:HOOK"}],
        when="always",
        run_url="https://kfp/{run_id}",
        run_id="7",
    )
    [attachment] = hook.bodies[0]["attachments"]
    card = attachment["content"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert card["body"][0]["text"] == "exit-handler-1 passed"
    assert card["body"][1] == {"type": "FactSet", "facts": [{"title": "run", "value": "7"}]}
    assert card["actions"] == [{"type": "Action.OpenUrl", "title": "Look at the run", "url": "https://kfp/7"}]


def test_a_webhook_is_sent_all_and_the_token(hook):
    notify(FAILED, channels=[{"kind": "webhook", "url": hook.url, "token": "env:TOKEN"}], title="taxi")
    assert hook.bodies[0] == {
        "passed": False,
        "headline": "taxi failed (code 9)",
        "reason": FAILED.reason,
        "facts": {"run": JOB, "part": "exit-handler-1"},
        "url": PAGE,
    }
    assert hook.headers[0]["Authorization"] == "Bearer s3cret-token"


@pytest.mark.parametrize(
    ("state", "when", "told"),
    [
        ("FAILED", "failure", True),
        ("CANCELLED", "failure", True),
        ("SUCCEEDED", "failure", False),
        ("COMPLETE", "failure", False),
        ("COMPLETE", "success", True),
        ("FAILED", "success", False),
        ("FAILED", "always", True),
        ("SUCCEEDED", "always", True),
    ],
)
def test_only_what_is_asked_for_is_told(hook, capsys, state, when, told):
    result = notify(Final(state, "handler", "run-1"), channels=[{"kind": "slack", "url": "env:HOOK"}], when=when)
    assert (result.told, len(hook.bodies)) == (told, int(told))
    assert capsys.readouterr().out.startswith("handler ")


def test_what_fails_for_a_passing_reason_is_told_again(hook):
    hook.answers = [503, 429]
    assert notify(FAILED, channels=[{"kind": "slack", "url": "env:HOOK"}]).reached == 1
    assert len(hook.bodies) == 3


def test_what_is_refused_is_not_told_again_and_keeps_no_other_channel_from_being_told(hook, capsys):
    hook.answers = [404]
    both = [{"kind": "slack", "url": "env:HOOK"}, {"kind": "webhook", "url": hook.url}]
    with pytest.raises(UserError, match=r"not told: channels\[0\] \(slack\): it answered with status 404") as error:
        notify(FAILED, channels=both)
    assert len(hook.bodies) == 2
    assert "secret-path" not in str(error.value)
    hook.answers = [404]
    assert notify(FAILED, channels=both, on_error="report").reached == 1
    assert "secret-path" not in "".join(capsys.readouterr())


def test_a_server_that_is_not_there_is_tried_and_then_told_of(monkeypatch):
    monkeypatch.setattr(channels, "LONGEST_PAUSE", 0.01)
    monkeypatch.setenv("HOOK", "http://127.0.0.1:9/hook")
    with pytest.raises(UserError, match="ConnectionError, 4 times"):
        notify(FAILED, channels=[{"kind": "slack", "url": "env:HOOK"}])


def test_a_server_that_does_not_answer_is_not_waited_for_for_ever(monkeypatch, hook):
    monkeypatch.setattr(channels, "SECONDS", 0.2)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as silent:  # it accepts, and nobody answers
        monkeypatch.setenv("HOOK", f"http://127.0.0.1:{silent.server_port}/")
        with pytest.raises(UserError, match=r"no answer within 0.2 s"):
            notify(FAILED, channels=[{"kind": "slack", "url": "env:HOOK"}])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"channels": ["slack"]},
            r"channels\[0\]: 'slack' is no kind of channel. Give a kind of slack, teams, webhook, email",
        ),
        ({"channels": [{"kind": "sms"}]}, "'sms' is no kind of channel"),
        ({"channels": [{"kind": "slack"}]}, "slack lacks url"),
        ({"channels": [{"kind": "slack", "url": "env:HOOK", "color": 1}]}, "slack has no setting 'color'"),
        (
            {"channels": [{"kind": "slack", "url": "https://hooks/T0/hunter2"}]},
            r"channels\[0\].url: is no reference to a secret",
        ),
        ({"channels": [{"kind": "slack", "url": "env:NOWHERE"}]}, "the variable NOWHERE is not set"),
        (
            {"channels": [{"kind": "email", "server": "a", "from": "b", "to": "c", "security": "ssl"}]},
            r"channels\[0\].security: 'ssl' is no choice. Give one of starttls, tls, none",
        ),
        ({"when": "never"}, "when: 'never' is no choice. Give one of failure, success, always"),
        ({"on_error": "ignore"}, "on_error: 'ignore' is no choice"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_told(hook, arguments, message):
    arguments = {**arguments, "channels": [{"kind": "slack", "url": "env:HOOK"}, *arguments.get("channels", [])][::-1]}
    with pytest.raises(UserError, match=message) as error:
        notify(FAILED, **arguments)
    assert hook.bodies == []
    assert "hunter2" not in str(error.value)


class Mailbox:
    """What a mail server was given."""

    def __init__(self) -> None:
        self.mails: list = []

    async def handle_DATA(self, server, session, envelope) -> str:
        self.mails.append(envelope)
        return "250 OK"


def test_mail_goes_by_starttls_with_a_password_that_is_a_reference(certificate):
    context = certificate("localhost")
    box = Mailbox()
    logins = []

    def authenticate(server, session, envelope, mechanism, data):
        logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"s3cret-token", handled=False)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Controller(
        box,
        hostname="127.0.0.1",
        port=port,
        server_hostname="localhost",
        tls_context=context,
        require_starttls=True,
        authenticator=authenticate,
        auth_required=True,
    )
    server.start()
    try:
        mail = {"kind": "email", "server": f"localhost:{port}", "from": "ci@a.test", "to": ["b@a.test", "c@a.test"]}
        assert notify(FAILED, channels=[{**mail, "user": "ci", "password": "env:TOKEN"}], title="tips").reached == 1
        assert logins == [(b"ci", b"s3cret-token")]
        [envelope] = box.mails
        assert envelope.rcpt_tos == ["b@a.test", "c@a.test"]
        text = envelope.content.decode()
        assert "Subject: tips failed (code 9)" in text
        assert "because some tasks failed: [train]" in text
        with pytest.raises(UserError, match=r"channels\[0\] \(email\): the server answered with 535"):
            notify(FAILED, channels=[{**mail, "user": "ci", "password": "env:HOOK"}])
    finally:
        server.stop()
