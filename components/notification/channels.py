"""Where messages go: a table of kinds of channels, each with what it takes and how it is told.

slack     an incoming webhook: https://api.slack.com/messaging/webhooks
teams     a webhook of Power Automate's workflows, which takes an Adaptive Card 1.4
webhook   any address: a POST of JSON with state, headline, reason, facts, url
email     SMTP, by STARTTLS or TLS from the start
"""

from __future__ import annotations

import random
import smtplib
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import format_datetime, localtime
from typing import Any

import requests

from penstock.components._shared.errors import UserError
from penstock.components._shared.secrets import read_secret
from penstock.components.notification.message import Message, plain

COMPONENT = "notify"
SECONDS = 20.0  # of a call
TRIES = 4
LONGEST_PAUSE = 20.0
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


class Unreachable(Exception):
    """A channel did not take the message; the text says why, without its address."""


@dataclass(frozen=True)
class Kind:
    """A kind of channel.

    Attributes:
        tell: Sends a message to a channel.
        needed: Settings that it needs.
        allowed: Further settings, with their defaults.
        secret: Settings that are references to secrets.
        choices: The values that a setting may have.
    """

    tell: Callable[[Message, Mapping[str, Any]], None]
    needed: tuple[str, ...]
    allowed: Mapping[str, Any]
    secret: tuple[str, ...]
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def settings_of(channel: Any, place: int) -> tuple[Kind, dict[str, Any]]:
    """Return the kind of a channel and its settings, with secrets read.

    Args:
        channel: As it is given.
        place: Where it stands in the list, for errors.

    Raises:
        UserError: The kind or a setting is unknown, missing or of the wrong type, or a secret cannot be read.
    """
    where = f"channels[{place}]"
    if not isinstance(channel, Mapping) or channel.get("kind") not in KINDS:
        given = channel.get("kind") if isinstance(channel, Mapping) else channel
        raise UserError(COMPONENT, where, f"{given!r} is no kind of channel", f"Give a kind of {', '.join(KINDS)}")
    kind = KINDS[channel["kind"]]
    known = ("kind", *kind.needed, *kind.allowed)
    if unknown := [name for name in channel if name not in known]:
        problem = f"{channel['kind']} has no setting {', '.join(map(repr, unknown))}"
        raise UserError(COMPONENT, where, problem, f"It has {', '.join(known)}")
    if missing := [name for name in kind.needed if not channel.get(name)]:
        raise UserError(COMPONENT, where, f"{channel['kind']} lacks {', '.join(missing)}", "Give it")
    settings = {**kind.allowed, **channel}
    for name, choices in kind.choices.items():
        if settings[name] not in choices:
            raise UserError(
                COMPONENT, f"{where}.{name}", f"{settings[name]!r} is no choice", f"Give one of {', '.join(choices)}"
            )
    for name in kind.secret:
        if settings[name]:
            settings[name] = read_secret(str(settings[name]), COMPONENT, f"{where}.{name}")
    return kind, settings


def _slack(message: Message, settings: Mapping[str, Any]) -> None:
    link = f"\n<{message.url}|Look at the run>" if message.url else ""
    mark = ":white_check_mark:" if message.passed else ":x:"
    lines = [f"{mark} *{_escaped(message.headline)}*"]
    if message.reason:
        lines.append(f"```{_escaped(message.reason)}```")
    lines += [f"*{_escaped(name)}*: {_escaped(value)}" for name, value in message.facts.items()]
    _post(settings["url"], {"text": "\n".join(lines) + link})


def _escaped(text: str) -> str:
    """Return text with what Slack reads as markup written as entities."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _teams(message: Message, settings: Mapping[str, Any]) -> None:
    color = "good" if message.passed else "attention"
    body: list[dict[str, Any]] = [
        {
            "type": "TextBlock",
            "text": message.headline,
            "weight": "bolder",
            "size": "medium",
            "color": color,
            "wrap": True,
        }
    ]
    if message.reason:
        body.append({"type": "TextBlock", "text": message.reason, "wrap": True, "fontType": "monospace"})
    if message.facts:
        body.append({"type": "FactSet", "facts": [{"title": k, "value": v} for k, v in message.facts.items()]})
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
    }
    if message.url:
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Look at the run", "url": message.url}]
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
    _post(settings["url"], {"type": "message", "attachments": [attachment]})


def _webhook(message: Message, settings: Mapping[str, Any]) -> None:
    body = {
        "passed": message.passed,
        "headline": message.headline,
        "reason": message.reason,
        "facts": dict(message.facts),
        "url": message.url,
    }
    headers = {"Authorization": f"Bearer {settings['token']}"} if settings["token"] else {}
    _post(settings["url"], body, headers)


def _post(url: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
    """Post JSON; what failed for a passing reason is tried again, later each time and when the server says.

    An answer that did not come in time is not asked for again: the message may have arrived.
    """
    for attempt in range(1, TRIES + 1):
        try:
            answer = requests.post(url, json=body, headers=headers, timeout=SECONDS, allow_redirects=False)
        except requests.ReadTimeout:
            raise Unreachable(f"no answer within {SECONDS:g} s") from None
        except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema):
            raise Unreachable("its address is no http or https address") from None
        except requests.RequestException as error:
            if attempt == TRIES:
                raise Unreachable(f"{type(error).__name__}, {TRIES} times") from None
            _pause(attempt, None)
            continue
        if answer.status_code < 300:
            return
        if answer.status_code not in TRANSIENT or attempt == TRIES:
            raise Unreachable(f"it answered with status {answer.status_code}")
        _pause(attempt, answer.headers.get("Retry-After"))


def _pause(attempt: int, wanted: str | None) -> None:
    seconds = float(wanted) if wanted and wanted.isdecimal() else 2.0 ** (attempt - 1) * random.uniform(0.5, 1)  # noqa: S311
    time.sleep(min(seconds, LONGEST_PAUSE))


def _email(message: Message, settings: Mapping[str, Any]) -> None:
    mail = EmailMessage()
    mail["Subject"] = message.headline
    mail["From"] = settings["from"]
    mail["To"] = ", ".join([settings["to"]] if isinstance(settings["to"], str) else settings["to"])
    mail["Date"] = format_datetime(localtime())
    mail.set_content(plain(message))
    host, _, port = str(settings["server"]).partition(":")
    security = settings["security"]
    try:
        if security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                host, int(port or 465), timeout=SECONDS, context=ssl.create_default_context()
            )
        else:
            server = smtplib.SMTP(host, int(port or (587 if security == "starttls" else 25)), timeout=SECONDS)
        with server:
            if security == "starttls":
                server.starttls(context=ssl.create_default_context())
            if settings["user"]:
                server.login(settings["user"], settings["password"])
            server.send_message(mail)
    except smtplib.SMTPResponseException as error:
        raise Unreachable(f"the server answered with {error.smtp_code}") from None
    except (OSError, ValueError, smtplib.SMTPException) as error:
        raise Unreachable(f"{type(error).__name__}") from None


KINDS: dict[str, Kind] = {
    "slack": Kind(_slack, ("url",), {}, ("url",)),
    "teams": Kind(_teams, ("url",), {}, ("url",)),
    "webhook": Kind(_webhook, ("url",), {"token": ""}, ("token",)),
    "email": Kind(
        _email,
        ("server", "from", "to"),
        {"security": "starttls", "user": "", "password": ""},
        ("password",),
        {"security": ("starttls", "tls", "none")},
    ),
}
