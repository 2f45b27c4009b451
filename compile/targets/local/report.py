"""The page of a run: what it did, drawn, timed and listed, in one file without scripts."""

from __future__ import annotations

import datetime
import html
import json
import math
import os
import shutil
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from penstock.compile.targets.local.drawing import drawing
from penstock.compile.targets.local.look import MARKS, STYLE, bytes_text, seconds_text
from penstock.compile.targets.local.outline import flat, message, outline, short, titles
from penstock.compile.targets.local.record import ArtifactRecord, RunRecord, State, TaskRecord, Values

_OPEN_AT_MOST = 12  # tasks, beyond which only those that failed are shown unfolded
_METADATA_SHOWN = 2000  # characters


def write(record: RunRecord, folder: Path) -> None:
    """Write report.html into the run's folder.

    Browsers go by a file's name: HTML artifacts that have none that ends in .html get one in reports/ beside it.

    Args:
        record: The run.
        folder: Its folder, to which the URIs in the record are relative.
    """
    target = folder / "report.html"
    unfinished = target.with_name(target.name + ".unfinished")
    unfinished.write_text("".join(_page(record, folder)), encoding="utf-8", newline="\n")
    unfinished.replace(target)


def _page(record: RunRecord, folder: Path) -> Iterator[str]:
    forest = outline(record.tasks)
    tasks = [(task, depth) for task, depth in flat(forest)]
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f"<title>{_e(record.pipeline)}: {record.state.lower()}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    yield f"<header><h1>{_e(record.pipeline)}</h1> {_state(record.state)}</header>\n"
    yield from _facts(record, folder)
    yield from _errors(record)
    yield f'<h2>Graph</h2>\n<div class="scroll">{drawing(forest, _anchor)}</div>\n'
    yield from _timeline(record, [task for task, _ in tasks])
    yield from _parameters(record.parameters)
    if record.outputs.parameters or record.outputs.artifacts:
        yield "<h2>Outputs</h2>\n"
        yield _values(record.outputs, folder)
    yield "<h2>Tasks</h2>\n"
    for task, depth in tasks:
        unfold = len(tasks) <= _OPEN_AT_MOST or task.state is State.FAILED
        yield from _task(task, depth, folder, unfold)
    yield "</body>\n</html>\n"


def _facts(record: RunRecord, folder: Path) -> Iterator[str]:
    counts = {state: sum(task.state is state for task in record.tasks if task.kind != "dag") for state in State}
    facts = {
        "Run": record.id,
        "Started": _time(record.started),
        "Resumed": ", ".join(_time(time) for time in record.resumed),
        "Took": seconds_text(record.seconds),
        "Tasks": ", ".join(f"{count} {state.lower()}" for state, count in counts.items() if count) or "none",
        "Spec": _spec(record.spec_sha256),
        "Record": '<a href="run.json">run.json</a>',
        "Reports": " · ".join(_reports(record, folder)),
        "Warnings": "<br>".join(_e(warning) for warning in record.warnings),
    }
    yield '<dl class="facts">\n'
    for name, value in facts.items():
        if value:
            is_html = name in ("Spec", "Record", "Reports", "Warnings")
            yield f"<dt>{name}</dt><dd>{value if is_html else _e(value)}</dd>\n"
    yield "</dl>\n"


def _spec(sha256: str) -> str:
    return f'<a href="spec.yaml">spec.yaml</a> <code>sha256:{_e(sha256)}</code>' if sha256 else ""


def _reports(record: RunRecord, folder: Path) -> Iterator[str]:
    """Yield links to the HTML artifacts that the tasks wrote."""
    names = titles(record.tasks)
    for task in record.tasks:
        for name, artifacts in task.outputs.artifacts.items() if task.kind != "dag" else ():
            for artifact in artifacts:
                if artifact.type == "system.HTML" and _is_local(artifact.uri):
                    uri = _named_as_html(artifact.uri, folder)
                    yield f'<a href="{_href(uri)}">{_e(names[task.path])} {_e(name)}</a>'


