"""How many processors a step may use, which in a container are fewer than the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from penstock.components._shared import cgroups

# Read by OpenMP, of XGBoost, LightGBM and scikit-learn, and by TensorFlow when they are loaded.
_VARIABLES = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


def cores(root: Path = Path("/")) -> int:
    """Return how many processors this process may use at a time: the least of its affinity and its groups' quotas.

    A quota of 1.5 processors counts as 2; see cpu.max in the kernel's cgroup-v2.rst, and sched-bwc.rst for version 1.

    Args:
        root: Where proc and sys lie.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *(math.ceil(quota) for quota in _quotas(root))]))


def limit_threads() -> None:
    """Have libraries that are loaded from here on start as many threads as there are processors for this process.

    They look at the machine alone: with more threads than its quota pays for, a container stands still most of the
    time. What the user has set stays.
    """
    most = cores()
    if most < (os.cpu_count() or 1):
        for name in _VARIABLES:
            os.environ.setdefault(name, str(most))


def _quotas(root: Path) -> Iterator[float]:
    for file in cgroups.files(root, {"": "cpu.max", "cpu": "cpu.cfs_quota_us"}):
        try:
            quota, period = file.read_text().split() if file.name == "cpu.max" else _version_1(file)
            if quota not in ("max", "-1"):
                yield int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):  # not there
            continue


def _version_1(quota: Path) -> tuple[str, str]:
    return quota.read_text().strip(), quota.with_name("cpu.cfs_period_us").read_text()
