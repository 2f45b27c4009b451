"""Keeps the tables in the READMEs, and in the pages of the local engine, of checks and of Azure ML, as the code is.

A component's README is the one in the folder of its declaration. Tables go between the lines `<!-- ports -->` and
`<!-- /ports -->` there, and between `<!-- components -->` and `<!-- /components -->` in the README at the root.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
from collections.abc import Sequence
from pathlib import Path

from penstock.compile import catalog, check, ports
from penstock.compile._checks.limits import Limit
from penstock.compile.catalog import Entry
from penstock.compile.errors import PenstockError
from penstock.compile.targets.azureml import features as azureml
from penstock.compile.targets.azureml import kubernetes_fields as azureml_fields
from penstock.compile.targets.azureml.options import Machine, Options, Output
from penstock.compile.targets.kubeflow import preflight as kubeflow
from penstock.compile.targets.local import features, kubernetes_fields
from penstock.compile.targets.vertex import preflight as vertex
from penstock.compile.to_kfp import compiled


def refresh(root: Path, *, write: bool) -> list[Path]:
    """Return the READMEs below `root` whose tables are not up to date, and bring them up to date if told to.

    Raises:
        PenstockError: Where a README or the lines in it are missing.
    """
    folders = _by_folder(root, "component")
    if not folders:
        raise PenstockError(f"{root}: none of the installed components is declared below this folder")
    pages = [(folder / "README.md", "ports", _ports_of(entries)) for folder, entries in sorted(folders.items())]
    everything = [(folder, entry) for folder, entries in folders.items() for entry in entries]
    pages.append((root.resolve() / "README.md", "components", _components(root.resolve(), everything)))
    for folder, entries in _by_folder(root, "pipeline").items():
        rows = [[f"`{entry.name}`", entry.sentence] for entry in entries]
        pages.append((folder / "README.md", "pipelines", _table(["pipeline", "what it does"], rows)))
    for name, tables in (("engine.md", _engine()), ("checks.md", _checks()), ("azureml.md", _azureml())):
        page = root.resolve() / "docs" / name
        pages += [(page, mark, table) for mark, table in tables.items() if page.is_file()]
    stale = []
    for path, mark, table in pages:
        if not path.is_file():
            raise PenstockError(f"{path}: there is no such file; it should hold the lines <!-- {mark} --> and its end")
        before = path.read_text(encoding="utf-8")
        after = _between(before, mark, table, path)
        if after != before:
            stale.append(path)
            if write:
                unfinished = path.with_name(path.name + ".unfinished")
                unfinished.write_text(after, encoding="utf-8", newline="\n")
                unfinished.replace(path)
    return stale


def _by_folder(root: Path, kind: str) -> dict[Path, list[Entry]]:
    found: dict[Path, list[Entry]] = {}
    for entry in catalog.entries(kind):
        if entry.kind == kind and entry.source and entry.source.is_relative_to(root.resolve()):
            found.setdefault(entry.source.parent, []).append(entry)
    return found


def _between(text: str, mark: str, table: str, path: Path) -> str:
    pattern = re.compile(rf"(?m)(?<=^<!-- {mark} -->\n)[\s\S]*?(?=^<!-- /{mark} -->$)")
    if len(pattern.findall(text)) != 1:
        raise PenstockError(f"{path}: put the lines <!-- {mark} --> and <!-- /{mark} --> where the table goes, once")
    return pattern.sub(lambda _: f"\n{table}\n", text)


def _engine() -> dict[str, str]:
    """Return the tables of what the local engine runs, refuses, and takes of the Kubernetes platform document."""
    fields = {f"`{field.name}`": field for field in kubernetes_fields.FIELDS}
    fields |= {f"the pipeline's `{field.name}`": field for field in kubernetes_fields.PIPELINE_FIELDS}
    return {
        "runs": _table(["", "how"], [[feature.name, feature.note] for feature in features.RUN]),
        "refuses": _table(["", "why"], [[feature.name, feature.note] for feature in features.REFUSED]),
        "kubernetes": _table(["", "", "here"], [[name, field.effect, field.note] for name, field in fields.items()]),
    }


def _azureml() -> dict[str, str]:
    """Return the tables of what becomes of pipelines on Azure ML, and of what a conversion can be told."""
    rows = [
        [feature.name, feature.effect, feature.note, f"`{feature.code}`" if feature.code else "", feature.remedy]
        for effect in azureml.Effect
        for feature in azureml.FEATURES
        if feature.effect is effect
    ]
    fields = {f"`{field.name}`": field for field in azureml_fields.FIELDS}
    fields |= {f"the pipeline's `{field.name}`": field for field in azureml_fields.PIPELINE_FIELDS}

    def documented(kind: type) -> str:
        meanings = ports.documented((inspect.getdoc(kind) or "").replace("Attributes:", "Args:"))
        return _table(["", "meaning"], [[f"`{each.name}`", meanings[each.name]] for each in dataclasses.fields(kind)])

    return {
        "features": _table(["", "", "how, or why", "finding", "what to do"], rows),
        "kubernetes": _table(
            ["", "", "on Azure ML"], [[name, each.effect, each.note] for name, each in fields.items()]
        ),
        "options": documented(Options),
        "machines": documented(Machine),
        "outputs": documented(Output),
    }


def _checks() -> dict[str, str]:
    """Return the tables of what specs are checked for, and of what each platform does not take."""

    def limits(rows: Sequence[Limit]) -> str:
        return _table(
            ["", "", "what is not taken", "source"],
            [[f"`{row.code}`", row.severity, row.note, row.source] for row in rows],
        )

    return {
        "codes": _table(
            ["", "", "meaning"], [[f"`{code.name}`", code.severity, code.meaning] for code in check.codes()]
        ),
        "kubeflow": limits(kubeflow.LIMITS),
        "vertex": limits(vertex.LIMITS),
    }


def _ports_of(entries: Sequence[Entry]) -> str:
    parts = []
    for entry in entries:
        spec = ports.parse_spec(compiled(entry.function).text, entry.name)
        description = ports.describe(spec, entry.function)
        if len(entries) > 1:
            parts.append(f"### {entry.name}\n\n{entry.sentence}\n")
        for direction, title in (("input", "Input"), ("output", "Output")):
            chosen = [port for port in description.ports if port.direction == direction]
            if chosen:
                rows = [_port_row(port) for port in chosen]
                columns = [title, "type", *(["default"] if direction == "input" else []), "description"]
                parts.append(_table(columns, rows))
    return "\n".join(parts)


def _port_row(port: ports.Port) -> list[str]:
    row = [f"`{port.name}`", port.type]
    if port.direction == "input":
        row.append("required" if port.required else "" if port.default is None else f"`{ports.shown(port.default)}`")
    return [*row, port.description]


def _components(root: Path, everything: Sequence[tuple[Path, Entry]]) -> str:
    rows = [
        [f"[{entry.name}]({Path(os.path.relpath(folder / 'README.md', root)).as_posix()})", entry.sentence]
        for folder, entry in everything
    ]
    return _table(["component", "what it does"], rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
