"""The fields of KFP's Kubernetes platform document, with the shape of each.

The document is JSON of KubernetesExecutorConfig for a task, and of PipelineConfig for the pipeline; kfp-kubernetes has
the messages, which whoever reads a spec need not have installed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

PLATFORM = "kubernetes"

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
TASK: dict[str, Shape] = {
    "secretAsEnv": [{**_SECRET, "keyToEnv": [{"secretKey": str, "envVar": str}], "optional": bool}],
    "secretAsVolume": [{**_SECRET, "mountPath": str, "optional": bool}],
    "configMapAsEnv": [{**_CONFIG_MAP, "keyToEnv": [{"configMapKey": str, "envVar": str}], "optional": bool}],
    "configMapAsVolume": [{**_CONFIG_MAP, "mountPath": str, "optional": bool}],
    "pvcMount": [_CLAIM],
    "genericEphemeralVolume": [_EPHEMERAL],
    "emptyDirMounts": [{"volumeName": str, "mountPath": str, "medium": str, "sizeLimit": str}],
    "podMetadata": _METADATA,
    "fieldPathAsEnv": [{"name": str, "fieldPath": str}],
    "activeDeadlineSeconds": int,
    "securityContext": {"runAsUser": int, "runAsGroup": int, "runAsNonRoot": bool},
    "enabledSharedMemory": {"volumeName": str, "size": str},
    "imagePullPolicy": str,
    "imagePullSecret": [_SECRET],
    "nodeSelector": {"labels": _LABELS, "nodeSelectorJson": _INPUT},
    "nodeAffinity": [_NODE_AFFINITY],
    "podAffinity": [_POD_AFFINITY],
    "tolerations": [_TOLERATION],
    "podResourceClaims": [{"resourceClaimTemplateName": str, "resourceClaimJson": _INPUT}],
    "initContainers": [_INIT_CONTAINER],
}

PIPELINE: dict[str, Shape] = {
    "platform": str,
    "config": object,
    "pipelineConfig": {
        "workspace": {"size": str, "kubernetes": {"pvcSpecPatch": object}},
        "activeDeadlineSeconds": int,
        "resourceTtlOnCompletion": int,
        "resourceTtlOnSuccess": int,
        "resourceTtlOnFailure": int,
    },
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
