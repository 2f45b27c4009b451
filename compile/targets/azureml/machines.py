"""Which machine of the options a task runs on."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from penstock.compile import graph
from penstock.compile.targets.azureml import quantities
from penstock.compile.targets.azureml.options import Machine
from penstock.compile.targets.azureml.plan import Plan, Unit


@dataclass(frozen=True)
class Wanted:
    """What a task asks of its machine: CPUs, bytes of memory, accelerators; 0 and "" stand for nothing."""

    cpu: float
    memory: float
    accelerator: str
    count: int


def wanted(plan: Plan, unit: Unit) -> Wanted:
    """Return what a task asks of its machine.

    Raises:
        Unknown: only a run knows.
        ValueError: it is no amount; the message says what it is.
    """
    assert isinstance(unit.component.body, graph.Container)
    asked = unit.component.body.resources

    def text(value: str) -> str:
        return plan.text(unit.path, value)

    def amount(values: tuple[str, str], kind: str) -> float:
        found = 0.0
        for value in filter(None, map(text, values)):
            number = quantities.cpu(value) if kind == "CPUs" else quantities.memory(value)
            if number is None:
                raise ValueError(f"{value!r} is no amount of {kind}")
            found = max(found, number)
        return found

    accelerator, count = text(asked.accelerator_type), text(asked.accelerator_count)
    if count and not count.isdigit():
        raise ValueError(f"{count!r} is no number of accelerators")
    number = int(count) if count else int(bool(accelerator))
    return Wanted(
        amount((asked.cpu_request, asked.cpu_limit), "CPUs"),
        amount((asked.memory_request, asked.memory_limit), "memory"),
        accelerator if number else "",
        number,
    )


def chosen(plan: Plan, unit: Unit, asked: Wanted) -> Machine | None:
    """Return the first machine that fits a task; None where none does."""
    for machine in plan.options.machines:
        accelerated = machine.accelerator in (asked.accelerator, "*") and machine.count >= asked.count
        if not fnmatch.fnmatchcase(unit.declared, machine.tasks):
            continue
        if not (accelerated if asked.accelerator else not machine.accelerator):
            continue
        memory = quantities.memory(machine.memory) if machine.memory else None
        if (machine.cpu and machine.cpu < asked.cpu) or (memory is not None and memory < asked.memory):
            continue
        return machine
    return None
