"""A pipeline as KFP's IR means it, in frozen dataclasses with every reference resolved.

The IR's own quirks end here: names are looked up, integers are integers again, dependencies that only show in the
inputs are listed, tasks come in an order in which they could run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

_TITLE = re.compile(r"^title:\s*(\S+)", re.MULTILINE)


class Type(StrEnum):
    """Type of a parameter, by the IR's names."""

    STRING = "STRING"
    INTEGER = "NUMBER_INTEGER"
    DOUBLE = "NUMBER_DOUBLE"
    BOOLEAN = "BOOLEAN"
    LIST = "LIST"
    STRUCT = "STRUCT"
    FINAL_STATUS = "TASK_FINAL_STATUS"
    TASK_CONFIG = "TASK_CONFIG"
    UNSPECIFIED = "PARAMETER_TYPE_ENUM_UNSPECIFIED"  # of broken specs only


@dataclass(frozen=True)
class Parameter:
    """A parameter port.

    Attributes:
        default: Value where none is given; None: there is no default.
        literals: The values it may have; empty: any of its type.
        typed: Whether it is declared as in schema 2.0.0, whose programs are given values with their types.
    """

    name: str
    type: Type
    default: Any = None
    optional: bool = False
    description: str = ""
    literals: tuple[Any, ...] = ()
    typed: bool = False

    @property
    def required(self) -> bool:
        """Whether a value has to be given."""
        return not self.optional and self.default is None


@dataclass(frozen=True)
class ArtifactType:
    """Type of an artifact: a title such as "system.Dataset", or one of the older forms of a schema."""

    title: str = ""
    version: str = ""
    uri: str = ""
    instance: str = ""

    def __str__(self) -> str:
        return self.title or self.uri or self.instance

    @property
    def name(self) -> str:
        """The title, also where it stands in a schema that is written out as YAML, such as tfx.Examples; or empty."""
        found = _TITLE.search(self.instance)
        return self.title or (found[1] if found else "")


@dataclass(frozen=True)
class ArtifactPort:
    """An artifact port; `metadata` is what an output carries from the start."""

    name: str
    type: ArtifactType
    is_list: bool = False
    optional: bool = False
    description: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ports:
    """Inputs or outputs, by name."""

    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    artifacts: Mapping[str, ArtifactPort] = field(default_factory=dict)

    def __iter__(self) -> Iterator[str]:
        yield from self.parameters
        yield from self.artifacts

    def __contains__(self, name: object) -> bool:
        return name in self.parameters or name in self.artifacts


@dataclass(frozen=True)
class Constant:
    """A value of the spec. Text in it, at any depth, may hold placeholders of the task's other inputs."""

    value: Any


@dataclass(frozen=True)
class ScopeInput:
    """An input of the enclosing component."""

    name: str


@dataclass(frozen=True)
class RuntimeParameter:
    """A parameter of the whole pipeline, as specs of schema 2.0.0 may name it."""

    name: str


@dataclass(frozen=True)
class TaskOutput:
    """An output of a task of the same scope. Where that task is a loop, the list of what its iterations gave."""

    task: str
    port: str


@dataclass(frozen=True)
class FinalStatus:
    """How a task of the same scope ended."""

    task: str


Source = Constant | ScopeInput | RuntimeParameter | TaskOutput | FinalStatus


@dataclass(frozen=True)
class Input:
    """Where an input of a task comes from; `selector` is an expression that picks a part of it."""

    source: Source
    selector: str = ""


@dataclass(frozen=True)
class Trigger:
    """When a task runs.

    Attributes:
        condition: Expression over the task's inputs that has to be true; empty: always.
        whatever_upstream: Whether it runs also after tasks that failed or were skipped.
    """

    condition: str = ""
    whatever_upstream: bool = False


@dataclass(frozen=True)
class Loop:
    """Runs a task once for each item.

    Attributes:
        kind: "parameter" or "artifact".
        item: Input that receives the item.
        items: The items themselves, or the name of the task's input that holds them.
        limit: Iterations that may run at the same time; 0: any number.
    """

    kind: str
    item: str
    items: tuple[Any, ...] | str
    limit: int = 0


