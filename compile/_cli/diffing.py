"""Shows what changed between two compiled pipelines."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import click
from rich.text import Text

from penstock.compile import diff, from_kfp
from penstock.compile._cli import output
from penstock.compile._cli.sources import find_source

_FENCE = "`" * 5  # a docstring may hold three


def diff_and_show(old: str, new: str, form: str, breaking_only: bool) -> int:
    """Show the changes; return 0 where there are none, 1 where none is breaking, else 3.

    Args:
        form: "text", "markdown" or "json".
        breaking_only: Whether changes that break nothing count as none for the exit code.
    """
    before, after = find_source(old).text(), find_source(new).text()
    found = diff.compare(from_kfp.parse(before, old), from_kfp.parse(after, new))
    breaks = sum(change.breaking for change in found)
    said = _said(found, breaks, before == after)
    if form == "json":
        listed = [dataclasses.asdict(change) for change in found]
        output.print_json(
            {"old": old, "new": new, "same_bytes": before == after, "breaking": breaks, "changes": listed}
        )
    elif form == "markdown":
        click.echo("\n".join(_markdown(old, new, found, said)))
    else:
        _show(old, new, found, said)
    if breaks:
        return 3
    return 1 if found and not breaking_only else 0


def _said(found: Sequence[diff.Change], breaks: int, same: bool) -> str:
    if not found:
        return "the same" if same else "the same in meaning; only the bytes differ"
    changes = "1 change" if len(found) == 1 else f"{len(found)} changes"
    return f"{changes}, {breaks or 'none'} breaking"


def _show(old: str, new: str, found: Sequence[diff.Change], said: str) -> None:
    out = output.console(folded=False)
    out.print(Text.assemble(f"{old} → {new}: ", (said, "bold")), soft_wrap=True)
    for group in diff.GROUPS:
        changes = [change for change in found if change.group == group]
        if changes:
            out.print()
            out.print(Text(group.capitalize(), style="bold cyan"))
        for change in changes:
            label = Text("breaking  ", style="bold red") if change.breaking else Text("")
            out.print(
                Text.assemble("  ", label, (change.path, "bold"), ": " if change.path else "", change.sentence),
                soft_wrap=True,
            )
            for line in change.detail.splitlines():
                style = {"+": "green", "-": "red"}.get(line[:1], "dim")
                out.print(Text(f"      {line}", style=style), soft_wrap=True)


def _markdown(old: str, new: str, found: Sequence[diff.Change], said: str) -> Iterator[str]:
    yield f"**{_code(old)} → {_code(new)}**: {said}"
    for group in diff.GROUPS:
        changes = [change for change in found if change.group == group]
        if not changes:
            continue
        yield f"\n### {group.capitalize()}\n"
        for change in changes:
            place = f"{_code(change.path)}: " if change.path else ""
            yield f"- {'**breaking** ' if change.breaking else ''}{place}{_escaped(change.sentence)}"
            if change.detail:
                yield f"\n  {_FENCE}diff"
                yield from (f"  {line}" for line in change.detail.splitlines())
                yield f"  {_FENCE}\n"


def _code(text: str) -> str:
    return f"`{text}`" if "`" not in text else f"`` {text} ``"


def _escaped(text: str) -> str:
    return "".join(f"\\{character}" if character in "\\`*_[]<>#|@" else character for character in text)
