"""The workers that fit one model together, as the platform's environment names them.

TF_CONFIG is what Kubeflow's training operator, Vertex AI and Azure ML set for TensorFlow; where there is only Vertex
AI's CLUSTER_SPEC, its first pool is the chief and its second one the workers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.components._shared.errors import UserError

ROLES = ("chief", "master", "worker")
POOLS = {"workerpool0": "chief", "workerpool1": "worker"}


@dataclass(frozen=True)
class Workers:
    """The workers of a fit, and which of them this process is.

    Attributes:
        count: How many there are; 1 where a process fits alone.
        place: Of this one, from 0 on; 0 is the chief, the only one that writes.
        config: TF_CONFIG that says so; empty where a process fits alone.
    """

    count: int = 1
    place: int = 0
    config: str = ""

    @property
    def is_chief(self) -> bool:
        return self.place == 0


def workers(environment: Mapping[str, str] = os.environ) -> Workers:
    """Return the workers that an environment names.

    Raises:
        UserError: It says something else than workers, and this process as one of them.
    """
    for variable, renamed in (("TF_CONFIG", {}), ("CLUSTER_SPEC", POOLS)):
        if environment.get(variable, "").strip():
            return _read(variable, environment[variable], renamed)
    return Workers()


def _read(variable: str, text: str, renamed: Mapping[str, str]) -> Workers:
    def refuse(problem: str) -> UserError:
        return UserError(
            "train",
            variable,
            problem,
            'It looks like {"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}',
        )

    try:
        given: Any = json.loads(text)
        cluster = {renamed.get(role, role): list(hosts) for role, hosts in (given.get("cluster") or {}).items()}
        if not any(cluster.values()):
            return Workers()
        role, index = renamed.get(given["task"]["type"], given["task"]["type"]), int(given["task"].get("index", 0))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise refuse(f"cannot be read ({type(error).__name__}: {error})") from None
    strange = [name for name in (*cluster, role) if name not in ROLES]
    if strange:
        raise refuse(f"names {strange[0]!r}; a model is fitted by a chief and workers only")
    members = [(name, place) for name in ROLES for place in range(len(cluster.get(name, ())))]
    if (role, index) not in members:
        raise refuse(f"says that this is {role} {index}, which is not in the cluster")
    if len(members) == 1:
        return Workers()
    config = {"cluster": cluster, "task": {"type": role, "index": index}}
    return Workers(len(members), members.index((role, index)), json.dumps(config))