def _errors(record: RunRecord) -> Iterator[str]:
    failed = [task for task in record.tasks if task.state is State.FAILED and task.kind != "dag"]
    if not failed and not record.error:
        return
    names = titles(record.tasks)
    yield '<div class="errors" role="alert">\n'
    if record.error and not failed:
        yield f"<p>{_e(record.error)}</p>\n"
    for task in failed:
        yield f'<p><a href="#{_anchor(task)}">{_e(names[task.path])}</a>: {_e(message(task))}</p>\n'
    yield "</div>\n"


def _timeline(record: RunRecord, tasks: Iterable[TaskRecord]) -> Iterator[str]:
    start = datetime.datetime.fromisoformat(record.started)
    bars = []
    for task in tasks:
        if task.kind != "dag" and task.started is not None and task.seconds is not None:
            begin = (datetime.datetime.fromisoformat(task.started) - start).total_seconds()
            bars.append((max(begin, 0.0), max(task.seconds, 0.0), task))
    if not bars:
        return
    names = titles(record.tasks)
    end = max(record.seconds, *(begin + took for begin, took, _ in bars), 0.001)
    yield '<h2>Timeline</h2>\n<div class="timeline">\n'
    for begin, took, task in sorted(bars, key=lambda bar: bar[0]):
        left, width = 100 * begin / end, 100 * took / end
        yield (
            f'<a class="name" href="#{_anchor(task)}">{_e(names[task.path])}</a>'
            f'<span class="track"><span class="bar {task.state}" style="left:{left:.2f}%;width:{width:.2f}%">'
            "</span></span>"
            f'<span class="took">{seconds_text(task.seconds)}</span>\n'
        )
    yield '<span></span><span class="axis" aria-hidden="true">'
    for tick in _ticks(end):
        yield f'<span style="left:{100 * tick / end:.2f}%">{tick:g} s</span>'
    yield "</span><span></span>\n</div>\n"


def _ticks(end: float) -> list[float]:
    """Return round numbers from 0 to `end`, six or so."""
    step = 10 ** math.floor(math.log10(end / 3))
    step *= next((factor for factor in (1, 2, 5) if end / (step * factor) <= 6), 10)
    return [round(index * step, 9) for index in range(int(end / step * 1.000001) + 1)]


def _parameters(parameters: Mapping[str, Any]) -> Iterator[str]:
    if parameters:
        yield f"<h2>Parameters</h2>\n<details><summary>{len(parameters)} parameters</summary>\n"
        yield _table(["name", "value"], [[_e(name), _value(value)] for name, value in parameters.items()])
        yield "</details>\n"


def _task(task: TaskRecord, depth: int, folder: Path, unfold: bool) -> Iterator[str]:
    attributes = f'id="{_anchor(task)}" style="margin-left:{1.4 * depth:g}rem"{" open" if unfold else ""}'
    yield f'<details class="task" {attributes}>\n<summary><span class="{task.state}">{MARKS[task.state]}</span> '
    yield f"<strong>{_e(task.name)}</strong> <small>"
    took = f" in {seconds_text(task.seconds)}" if task.seconds is not None and task.state in _ENDED else ""
    yield f"{'reused' if task.reused else task.state.lower()}{took}</small></summary>\n"
    if task.error:
        yield f'<p class="error">{_e(message(task))}</p>\n'
    for error in task.retries:
        yield f'<p class="quiet">tried again after: {_e(error.removeprefix(f"{task.name}: "))}</p>\n'
    facts = []
    if task.path != task.name:
        facts.append(f"<code>{_e(task.path)}</code>")
    if task.condition:
        facts.append(f"if <code>{_e(short(task.condition))}</code>")
    if task.depends_on:
        facts.append("after " + ", ".join(_e(path.rpartition(".")[2]) for path in task.depends_on))
    if task.log:
        facts.append(f'<a href="{_href(task.log)}">log</a>')
    if task.reused:
        facts.append(f"reused from <code>{_e(task.reused)}</code>")
    if task.runner == "container":
        facts.append("in a container")
    if task.exit_code:
        facts.append(f"exit code {task.exit_code}")
    if facts:
        yield f'<p class="quiet">{" · ".join(facts)}</p>\n'
    if task.metrics:
        yield "<h3>Metrics</h3>\n"
        rows = [[_e(name), f"{number:,.6g}"] for name, number in task.metrics.items()]
        yield _table(["metric", "value"], rows, numeric=1)
    for title, values in (("Outputs", task.outputs), ("Inputs", task.inputs)):
        if values.parameters or values.artifacts:
            if title == "Outputs":
                yield f"<h3>{title}</h3>\n{_values(values, folder)}"
            else:
                yield f"<details><summary>{title}</summary>\n{_values(values, folder)}</details>\n"
    yield "</details>\n"


