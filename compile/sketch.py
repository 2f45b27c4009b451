"""A compiled pipeline as a picture: SVG that stands alone, or Mermaid's text for pages that draw it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from penstock.compile import drawing, graph
from penstock.compile.drawing import Node
from penstock.compile.errors import PenstockError
from penstock.compile.origins import Sources, joined

# What Mermaid draws without being configured otherwise.
_MOST_CHARACTERS = 50_000
_MOST_EDGES = 500

_STYLE = """<style>
svg { color-scheme: light dark; --ink: #1c2430; --quiet: #5c6775; --paper: #fff; --soft: #f5f7f9; --group: #f8fafb;
  --off: #8a93a0; }
.task, .pipeline { --state: #1f5fa8; } .loop { --state: #2c7a3f; } .condition { --state: #8a6100; }
.exit { --state: #a13a78; } .import { --state: #5c6775; }
@media (prefers-color-scheme: dark) { svg { --ink: #e6e9ee; --quiet: #9aa5b3; --paper: #14181d; --soft: #1f262e;
  --group: #181d23; --off: #7c8794; } .task, .pipeline { --state: #8ab8f0; } .loop { --state: #6cc381; }
  .condition { --state: #e0b04c; } .exit { --state: #e38bc0; } .import { --state: #9aa5b3; } }
.ground { fill: var(--paper); }"""

_MARKS = {"loop": "↻", "condition": "◇", "exit": "⚑", "pipeline": "▣", "import": "⇥"}


def svg(pipeline: graph.Pipeline) -> str:
    """Return a drawing of a pipeline as a file of its own, light or dark as the reader's screen is."""
    style = f"{_STYLE}{drawing.STYLE}</style>\n"
    ground = '<rect class="ground" x="-20" y="-20" width="100%" height="100%"/>\n'
    title = f"<title>{_escaped(pipeline.name)}</title>\n"
    return drawing.drawing(nodes(pipeline), title + style + ground, margin=20)


def mermaid(pipeline: graph.Pipeline) -> str:
    """Return a drawing of a pipeline as a flowchart of Mermaid.

    Raises:
        PenstockError: It is larger than what Mermaid draws.
    """
    forest = nodes(pipeline)
    names = {path: f"t{number}" for number, path in enumerate(_paths(forest))}
    edges = list(_edges(forest, names))
    lines = ["flowchart TD", *_boxes(forest, names, "  "), *(f"  {edge}" for edge in edges)]
    text = "\n".join(lines) + "\n"
    if len(text) > _MOST_CHARACTERS or len(edges) > _MOST_EDGES:
        raise PenstockError(
            f"{pipeline.name} is too large for Mermaid: {len(text):,} characters and {len(edges)} edges, of at most "
            f"{_MOST_CHARACTERS:,} and {_MOST_EDGES}; draw it with --draw svg"
        )
    return text


def nodes(pipeline: graph.Pipeline) -> tuple[Node, ...]:
    """Return the tasks of a pipeline to be drawn, each scope in an order in which its tasks could run."""
    sources = Sources(pipeline)
    return _scope(pipeline.dag, "", sources)


def _scope(dag: graph.Dag, path: str, sources: Sources) -> tuple[Node, ...]:
    conditions = _alternatives({name: sources.condition(joined(path, name), _last) for name in dag.tasks})
    # The branches of an if in their order.
    names = sorted(dag.tasks, key=_number) if _last(path).startswith("condition-branches-") else [*dag.tasks]
    return tuple(_node(dag.tasks[name], joined(path, name), conditions[name], sources) for name in names)


def _number(name: str) -> tuple[int, str]:
    digits = name.rpartition("-")[2]
    return (int(digits) if digits.isdecimal() else 0), name


def _node(task: graph.Task, path: str, condition: str, sources: Sources) -> Node:
    around = sources.scope[path]
    given = [each.source for each in task.inputs.values()]
    takes = dict.fromkeys(joined(around, each.task) for each in given if isinstance(each, graph.TaskOutput))
    waits = [joined(around, name) for name in task.depends_on if joined(around, name) not in takes]
    body = task.component.body
    details = [condition]
    kind = "task"
    if task.loop:
        limit = f"{task.loop.limit} at a time, " if task.loop.limit else ""
        details.append(f"{limit}for each of {sources.items(path, _last)}")
        kind = "loop"
    elif task.trigger.condition or task.name.startswith("condition-"):
        kind = "condition"
    elif isinstance(body, graph.Dag):
        kind = "exit" if task.name.startswith("exit-handler-") else "pipeline"
    elif isinstance(body, graph.Importer):
        kind = "import"
        details.append(f"imports {body.uri.value}" if isinstance(body.uri, graph.Constant) else "imports")
    if task.trigger.whatever_upstream:
        details.append("also after failures")
    return Node(
        path=path,
        name=task.title or task.name,
        mark=_MARKS.get(kind, ""),
        detail=", ".join(each for each in details if each),
        style=kind,
        given=tuple(takes),
        waits=tuple(waits),
        children=_scope(body, path, sources) if isinstance(body, graph.Dag) else (),
    )


def _alternatives(conditions: dict[str, str]) -> dict[str, str]:
    """Return conditions in words: where one begins with the opposite of others, as that of an elif and of an else."""
    known = {condition for condition in conditions.values() if condition}
    rests = {name: _without_opposites(condition, known) for name, condition in conditions.items()}
    while not known.issuperset(filter(None, rests.values())):
        known |= set(filter(None, rests.values()))
        rests = {name: _without_opposites(condition, known) for name, condition in conditions.items()}
    words = {}
    for name, condition in conditions.items():
        before = "if" if rests[name] == condition else "else if"
        words[name] = "" if not condition else f"{before} {rests[name]}" if rests[name] else "else"
    return words


def _without_opposites(condition: str, known: set[str]) -> str:
    rest = condition
    while found := next(
        (f"!({each})" for each in known if rest == f"!({each})" or rest.startswith(f"!({each}) && ")), ""
    ):
        rest = rest.removeprefix(found).removeprefix(" && ")
    return rest


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _paths(forest: Sequence[Node]) -> Iterator[str]:
    for node in forest:
        yield node.path
        yield from _paths(node.children)


def _boxes(forest: Sequence[Node], names: dict[str, str], indent: str) -> Iterator[str]:
    for node in forest:
        label = "<br/>".join(_quoted(text) for text in (f"{node.mark} {node.name}".strip(), node.detail) if text)
        if node.children:
            yield f'{indent}subgraph {names[node.path]}["{label}"]'
            yield from _boxes(node.children, names, indent + "  ")
            yield f"{indent}end"
        else:
            yield f'{indent}{names[node.path]}["{label}"]'


def _edges(forest: Sequence[Node], names: dict[str, str]) -> Iterator[str]:
    for node in forest:
        for source in node.given:
            yield f"{names[source]} --> {names[node.path]}"
        for source in node.waits:
            yield f"{names[source]} -.-> {names[node.path]}"
        yield from _edges(node.children, names)


def _quoted(text: str) -> str:
    """Return text for a label: all that Markdown, HTML or Mermaid itself could read in it is written by number."""
    cut = text if len(text) <= 120 else text[:119] + "…"
    return re.sub(r"[^\w .,:…↻◇⚑▣⇥-]", lambda match: f"#{ord(match[0])};", re.sub(r"\s+", " ", cut))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
