"""What is asked of a version that traffic moves to: the steps of the way, how long each is, and the gate."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from penstock.components._shared.dataset import open_dataset, require_columns
from penstock.components._shared.errors import UserError
from penstock.components.deployment import gate as gates
from penstock.components.deployment import measure
from penstock.components.deployment.endpoint import Backend

COMPONENT = "roll_out"
HOLD = {"seconds": 60.0, "requests": 100.0, "least": 1.0}


@dataclass(frozen=True)
class Step:
    """A part of the way.

    Attributes:
        share: Per cent of the traffic that the new version gets.
        shadow: Whether it gets copies of the requests besides.
        judged: Whether the gate has to hold; else it is a look at the current version alone.
    """

    share: int
    shadow: bool = False
    judged: bool = True

    @property
    def name(self) -> str:
        return "shadow" if self.shadow else "baseline" if not self.judged else f"{self.share} %"


@dataclass(frozen=True)
class Strategy:
    """A way to move traffic: what comes before the steps, and which they are where none are given."""

    first: tuple[Step, ...]
    steps: tuple[int, ...]


STRATEGIES = {
    "canary": Strategy((), (5, 25, 50, 100)),
    "blue_green": Strategy((Step(0, judged=False),), (100,)),
    "shadow": Strategy((Step(0, shadow=True),), (100,)),
}


@dataclass(frozen=True)
class Demands:
    """What is asked of the new version.

    Attributes:
        hold: As HOLD has it.
        labels: Arrow table; None: none are given.
    """

    plan: tuple[Step, ...]
    hold: Mapping[str, float]
    conditions: tuple[gates.Condition, ...]
    labels: Any
    target: str

    @property
    def metrics(self) -> set[str]:
        return {condition.metric for condition in self.conditions}

    @property
    def needs_answers(self) -> bool:
        return bool(self.metrics & {"agreement", *measure.QUALITY})


def plan_of(strategy: str, steps: Sequence[float]) -> tuple[Step, ...]:
    """Return the way of a strategy; steps that do not lead to 100 are refused."""
    row = STRATEGIES[strategy]
    wanted = list(steps) or list(row.steps)
    whole = all(isinstance(step, int | float) and not isinstance(step, bool) and step == int(step) for step in wanted)
    if not whole or wanted[-1] != 100 or wanted[0] <= 0 or any(b <= a for a, b in itertools.pairwise(wanted)):
        raise UserError(
            COMPONENT,
            "steps",
            f"{wanted} do not lead to 100",
            "Give whole numbers that rise to 100, such as [5, 50, 100]",
        )
    return (*row.first, *(Step(int(step)) for step in wanted))


def hold_of(given: Mapping[str, float]) -> dict[str, float]:
    """Return how long a step is, as HOLD has it; unknown names and numbers that are none are refused."""
    for name, value in given.items():
        least = 0.0 if name == "least" else 1e-3
        if (
            name not in HOLD
            or isinstance(value, bool)
            or not isinstance(value, int | float)
            or not least <= value < 1e9
        ):
            raise UserError(
                COMPONENT, "hold", f"it has {name}={value!r}", f"Give positive numbers for some of {', '.join(HOLD)}"
            )
    return {**HOLD, **{name: float(value) for name, value in given.items()}}


def conditions_of(gate: Sequence[str], backend: Backend, strategy: str, labelled: bool) -> tuple[gates.Condition, ...]:
    """Return the gate; metrics that nobody can give here are refused."""
    known = set(backend.measures) | (set(measure.QUALITY) if labelled and "agreement" in backend.measures else set())
    if strategy != "shadow":
        known -= {"agreement"}
    compared = {name for name, metric in measure.METRICS.items() if metric.of is None}
    return gates.parse(gate, known, compared, COMPONENT)


def labels_of(path: str | os.PathLike[str], target: str) -> Any:
    """Return request_id, row and target of a dataset as an Arrow table; one without them is refused."""
    dataset = open_dataset(path, COMPONENT, "labels")
    if not target:
        raise UserError(COMPONENT, "target", "labels are given, and no target", "Name the column that holds them")
    require_columns(dataset, ["request_id", "row", target], COMPONENT, "labels")
    return pq.read_table(list(map(str, dataset.files)), columns=["request_id", "row", target])
