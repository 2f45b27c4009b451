"""What a component does differently from what it did: image, code, environment, resources, settings, ports."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from penstock.compile import commands, graph, rewrites
from penstock.compile._checks.secrets import is_secret
from penstock.compile.origins import shown

_MOST_LINES = 40  # of a difference of source


def differences(old: graph.Component, new: graph.Component) -> Iterator[tuple[str, str]]:
    """Yield a sentence for each difference, and lines to go with it."""
    yield from ((sentence, "") for sentence in _ports(old, new))
    before, after = old.body, new.body
    if isinstance(before, graph.Container) and isinstance(after, graph.Container):
        yield from _containers(before, after)
    elif isinstance(before, graph.Importer) and isinstance(after, graph.Importer):
        yield from ((sentence, "") for sentence in _importers(before, after))
    elif type(before) is not type(after):
        yield f"is {_kind(after)}, was {_kind(before)}", ""
    yield from ((sentence, "") for sentence in settings(old.platforms, new.platforms))
    if old.passthroughs != new.passthroughs:
        listed = [", ".join(each) or "none" for each in (new.passthroughs, old.passthroughs)]
        yield f"passes on of its task's configuration: {listed[0]}, was {listed[1]}", ""


def settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each setting of a platform that differs."""
    before, after = dict(_flat("", old)), dict(_flat("", new))
    for name in sorted({*before, *after}):
        if name not in before:
            yield f"{name} = {value(name, after[name])}: added"
        elif name not in after:
            yield f"{name}: removed, was {value(name, before[name])}"
        elif before[name] != after[name]:
            yield f"{name} is {value(name, after[name])}, was {value(name, before[name])}"


def value(name: str, found: Any) -> str:
    """Return a value in words, but for one that looks like a secret."""
    return "(not shown: it looks like a secret)" if is_secret(name.rpartition(".")[2], found) else shown(found)


def port_type(port: graph.Parameter | graph.ArtifactPort) -> str:
    if isinstance(port, graph.Parameter):
        return port.type.value
    return f"list of {port.type}" if port.is_list else str(port.type)


def port_of(ports: graph.Ports, name: str) -> graph.Parameter | graph.ArtifactPort:
    return ports.parameters[name] if name in ports.parameters else ports.artifacts[name]


def _ports(old: graph.Component, new: graph.Component) -> Iterator[str]:
    for direction, before, after in (("input", old.inputs, new.inputs), ("output", old.outputs, new.outputs)):
        for name in sorted({*before, *after}):
            if name not in before:
                yield f"{direction} {name}: added ({port_type(port_of(after, name))})"
            elif name not in after:
                yield f"{direction} {name}: removed"
            else:
                was, now = port_of(before, name), port_of(after, name)
                if port_type(was) != port_type(now):
                    yield f"{direction} {name}: is {port_type(now)}, was {port_type(was)}"
                if isinstance(was, graph.Parameter) and isinstance(now, graph.Parameter):
                    if was.default != now.default:
                        yield f"{direction} {name}: default {value(name, now.default)}, was {value(name, was.default)}"
                    if was.literals != now.literals:
                        yield f"{direction} {name}: may be {shown(now.literals)}, could be {shown(was.literals)}"
                if direction == "input" and was.optional != now.optional:
                    yield f"input {name}: is {'optional' if now.optional else 'required'} now"
                if was.description != now.description:
                    yield f"{direction} {name}: is described differently"


def _containers(old: graph.Container, new: graph.Container) -> Iterator[tuple[str, str]]:
    if old.image != new.image:
        yield _image(old.image, new.image), ""
    before, after = _source(old), _source(new)
    if before != after:
        lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), "old", "new", lineterm="", n=2))
        shown_lines = [_line(line) for line in lines[:_MOST_LINES]]
        if len(lines) > _MOST_LINES:
            shown_lines.append(f"… {len(lines) - _MOST_LINES} more lines")
        yield "its source changed", "\n".join(shown_lines)
    if commands.without_source(old) != commands.without_source(new):
        yield from _commands(old, new)
    for name in sorted({*old.env, *new.env}):
        if name not in old.env:
            yield f"environment variable {name} = {value(name, new.env[name])}: added", ""
        elif name not in new.env:
            yield f"environment variable {name}: removed", ""
        elif old.env[name] != new.env[name]:
            yield f"environment variable {name} is {value(name, new.env[name])}, was {value(name, old.env[name])}", ""
    for name, now in vars(new.resources).items():
        was = getattr(old.resources, name)
        if was != now:
            yield f"{name.replace('_', ' ')} is {now or 'none'}, was {was or 'none'}", ""
    if old.pre_cache_check != new.pre_cache_check:
        yield "its check before the cache is asked changed", ""


def _commands(old: graph.Container, new: graph.Container) -> Iterator[tuple[str, str]]:
    was, now = (set(commands.packages(commands.start_installs(each.command))) for each in (old, new))
    for sentence, names in (("installs", now - was), ("no longer installs", was - now)):
        if names:
            yield f"{sentence} {', '.join(sorted(names))} when it starts", ""
    if was == now:
        lines = list(difflib.unified_diff(_command(old), _command(new), "old", "new", lineterm="", n=0))
        yield "its command or arguments changed", "\n".join(_line(line) for line in lines[:_MOST_LINES])


def _image(old: str, new: str) -> str:
    (before, was), (after, now) = rewrites.split(old), rewrites.split(new)
    if before != after:
        return f"image is {new}, was {old}"
    if was.startswith("@") and now.startswith("@"):
        return f"image {after} has another digest: {now[1:20]}…, was {was[1:20]}…"
    return f"image {after} is {now.lstrip(':@') or 'without tag'}, was {was.lstrip(':@') or 'without tag'}"


def _source(body: graph.Container) -> str:
    """Return the source of a lightweight component; empty for others."""
    if not commands.is_lightweight(body):
        return ""
    rest = commands.without_source(body)
    elements = [*body.command, *body.args]
    return next((each for each in elements if each not in rest), "")


def _command(body: graph.Container) -> list[str]:
    return [line for element in commands.without_source(body) for line in element.splitlines()]


def _line(line: str) -> str:
    return "(a line that looks like a secret)" if is_secret("", line) else line[:160]


def _importers(old: graph.Importer, new: graph.Importer) -> Iterator[str]:
    for what, was, now in (
        ("URI", _uri(old), _uri(new)),
        ("type", str(old.type), str(new.type)),
        ("metadata", shown(old.metadata), shown(new.metadata)),
    ):
        if was != now:
            yield f"imports with {what} {now}, was {was}"
    if old.reimport != new.reimport:
        yield f"{'imports anew each time' if new.reimport else 'reuses what was imported before'}"
    if old.download_to_workspace != new.download_to_workspace:
        yield f"{'downloads to the workspace' if new.download_to_workspace else 'does not download to the workspace'}"


def _uri(body: graph.Importer) -> str:
    return shown(body.uri.value) if isinstance(body.uri, graph.Constant) else f"of input {body.uri.name}"


def _kind(body: Any) -> str:
    names = {graph.Container: "a container", graph.Importer: "an importer", graph.Dag: "a pipeline"}
    return names.get(type(body), "another executor")


def _flat(prefix: str, found: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(found, Mapping) and found:
        for key in sorted(found):
            yield from _flat(f"{prefix}.{key}" if prefix else key, found[key])
    elif isinstance(found, list) and found and isinstance(found[0], Mapping):
        for index, item in enumerate(found):
            yield from _flat(f"{prefix}[{index}]", item)
    elif prefix:
        yield prefix, found
