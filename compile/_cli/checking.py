"""Checks compiled pipelines and shows what was found."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import click

from penstock.compile import check
from penstock.compile._cli.sources import find_source
from penstock.compile.errors import PenstockError
from penstock.compile.findings import Finding, Severity

_SUFFIXES = (".yaml", ".yml", ".json")
_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow"}


def check_and_show(what: Sequence[str], target: str, strict: bool, as_json: bool) -> int:
    """Check what the user named, show it, and return the exit code: 0 where nothing counts against it."""
    found = {name: _findings(name, target) for each in what for name in _files(each)}
    counts = dict.fromkeys(Severity, 0)
    for findings in found.values():
        for finding in findings:
            counts[finding.severity] += 1
    if as_json:
        from penstock.compile._cli.output import print_json

        print_json(
            [
                {"file": name, "target": target, "findings": [dataclasses.asdict(each) for each in findings]}
                for name, findings in found.items()
            ]
        )
    else:
        _show(found)
        specs = f"{len(found)} specs" if len(found) > 1 else "1 spec"
        click.echo(
            f"{specs}: {_number(counts[Severity.ERROR], 'error')}, {_number(counts[Severity.WARNING], 'warning')}"
        )
    return 1 if counts[Severity.ERROR] or (strict and counts[Severity.WARNING]) else 0


def _files(what: str) -> list[str]:
    path = Path(what)
    if not path.is_dir():
        return [what]
    files = sorted(str(file) for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
    if not files:
        raise PenstockError(f"{what}: no {', '.join(f'*{suffix}' for suffix in _SUFFIXES)} is in it")
    return files


def _findings(what: str, target: str) -> list[Finding]:
    return check.check(find_source(what).text(), target)


def _show(found: dict[str, list[Finding]]) -> None:
    for name, findings in found.items():
        shown = os.path.relpath(name) if os.path.isabs(name) else name
        for finding in findings:
            label = click.style(f"{finding.severity}[{finding.code}]", fg=_COLOURS[finding.severity], bold=True)
            click.echo(f"{shown}: {label} {finding}")


def _number(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"
