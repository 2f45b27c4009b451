"""Where a task stands, as the rules see it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from penstock.compile import graph


@dataclass(frozen=True)
class Place:
    """A task in the scope that it is part of.

    Attributes:
        path: Path of the task.
        scope: Component that the task is part of.
    """

    path: str
    task: graph.Task
    scope: graph.Component

    @property
    def siblings(self) -> graph.Dag:
        """The tasks of its scope."""
        assert isinstance(self.scope.body, graph.Dag)
        return self.scope.body


def places(pipeline: graph.Pipeline) -> Iterator[Place]:
    """Yield every task of a pipeline, those of a component that several tasks are made of once."""
    for path, scope in pipeline.scopes():
        assert isinstance(scope.body, graph.Dag)
        for name, task in scope.body.tasks.items():
            yield Place(f"{path}.{name}" if path else name, task, scope)


def iterated(pipeline: graph.Pipeline) -> dict[str, set[str]]:
    """Return the components that loops run, by name, each with the inputs that receive items."""
    found: dict[str, set[str]] = {}
    for place in places(pipeline):
        if place.task.loop:
            found.setdefault(place.task.component.name, set()).add(place.task.loop.item)
    return found
