"""The fields of KFP's Kubernetes platform document, and what becomes of each on this machine: one table.

The document is JSON of KubernetesExecutorConfig for a task, and of PipelineConfig for the pipeline.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HONOURED, IN_PART, NO_EFFECT, REFUSED = "honoured", "in part", "no effect", "refused"

MEMORY = Path("/dev/shm")  # noqa: S108 a file system in memory, where there is one

# str, bool, int, float, object for anything, [shape] for a list, {"*": shape} for a map, or fields with their shapes.
Shape = Any

_LABELS = {"*": str}
_METADATA = {"labels": _LABELS, "annotations": _LABELS}
_REQUIREMENTS = [{"key": str, "operator": str, "values": [str]}]
_OUTPUT = {"producerTask": str, "outputParameterKey": str}
_INPUT = {
    "taskOutputParameter": _OUTPUT,
    "runtimeValue": {
        "constantValue": {"intValue": int, "doubleValue": float, "stringValue": str},
        "runtimeParameter": str,
        "constant": object,
    },
    "componentInputParameter": str,
    "parameterExpressionSelector": str,
    "taskFinalStatus": {"producerTask": str},
}
_SECRET = {"secretName": str, "secretNameParameter": _INPUT}
_CONFIG_MAP = {"configMapName": str, "configMapNameParameter": _INPUT}
_CLAIM = {
    "pvcNameParameter": _INPUT,
    "constant": str,
    "taskOutputParameter": _OUTPUT,
    "componentInputParameter": str,
    "mountPath": str,
    "subPath": str,
}
_EPHEMERAL = {
    "volumeName": str,
    "mountPath": str,
    "accessModes": [str],
    "size": str,
    "defaultStorageClass": bool,
    "storageClassName": str,
    "metadata": _METADATA,
}
_NODE_AFFINITY = {
    "matchExpressions": _REQUIREMENTS,
    "matchFields": _REQUIREMENTS,
    "weight": int,
    "nodeAffinityJson": _INPUT,
}
_POD_AFFINITY = {
    "matchPodExpressions": _REQUIREMENTS,
    "matchPodLabels": _LABELS,
    "topologyKey": str,
    "namespaces": [str],
    "matchNamespaceExpressions": _REQUIREMENTS,
    "matchNamespaceLabels": _LABELS,
    "weight": int,
    "anti": bool,
}
_TOLERATION = {
    "key": str,
    "operator": str,
    "value": str,
    "effect": str,
    "tolerationSeconds": int,
    "tolerationJson": _INPUT,
}
_INIT_CONTAINER = {
    "name": str,
    "image": str,
    "command": [str],
    "args": [str],
    "env": [{"name": str, "value": str}],
    "volumeMounts": [{"volumeName": str, "mountPath": str}],
    "restartPolicy": str,
    "resources": {"requests": _LABELS, "limits": _LABELS},
}
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
    shape: Shape
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
        [{**_SECRET, "keyToEnv": [{"secretKey": str, "envVar": str}], "optional": bool}],
        HONOURED,
        "variables from the Secrets of `--kubernetes-objects`",
    ),
    Field(
        "secretAsVolume",
        [{**_SECRET, "mountPath": str, "optional": bool}],
        HONOURED,
        "files that no other user can get at, in memory where there is /dev/shm, gone when the task ends",
    ),
    Field(
        "configMapAsEnv",
        [{**_CONFIG_MAP, "keyToEnv": [{"configMapKey": str, "envVar": str}], "optional": bool}],
        HONOURED,
        "variables from the ConfigMaps of `--kubernetes-objects`",
    ),
    Field(
        "configMapAsVolume",
        [{**_CONFIG_MAP, "mountPath": str, "optional": bool}],
        HONOURED,
        "files, gone when the task ends",
    ),
    Field(
        "pvcMount",
        [_CLAIM],
        HONOURED,
        "the folder `ROOT/volumes/NAME`, which may be a link; it has to be there, or be created by the pipeline",
    ),
    Field(
        "genericEphemeralVolume",
        [_EPHEMERAL],
        HONOURED,
        "an empty folder for each attempt; size, class and labels mean nothing to it",
    ),
    Field(
        "emptyDirMounts",
        [{"volumeName": str, "mountPath": str, "medium": str, "sizeLimit": str}],
        IN_PART,
        "an empty folder for each attempt, in memory where that is asked for; its size is not limited",
        _warn_empty,
    ),
    Field("podMetadata", _METADATA, HONOURED, "labels and annotations, for `fieldPathAsEnv`"),
    Field(
        "fieldPathAsEnv",
        [{"name": str, "fieldPath": str}],
        IN_PART,
        "labels and annotations; name and uid are the task's, node and addresses this machine's, namespace and service "
        "account `default`",
    ),
    Field("activeDeadlineSeconds", int, HONOURED, "an attempt that takes longer is ended and fails"),
    Field(
        "securityContext",
        {"runAsUser": int, "runAsGroup": int, "runAsNonRoot": bool},
        IN_PART,
        "user and group, in containers; `runAsNonRoot` is not checked",
        _warn_user,
    ),
    Field(
        "enabledSharedMemory",
        {"volumeName": str, "size": str},
        IN_PART,
        "the size of /dev/shm, in containers",
        lambda value, contained: "" if contained else "processes share the /dev/shm of this machine",
    ),
    Field(
        "imagePullPolicy",
        str,
        IN_PART,
        "`Always` fetches the image anew, in containers; others fetch one that is missing",
        _warn_policy,
    ),
    Field(
        "imagePullSecret",
        [_SECRET],
        NO_EFFECT,
        "images are fetched with Docker's own logins",
        lambda value, contained: "images are fetched with Docker's own logins" if contained else "",
    ),
    Field("nodeSelector", {"labels": _LABELS, "nodeSelectorJson": _INPUT}, NO_EFFECT, _ONE_NODE),
    Field("nodeAffinity", [_NODE_AFFINITY], NO_EFFECT, _ONE_NODE),
    Field("podAffinity", [_POD_AFFINITY], NO_EFFECT, _ONE_NODE),
    Field("tolerations", [_TOLERATION], NO_EFFECT, "this machine has no taints"),
    Field(
        "podResourceClaims",
        [{"resourceClaimTemplateName": str, "resourceClaimJson": _INPUT}],
        NO_EFFECT,
        "no device is claimed; the task sees those of this machine",
    ),
    Field(
        "initContainers",
        [_INIT_CONTAINER],
        REFUSED,
        "what they prepare or serve would be missing; compile without them, or make them tasks",
    ),
)

PIPELINE_FIELDS = (
    Field(
        "workspace",
        {"size": str, "kubernetes": {"pvcSpecPatch": object}},
        IN_PART,
        "a folder of the run; its size is not limited",
    ),
    Field("activeDeadlineSeconds", int, HONOURED, "a run that takes longer is ended"),
    Field("resourceTtlOnCompletion", int, NO_EFFECT, _STAYS),
    Field("resourceTtlOnSuccess", int, NO_EFFECT, _STAYS),
    Field("resourceTtlOnFailure", int, NO_EFFECT, _STAYS),
)

SHAPE = {field.name: field.shape for field in FIELDS}
PIPELINE_SHAPE = {
    "platform": str,
    "config": object,
    "pipelineConfig": {field.name: field.shape for field in PIPELINE_FIELDS},
}

_KINDS = {str: "text", bool: "true or false", int: "an integer", float: "a number"}


def fit(value: Any, shape: Shape, where: str, problems: list[str]) -> Any:
    """Return a value of a document as its shape has it, and note what does not fit: as JSON, integers may be text."""
    if shape is object:
        return value
    if isinstance(shape, list):
        if not isinstance(value, list):
            problems.append(f"{where} is not a list")
            return []
        return [fit(item, shape[0], where, problems) for item in value]
    if isinstance(shape, dict):
        if not isinstance(value, Mapping):
            problems.append(f"{where} is not an object")
            return {}
        fitted = {}
        for name, item in value.items():
            if "*" not in shape and name not in shape:
                problems.append(f"unknown field {where}.{name}; this version of penstock does not know it")
            elif item is not None:
                fitted[name] = fit(item, shape.get(name, shape.get("*")), f"{where}.{name}", problems)
        return fitted
    if shape is int and isinstance(value, str) and re.fullmatch(r"-?\d{1,19}", value):
        return int(value)
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if numeric if shape is float else isinstance(value, shape) and (shape is bool or not isinstance(value, bool)):
        return value
    problems.append(f"{where} is not {_KINDS[shape]}")
    return shape()
