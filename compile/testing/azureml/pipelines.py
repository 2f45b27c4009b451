"""Whether the nodes of a pipeline fit together, which azure-ai-ml leaves to the service."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.testing.azureml.assets import Assets
from penstock.testing.azureml.workspace import Workspace
from penstock.testing.server import ApiError

MOST_INPUTS, MOST_OUTPUTS = 200, 20  # of a node
_NODE = re.compile(r"[a-z_][a-z0-9_]{0,254}")
_PORT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_BINDING = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_PARENT = re.compile(r"parent\.(inputs|outputs)\.([\w.]+)|parent\.jobs\.(\w+)(?:\.(inputs|outputs)\.([\w.]+))?")
_OWN = re.compile(r"(inputs|outputs|search_space)\.([\w.]+)")
_TYPES = {"integer": int, "number": float}
_WORDS_OF_BOOLEANS = ("true", "false")
_CONTROL = ("if_else", "do_while", "parallel_for")


@dataclass(frozen=True)
class _Node:
    """A node: what it is given, and the ports of its component; None for what lies in a registry."""

    name: str
    given: Mapping[str, Any]
    inputs: Mapping[str, Any] | None = None
    outputs: Mapping[str, Any] | None = None
    needs: set[str] = field(default_factory=set)


class Pipelines:
    """What refuses pipelines and components that are none."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.assets: Assets

    def check_component(self, what: str, properties: dict[str, Any]) -> None:
        """Refuse a component that cannot run.

        Args:
            what: How errors call it.
            properties: Of the component version.

        Raises:
            ApiError: it cannot.
        """
        spec = properties.get("componentSpec")
        if not isinstance(spec, Mapping):
            raise ApiError(400, f"{what}: the componentSpec is required.")
        _check_ports(what, spec)
        kind = spec.get("type")
        if kind == "pipeline":
            self.check(what, spec.get("jobs") or {}, spec.get("inputs") or {}, spec.get("outputs") or {})
        elif kind == "command":
            self._check_command(what, spec)
        elif not isinstance(kind, str):
            raise ApiError(400, f"{what}: the componentSpec has no type, such as command or pipeline.")

    def _check_command(self, what: str, spec: Mapping[str, Any]) -> None:
        if not (spec.get("command") or "").strip():
            raise ApiError(400, f"{what}: the command is required.")
        if not spec.get("environment"):
            raise ApiError(400, f"{what}: the environment is required.")
        self.assets.referred("environments", str(spec["environment"]), f"{what}: environment")
        if code := spec.get("code"):
            self.assets.referred("codes", str(code), f"{what}: code")
        check_placeholders(what, str(spec["command"]), spec.get("inputs") or {}, spec.get("outputs") or {})

    def nodes(self, properties: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any], Mapping[str, Any]]:
        """Return the nodes, inputs and outputs of a pipeline job, those of its component where it has one."""
        spec: Mapping[str, Any] = {}
        if component := properties.get("componentId"):
            kept = self.assets.referred("components", component, "componentId")
            spec = kept.given["componentSpec"] if kept else {}
        own, inner = properties.get("jobs") or {}, spec.get("jobs") or {}
        inputs = {**(spec.get("inputs") or {}), **(properties.get("inputs") or {})}
        outputs = {**(spec.get("outputs") or {}), **(properties.get("outputs") or {})}
        return dict(own or inner), inputs, outputs

    def check_job(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        """Return the nodes of a pipeline job.

        Raises:
            ApiError: it has none, or they do not fit together.
        """
        nodes, inputs, outputs = self.nodes(properties)
        if not nodes:
            raise ApiError(400, "jobs: a pipeline needs at least one node.")
        if compute := properties.get("computeId"):
            self._workspace.check_compute(compute, "computeId")
        settings = properties.get("settings") or {}
        if default := settings.get("default_compute"):
            self._workspace.check_compute(str(default), "settings.default_compute")
        self.check("", nodes, inputs, outputs, compute=properties.get("computeId") or settings.get("default_compute"))
        return nodes

    def check(
        self,
        what: str,
        jobs: Mapping[str, Any],
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        *,
        compute: str | None = "of the pipeline that holds it",
    ) -> None:
        """Refuse nodes that do not fit together.

        Args:
            what: How errors call the pipeline; empty: the job itself.
            jobs: The nodes by name.
            inputs: Of the pipeline.
            outputs: Of the pipeline.
            compute: Where nodes run that do not say where; None: nowhere.

        Raises:
            ApiError: they do not; the message names node, port and binding.
        """
        before = f"{what}: " if what else ""
        nodes = {name: self._node(f"{before}jobs.{name}", name, given) for name, given in jobs.items()}
        for node in nodes.values():
            where = f"{before}jobs.{node.name}"
            for place, binding in _bindings(node.given):
                self._check_binding(f"{where}.{place}", binding, node, nodes, inputs, outputs)
            _check_given(where, node)
            runs = node.given.get("computeId") or (node.given.get("resources") or {}).get("instance_type")
            if not runs and not compute and node.given.get("type") not in (*_CONTROL, "pipeline"):
                raise ApiError(400, f"{where}: no compute is given, and the pipeline has no default one.")
        _check_order(before, nodes)

    def _node(self, where: str, name: str, given: Any) -> _Node:
        if not _NODE.fullmatch(name):
            raise ApiError(400, f"{where}: lower-case letters, digits and '_' make the name of a node.")
        if not isinstance(given, Mapping):
            raise ApiError(400, f"{where}: expected an object.")
        if compute := given.get("computeId"):
            self._workspace.check_compute(str(compute), f"{where}.computeId")
        if given.get("type") in _CONTROL:
            return _Node(name, given)
        trial = given.get("trial")  # of a sweep
        component = given.get("componentId") or (trial.get("componentId") if isinstance(trial, Mapping) else trial)
        if not component:
            raise ApiError(400, f"{where}: the componentId is required.")
        kept = self.assets.referred("components", str(component), f"{where}.componentId")
        if kept is None:
            return _Node(name, given)
        spec = kept.given["componentSpec"]
        return _Node(name, given, spec.get("inputs") or {}, spec.get("outputs") or {})

    def _check_binding(
        self,
        where: str,
        binding: str,
        node: _Node,
        nodes: Mapping[str, _Node],
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
    ) -> None:
        text = f"{where}: ${{{{{binding}}}}}"
        found = _PARENT.fullmatch(binding)
        if found is None:
            if binding.startswith("parent."):
                raise ApiError(400, f"{text} is no binding; ${{{{parent.jobs.NODE.outputs.PORT}}}} is one.")
            return  # of another kind, such as a sweep's own
        side, port, other, its_side, its_port = found.groups()
        if side:
            known: Mapping[str, Any] = inputs if side == "inputs" else outputs
            # A group of inputs is bound as a whole, its members have its name before theirs.
            if port not in known and not any(name.startswith(f"{port}.") for name in known):
                raise ApiError(400, f"{text}: the pipeline has no {side[:-1]} {port}; it has {_names(known)}.")
            return
        if other not in nodes:
            raise ApiError(400, f"{text}: there is no node {other}; there are {_names(nodes)}.")
        if its_side is None:
            return
        ports = nodes[other].inputs if its_side == "inputs" else nodes[other].outputs
        if ports is not None and its_port not in ports:
            raise ApiError(400, f"{text}: node {other} has no {its_side[:-1]} {its_port}; it has {_names(ports)}.")
        if its_side == "outputs" and node.given.get("type") not in _CONTROL:
            node.needs.add(other)


def check_placeholders(what: str, command: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
    """Refuse a command that names inputs or outputs that are not there.

    Raises:
        ApiError: it does.
    """
    for binding in _BINDING.findall(command):
        found = _OWN.fullmatch(binding)
        if found is None:
            raise ApiError(400, f"{what}: command: ${{{{{binding}}}}} is no placeholder.")
        side, port = found.groups()
        known = {"inputs": inputs, "outputs": outputs}.get(side)
        if known is not None and port not in known:
            raise ApiError(400, f"{what}: command: there is no {side[:-1]} {port}; there are {_names(known)}.")


def _check_ports(where: str, ports: Mapping[str, Any]) -> None:
    for side, most in (("inputs", MOST_INPUTS), ("outputs", MOST_OUTPUTS)):
        found = ports.get(side) or {}
        if len(found) > most:
            raise ApiError(400, f"{where}: at most {most} {side}, these are {len(found)}.")
        names: dict[str, str] = {}
        for name in found:
            if not _PORT.fullmatch(name):
                raise ApiError(400, f"{where}: {side}: {name!r}: letters, digits and '_' make a name.")
            if (twin := names.setdefault(name.lower(), name)) != name:
                raise ApiError(400, f"{where}: {side}: {twin} and {name} differ only in their case.")


def _check_given(where: str, node: _Node) -> None:
    """Hold what a node is given to what its component declares."""
    _check_ports(where, node.given)
    if node.inputs is None:
        return
    assert node.outputs is not None
    given = node.given.get("inputs") or {}
    for side, known, found in (
        ("inputs", node.inputs, given),
        ("outputs", node.outputs, node.given.get("outputs") or {}),
    ):
        for name in found:
            if name not in known and not any(each.startswith(f"{name}.") for each in known):
                raise ApiError(
                    400, f"{where}.{side}.{name}: its component has none of that name, it has {_names(known)}."
                )
    for name, declared in node.inputs.items():
        optional = str(declared.get("optional", False)).lower() == "true"
        if name not in given and not optional and declared.get("default") is None:
            raise ApiError(400, f"{where}.inputs.{name}: it is required, and not given.")
        if name in given:
            _check_literal(f"{where}.inputs.{name}", given[name], declared)


def _check_literal(where: str, given: Any, declared: Mapping[str, Any]) -> None:
    value = given.get("value") if isinstance(given, Mapping) else given
    kind = declared.get("type")
    if value is None or _BINDING.search(str(value)) or not isinstance(kind, str):
        return
    text = str(value)
    if kind.lower() in _TYPES:
        try:
            _TYPES[kind.lower()](text)
        except ValueError:
            raise ApiError(400, f"{where}: {text!r} is no {kind.lower()}.") from None
    elif kind.lower() == "boolean" and text.lower() not in _WORDS_OF_BOOLEANS:
        raise ApiError(400, f"{where}: {text!r} is no boolean.")
    if (choices := declared.get("enum")) and text not in map(str, choices):
        raise ApiError(400, f"{where}: {text!r} is none of {', '.join(map(str, choices))}.")


def _check_order(before: str, nodes: Mapping[str, _Node]) -> None:
    done: set[str] = set()
    left = dict(nodes)
    while left:
        ready = [name for name, node in left.items() if node.needs <= done]
        if not ready:
            raise ApiError(400, f"{before}jobs: {_circle(left)} wait for each other.")
        done.update(ready)
        for name in ready:
            del left[name]


def _circle(left: Mapping[str, _Node]) -> str:
    path = [next(iter(left))]
    while True:
        following = min(name for name in left[path[-1]].needs if name in left)
        if following in path:
            return " and ".join(path[path.index(following) :])
        path.append(following)


def _bindings(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield every binding in a node, with where it is."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            # A literal's value stands for the input that has it.
            inner = place if name in ("value", "uri") and place else f"{place}.{name}" if place else name
            yield from _bindings(each, inner)
    elif isinstance(value, list):
        for each in value:
            yield from _bindings(each, place)
    elif isinstance(value, str):
        for binding in _BINDING.findall(value):
            yield place, binding


def _names(known: Mapping[str, Any]) -> str:
    return ", ".join(known) or "none"