@dataclass(frozen=True)
class Retry:
    """How often a failing task is tried again, and how long to wait before, in seconds."""

    count: int
    wait: float = 0.0
    factor: float = 2.0
    longest_wait: float = 3600.0


@dataclass(frozen=True)
class Caching:
    """Whether a task's outputs may be reused, and the key under which, if the spec names one."""

    enabled: bool = False
    key: str = ""


@dataclass(frozen=True)
class Resources:
    """What a container asks for, as text; placeholders may be in it."""

    cpu_request: str = ""
    cpu_limit: str = ""
    memory_request: str = ""
    memory_limit: str = ""
    accelerator_type: str = ""
    accelerator_count: str = ""


@dataclass(frozen=True)
class Container:
    """Runs a command in an image. `pre_cache_check` is a command that comes before it, in schemas that TFX writes."""

    label: str
    image: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = Resources()
    pre_cache_check: tuple[str, ...] = ()


@dataclass(frozen=True)
class Importer:
    """Takes in an artifact that lies somewhere already; `uri` is a constant or the name of its input."""

    label: str
    uri: Constant | RuntimeParameter
    type: ArtifactType
    metadata: Mapping[str, Any] = field(default_factory=dict)
    reimport: bool = False
    download_to_workspace: bool = False


@dataclass(frozen=True)
class OtherExecutor:
    """An executor that the schema knows and no compiler emits: "resolver" or "customJob"."""

    label: str
    kind: str


@dataclass(frozen=True)
class Missing:
    """Stands in broken specs for what a component should have done."""


@dataclass(frozen=True)
class Dag:
    """Tasks and where the outputs come from: of several sources of one output, the first that ran gives it."""

    tasks: Mapping[str, Task]
    outputs: Mapping[str, tuple[TaskOutput, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Component:
    """What tasks are instances of.

    Attributes:
        platforms: Settings of one platform by the platform's name, such as "kubernetes".
        passthroughs: Fields of a task's configuration that it applies by itself.
    """

    name: str
    inputs: Ports
    outputs: Ports
    body: Container | Importer | OtherExecutor | Dag | Missing
    platforms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    passthroughs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """A component at work in a scope.

    Attributes:
        name: Unique in its scope.
        title: Name to show.
        inputs: Sources by input name. There may be more than the component declares: those that constants refer to.
        depends_on: Tasks of the scope that come before, said outright or through an input.
    """

    name: str
    component: Component
    title: str = ""
    inputs: Mapping[str, Input] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()
    trigger: Trigger = Trigger()
    loop: Loop | None = None
    retry: Retry | None = None
    caching: Caching = Caching()


@dataclass(frozen=True)
class Pipeline:
    """A compiled pipeline.

    Attributes:
        platforms: Settings of the whole pipeline by platform.
    """

    name: str
    root: Component
    display_name: str = ""
    description: str = ""
    schema_version: str = ""
    sdk_version: str = ""
    default_root: str = ""
    platforms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def inputs(self) -> Ports:
        """Parameters and artifacts that a run is given."""
        return self.root.inputs

    @property
    def outputs(self) -> Ports:
        """Parameters and artifacts that a run gives."""
        return self.root.outputs

    @property
    def dag(self) -> Dag:
        """The outermost tasks."""
        assert isinstance(self.root.body, Dag)
        return self.root.body

    def walk(self) -> Iterator[tuple[str, Task]]:
        """Yield every task with its path: the names of the tasks around it and its own, joined with dots."""
        yield from _walk(self.dag, "")

    def scopes(self) -> Iterator[tuple[str, Component]]:
        """Yield every component that holds tasks, once, with the path of the first task that is made of it."""
        yield "", self.root
        seen = {self.root.name}
        for path, task in self.walk():
            if isinstance(task.component.body, Dag) and task.component.name not in seen:
                seen.add(task.component.name)
                yield path, task.component


def _walk(dag: Dag, prefix: str) -> Iterator[tuple[str, Task]]:
    for name, task in dag.tasks.items():
        yield prefix + name, task
        if isinstance(task.component.body, Dag):
            yield from _walk(task.component.body, f"{prefix}{name}.")