_ENDED = (State.SUCCEEDED, State.FAILED, State.CANCELLED)


def _values(values: Values, folder: Path) -> str:
    rows = [[_e(name), _artifact(artifact, folder)] for name, every in values.artifacts.items() for artifact in every]
    rows += [[_e(name), _value(value)] for name, value in values.parameters.items()]
    return _table(["name", "value"], rows)


def _artifact(artifact: ArtifactRecord, folder: Path) -> str:
    kind = artifact.type.removeprefix("system.")
    if _is_local(artifact.uri):
        href = _href(_named_as_html(artifact.uri, folder) if kind == "HTML" else artifact.uri)
        size = _size(folder / artifact.uri)
        text = f'<a href="{href}">{_e(artifact.uri)}</a> <small>{_e(kind)}{", " + size if size else ""}</small>'
    elif artifact.uri.startswith(("https://", "http://")):
        text = f'<a href="{_e(artifact.uri)}">{_e(artifact.uri)}</a> <small>{_e(kind)}</small>'
    else:
        text = f"<code>{_e(artifact.uri)}</code> <small>{_e(kind)}</small>"
    if not artifact.metadata:
        return text
    metadata = json.dumps(artifact.metadata, indent=1, ensure_ascii=False, sort_keys=True, default=str)
    if len(metadata) > _METADATA_SHOWN:
        return f"{text} <small>metadata in run.json</small>"
    return f"{text}<details><summary>metadata</summary><pre>{_e(metadata)}</pre></details>"


def _is_local(uri: str) -> bool:
    """Return whether a URI is a path in the run's folder."""
    return bool(uri) and not urllib.parse.urlsplit(uri).scheme and not os.path.isabs(uri)


def _named_as_html(uri: str, folder: Path) -> str:
    """Return a URI of the same file that ends in .html."""
    source = folder / uri
    if uri.endswith((".html", ".htm")) or not source.is_file():
        return uri
    name = uri.removeprefix("tasks/").replace("/outputs/", ".").replace("/", ".") + ".html"
    link = folder / "reports" / name
    if not link.exists():
        link.parent.mkdir(exist_ok=True)
        try:
            os.link(source, link)
        except OSError:
            shutil.copyfile(source, link)
    return f"reports/{name}"


def _size(path: Path) -> str:
    if path.is_dir():
        count = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    elif path.is_file():
        count = path.stat().st_size
    else:
        return ""
    return bytes_text(count)


def _table(columns: list[str], rows: list[list[str]], numeric: int | None = None) -> str:
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="number">{cell}</td>' if i == numeric else f"<td>{cell}</td>" for i, cell in enumerate(row)
        )
        + "</tr>\n"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n'


def _value(value: Any) -> str:
    if isinstance(value, str):
        if "\n" in value:
            return f"<pre>{_e(value)}</pre>"
        return _e(value) if value else '<span class="quiet">empty</span>'
    return f"<code>{_e(json.dumps(value, ensure_ascii=False, default=str))}</code>"


def _state(state: State) -> str:
    return f'<span class="chip {state}">{MARKS[state]} {state.lower()}</span>'


def _time(text: str) -> str:
    return datetime.datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S UTC")


def _anchor(task: TaskRecord) -> str:
    return "task-" + urllib.parse.quote(task.path, safe="")


def _href(uri: str) -> str:
    # "./" keeps a colon in a name from being read as a scheme.
    return _e("./" + urllib.parse.quote(uri))


def _e(text: object) -> str:
    return html.escape(str(text))
