"""The fields of KFP's Kubernetes platform document, and what becomes of each on this machine: one table.

The document is JSON of KubernetesExecutorConfig for a task, and of PipelineConfig for the pipeline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HONOURED, IN_PART, NO_EFFECT, REFUSED = "honoured", "in part", "no effect", "refused"

MEMORY = Path("/dev/shm")  # noqa: S108 a file system in memory, where there is one

_ONE_NODE = "there is one node, this machine"
_STAYS = "a run stays until you remove it"


@dataclass(frozen=True)
class Field:
    """A field of the document.

    Attributes:
        shape: What it holds.
        effect: One of the four above.
        note: What becomes of it; for what has no effect or is refused, why.
        warn: Returns what to warn of, "" where there is nothing, from its value and whether its task runs in a
            container; without it, what has no effect is warned of by its note.
    """

    name: str
    effect: str
    note: str
    warn: Callable[[Any, bool], str] | None = None

    def warning(self, value: Any, contained: bool) -> str:
        """Return what to warn of where a task has it; "" where there is nothing."""
        if self.warn:
            return self.warn(value, contained)
        return self.note if self.effect == NO_EFFECT else ""


def _warn_empty(value: Any, contained: bool) -> str:
    media = {entry.get("medium", "") for entry in value} - {""}
    if others := sorted(media - {"Memory"}):
        return f"the medium {', '.join(others)} is a folder on disk here"
    return "the medium Memory is a folder on disk here" if media and not MEMORY.is_dir() else ""


def _warn_user(value: Any, contained: bool) -> str:
    if not contained:
        return "a process runs as the user who you are"
    return "runAsNonRoot is not checked" if value.get("runAsNonRoot") else ""


def _warn_policy(value: Any, contained: bool) -> str:
    return "an image that is not here is fetched all the same" if contained and value == "Never" else ""


# In the order of the documentation.
FIELDS = (
    Field(
        "secretAsEnv",
        HONOURED,
        "variables from the Secrets of `--kubernetes-objects`",
    ),
    Field(
        "secretAsVolume",
        HONOURED,
        "files that no other user can get at, in memory where there is /dev/shm, gone when the task ends",
    ),
    Field(
        "configMapAsEnv",
        HONOURED,
        "variables from the ConfigMaps of `--kubernetes-objects`",
    ),
    Field(
        "configMapAsVolume",
        HONOURED,
        "files, gone when the task ends",
    ),
    Field(
        "pvcMount",
        HONOURED,
        "the folder `ROOT/volumes/NAME`, which may be a link; it has to be there, or be created by the pipeline",
    ),
    Field(
        "genericEphemeralVolume",
        HONOURED,
        "an empty folder for each attempt; size, class and labels mean nothing to it",
    ),
    Field(
        "emptyDirMounts",
        IN_PART,
        "an empty folder for each attempt, in memory where that is asked for; its size is not limited",
        _warn_empty,
    ),
    Field("podMetadata", HONOURED, "labels and annotations, for `fieldPathAsEnv`"),
    Field(
        "fieldPathAsEnv",
        IN_PART,
        "labels and annotations; name and uid are the task's, node and addresses this machine's, namespace and service "
        "account `default`",
    ),
    Field("activeDeadlineSeconds", HONOURED, "an attempt that takes longer is ended and fails"),
    Field(
        "securityContext",
        IN_PART,
        "user and group, in containers; `runAsNonRoot` is not checked",
        _warn_user,
    ),
    Field(
        "enabledSharedMemory",
        IN_PART,
        "the size of /dev/shm, in containers",
        lambda value, contained: "" if contained else "processes share the /dev/shm of this machine",
    ),
    Field(
        "imagePullPolicy",
        IN_PART,
        "`Always` fetches the image anew, in containers; others fetch one that is missing",
        _warn_policy,
    ),
    Field(
        "imagePullSecret",
        NO_EFFECT,
        "images are fetched with Docker's own logins",
        lambda value, contained: "images are fetched with Docker's own logins" if contained else "",
    ),
    Field("nodeSelector", NO_EFFECT, _ONE_NODE),
    Field("nodeAffinity", NO_EFFECT, _ONE_NODE),
    Field("podAffinity", NO_EFFECT, _ONE_NODE),
    Field("tolerations", NO_EFFECT, "this machine has no taints"),
    Field(
        "podResourceClaims",
        NO_EFFECT,
        "no device is claimed; the task sees those of this machine",
    ),
    Field(
        "initContainers",
        REFUSED,
        "what they prepare or serve would be missing; compile without them, or make them tasks",
    ),
)

PIPELINE_FIELDS = (
    Field(
        "workspace",
        IN_PART,
        "a folder of the run; its size is not limited",
    ),
    Field("activeDeadlineSeconds", HONOURED, "a run that takes longer is ended"),
    Field("resourceTtlOnCompletion", NO_EFFECT, _STAYS),
    Field("resourceTtlOnSuccess", NO_EFFECT, _STAYS),
    Field("resourceTtlOnFailure", NO_EFFECT, _STAYS),
)
