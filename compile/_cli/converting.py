"""Converts compiled pipelines for a platform that does not take them as they are, and shows what came of it."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from penstock.compile._cli.output import console, print_json, table
from penstock.compile._cli.running import split
from penstock.compile._cli.sources import find_source
from penstock.compile.errors import PenstockError
from penstock.compile.findings import Finding, Severity, errors

if TYPE_CHECKING:
    from penstock.compile.targets.azureml.options import Options

_SUFFIXES = (".yaml", ".yml", ".json")
_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow"}
_CONVERTED, _WARNED, _REFUSED, _BROKEN = "converted", "with warnings", "refused", "no pipeline"
_VERDICTS = {_CONVERTED: "green", _WARNED: "yellow", _REFUSED: "bold red", _BROKEN: "bold red"}


@dataclass(frozen=True)
class Request:
    """What to convert with: texts of parameters, a file of options, whether warnings refuse."""

    given: Sequence[str]
    options: Path | None
    strict: bool


def convert_and_show(what: str, output: Path, request: Request, report: Path | None, as_json: bool) -> int:
    """Convert what the user named into a folder, show it, and return the exit code: 1 where it is refused."""
    from penstock.compile import documents
    from penstock.compile.targets.azureml import convert

    source = find_source(what)
    name = what if source.function is None else source.name
    if source.function is None:
        assert source.file is not None
        text = documents.text_of(source.file)
    else:
        text = source.compiled().text
    done = convert.convert_text(text, name, split(request.given), _options(request.options), strict=request.strict)
    _write_report(report, done.report())
    if not done.refused:
        convert.write(done, output)
    if as_json:
        print_json(done.report())
        return 1 if done.refused else 0
    _show(name, done.findings)
    if done.refused:
        print(f"{name}: refused for {_number(len(errors(done.findings)), 'reason')}; nothing was written")
        return 1
    warnings = f", {_number(len(done.findings), 'warning')}" if done.findings else ""
    print(f"{output / 'job.yml'}: {_number(done.report()['steps'], 'step')}{warnings}")
    return 0


def convert_each_and_show(folder: Path, request: Request, report: Path | None, as_json: bool) -> int:
    """Convert what is below a folder, write nothing but the report, show a table, and return the exit code.

    Returns:
        0 where every file is converted, else 1.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES and path.is_file())
    if not files:
        raise PenstockError(f"{folder}: there is no file *{', *'.join(_SUFFIXES)} in it")
    begin = time.monotonic()
    texts, options = split(request.given), _options(request.options)
    known: set[str] = set()
    found = [_one(path, folder, texts, options, request.strict, known) for path in files]
    for name in sorted(texts.keys() - known):
        print(f"warning: -p {name}: no pipeline in {folder} has it", file=sys.stderr)
    _write_report(report, found)
    if as_json:
        print_json(found)
    else:
        _show_all(found, time.monotonic() - begin)
    return 0 if all(each["state"] in (_CONVERTED, _WARNED) for each in found) else 1


def _one(
    path: Path, folder: Path, texts: Mapping[str, str], options: Options | None, strict: bool, known: set[str]
) -> dict[str, object]:
    """Return what came of a file, and add the names of its pipeline's inputs to those that are known."""
    from penstock.compile import documents
    from penstock.compile.targets.azureml import convert

    name = str(path.relative_to(folder))
    try:
        text = documents.text_of(path)
        done = convert.convert_text(text, str(path), texts, options, strict=strict, lenient=True)
    except PenstockError as error:
        reason = str(error).removeprefix(f"{path}: ")
        return {"file": name, "state": _BROKEN, "steps": 0, "reasons": [reason], "findings": []}
    known.update(done.pipeline.inputs)
    state = _REFUSED if done.refused else _WARNED if done.findings else _CONVERTED
    reasons = [str(each) for each in (errors(done.findings) or done.findings)]
    return {"file": name, "state": state, "reasons": reasons, **done.report()}


def _write_report(report: Path | None, found: object) -> None:
    if report:
        try:
            report.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise PenstockError(f"{report}: cannot be written: {error.strerror}") from error


def _options(path: Path | None) -> Options | None:
    from penstock.compile.targets.azureml import options

    return options.read(path) if path else None


def _show(name: str, findings: Sequence[Finding]) -> None:
    out = console(folded=False)
    for finding in findings:
        label = f"{finding.severity}[{finding.code}]"
        out.print(Text.assemble(f"{name}: ", (label, _STYLES[finding.severity]), f" {finding}"), soft_wrap=True)


def _show_all(found: Sequence[Mapping[str, object]], seconds: float) -> None:
    out = console()
    rows: list[list[str | Text]] = []
    for each in found:
        state, reasons = str(each["state"]), each["reasons"]
        assert isinstance(reasons, list)
        rows.append(
            [str(each["file"]), Text(state, _VERDICTS[state]), Text(str(each["steps"]), justify="right"),
             "; ".join(dict.fromkeys(reasons))]
        )  # fmt: skip
    out.print(table(["file", "Azure ML", "steps", "reasons"], rows))
    counts = Counter(str(each["state"]) for each in found)
    summary = ", ".join(f"{counts[state]} {state}" for state in _VERDICTS if counts[state])
    sys.stdout.write(f"\n{len(found)} files in {seconds:.1f} s: {summary}\n")


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
