"""Amounts of CPU and memory, as pipelines write them."""

from __future__ import annotations

import re

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)(E|P|T|G|M|K|Ei|Pi|Ti|Gi|Mi|Ki|m)?")
_POWERS = {"K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_CPU = re.compile(r"(\d+(?:\.\d+)?)(m?)")


def memory(text: str) -> float | None:
    """Return an amount of memory in bytes; None where the text is none."""
    match = _MEMORY.fullmatch(text)
    if not match:
        return None
    number, unit = float(match[1]), match[2] or ""
    if unit == "m":
        return number / 1000
    base = 1024 if unit.endswith("i") else 1000
    return number * float(base ** _POWERS.get(unit[:1], 0))


def cpu(text: str) -> float | None:
    """Return a number of CPUs; None where the text is none."""
    match = _CPU.fullmatch(text)
    return float(match[1]) / (1000 if match[2] else 1) if match else None
