"""The work of `notify`: compose a message of how a run ended, and tell it to every channel."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.components._shared.errors import UserError
from penstock.components.notification.channels import COMPONENT, Unreachable, settings_of
from penstock.components.notification.message import Final, compose, plain

__all__ = ["Final", "Notified", "notify"]


@dataclass(frozen=True)
class Notified:
    """What was told.

    Attributes:
        told: Whether there was something to tell.
        reached: Channels that took the message.
    """

    told: bool
    reached: int


_WANTED = {"failure": (False,), "success": (True,), "always": (False, True)}


def notify(
    final: Final,
    *,
    channels: Sequence[Any] = (),
    when: str = "failure",
    title: str = "",
    run_id: str = "",
    run_url: str = "",
    facts: Mapping[str, Any] | None = None,
    on_error: str = "fail",
) -> Notified:
    """Tell every channel how a run ended; one that cannot be reached keeps no other from being told.

    Args:
        final: How it ended.
        channels: See channels.py. They are looked at, and their secrets read, before any is told.
        when: "failure", "success" or "always".
        title: What ran.
        run_id: Id of the run.
        run_url: Address of its page; {run_id} stands for the id.
        facts: More to tell.
        on_error: "fail" or "report".

    Raises:
        UserError: An argument is wrong, or a channel was not reached and on_error is "fail".
    """
    for argument, value, known in (("when", when, tuple(_WANTED)), ("on_error", on_error, ("fail", "report"))):
        if value not in known:
            raise UserError(COMPONENT, argument, f"{value!r} is no choice", f"Give one of {', '.join(known)}")
    chosen = [settings_of(channel, place) for place, channel in enumerate(channels)]
    message = compose(final, title, run_id, run_url, facts or {})
    print(plain(message), flush=True)
    if final.passed not in _WANTED[when]:
        return Notified(False, 0)
    failures = []
    for place, (kind, settings) in enumerate(chosen):
        try:
            kind.tell(message, settings)
        except Unreachable as error:
            failures.append(f"channels[{place}] ({settings['kind']}): {error}")
    if failures:
        if on_error == "fail":
            raise UserError(
                COMPONENT, "channels", f"not told: {'; '.join(failures)}", 'Check them, or give on_error="report"'
            )
        print(f"warning: notify: not told: {'; '.join(failures)}", file=sys.stderr, flush=True)
    return Notified(True, len(chosen) - len(failures))
