"""The fields of KFP's Kubernetes platform document, and what becomes of each on Azure ML: one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.compile import graph, kubernetes_document

if TYPE_CHECKING:
    from penstock.compile.targets.azureml.options import Options

LOWERED, WARNED, OPTION, REFUSED = "lowered", "warned", "needs option", "refused"

_PLACED = "the machine comes from the options, see `machines`"


@dataclass(frozen=True)
class Field:
    """A field of the document.

    Attributes:
        effect: One of the four above.
        note: What becomes of it; for what is refused, why and what to do.
        find: Yields what of its value has that effect, in words; without it, all of it has.
    """

    name: str
    effect: str
    note: str
    find: Callable[[Any, Options], Iterator[str]] | None = None

    def problems(self, value: Any, options: Options) -> Iterator[str]:
        """Yield what of a value is warned of or refused, in words."""
        if self.find:
            yield from self.find(value, options)
        elif self.effect != LOWERED:
            yield ""


def settings(component: graph.Component) -> Mapping[str, Any]:
    """Return the document of a component's task."""
    return component.platforms.get(kubernetes_document.PLATFORM, {})


def seconds(document: Mapping[str, Any]) -> float | None:
    """Return how long an attempt of a task may take; None: any time."""
    value = document.get("activeDeadlineSeconds")
    return float(value) if value else None


def folders(document: Mapping[str, Any]) -> list[str]:
    """Return the paths where a task expects an empty folder."""
    mounts = [*document.get("emptyDirMounts", ()), *document.get("genericEphemeralVolume", ())]
    return sorted({str(mount["mountPath"]) for mount in mounts if mount.get("mountPath")})


def shared_memory(document: Mapping[str, Any]) -> str:
    """Return the size of a task's shared memory as Azure writes it; empty: Azure's own."""
    size = str(document.get("enabledSharedMemory", {}).get("size", ""))
    return size.replace("i", "").lower()


def tags(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels and annotations of a task."""
    metadata = document.get("podMetadata", {})
    found = {**metadata.get("annotations", {}), **metadata.get("labels", {})}
    return {str(name): str(value) for name, value in sorted(found.items())}


def variables(document: Mapping[str, Any], options: Options) -> dict[str, str]:
    """Return the environment variables that come from the ConfigMaps of the options."""
    found: dict[str, str] = {}
    for entry in document.get("configMapAsEnv", ()):
        known = options.config_maps.get(_name(entry, "configMap") or "", {})
        for pair in entry.get("keyToEnv", ()):
            if pair.get("configMapKey") in known:
                found[pair["envVar"]] = known[pair["configMapKey"]]
    return found


def _name(entry: Mapping[str, Any], kind: str) -> str | None:
    """Return the name of a Secret or ConfigMap; None where only a run knows it."""
    if entry.get(f"{kind}Name"):
        return str(entry[f"{kind}Name"])
    constant = entry.get(f"{kind}NameParameter", {}).get("runtimeValue", {}).get("constant")
    return str(constant) if constant else None


def _secrets(value: Any, options: Options) -> Iterator[str]:
    for entry in value:
        if not entry.get("optional"):
            keys = [str(pair.get("secretKey")) for pair in entry.get("keyToEnv", ())]
            name = _name(entry, "secret") or "that only a run knows"
            yield f"Secret {name}" + (f", keys {', '.join(keys)}" if keys else "")


def _config_maps(value: Any, options: Options) -> Iterator[str]:
    for entry in value:
        name = _name(entry, "configMap")
        known = options.config_maps.get(name or "", {})
        keys = [str(pair.get("configMapKey")) for pair in entry.get("keyToEnv", ())]
        if not entry.get("optional") and (missing := [key for key in keys if key not in known]):
            yield f"ConfigMap {name or 'that only a run knows'}, keys {', '.join(missing)}"


def _config_map_files(value: Any, options: Options) -> Iterator[str]:
    for entry in value:
        if not entry.get("optional"):
            yield f"ConfigMap {_name(entry, 'configMap') or 'that only a run knows'}"


FIELDS = (
    Field(
        "activeDeadlineSeconds",
        LOWERED,
        "the step ends an attempt that takes longer; Azure's `limits` end the step, ten minutes later",
    ),
    Field("enabledSharedMemory", LOWERED, "`shm_size` of the step"),
    Field("imagePullPolicy", LOWERED, "Azure fetches an image once for each digest or tag"),
    Field("podMetadata", WARNED, "labels and annotations become tags of the step, which nothing on the machine sees"),
    Field("emptyDirMounts", WARNED, "an empty folder of the step's machine; medium and size mean nothing"),
    Field("genericEphemeralVolume", WARNED, "an empty folder of the step's machine; size and class mean nothing"),
    Field("securityContext", WARNED, "the step runs as the image's user"),
    Field("imagePullSecret", WARNED, "the workspace's own connection to the registry is used"),
    Field("nodeSelector", WARNED, _PLACED),
    Field("nodeAffinity", WARNED, _PLACED),
    Field("podAffinity", WARNED, _PLACED),
    Field("tolerations", WARNED, _PLACED),
    Field("configMapAsEnv", OPTION, "give keys and values as `config_maps` in the options", _config_maps),
    Field("configMapAsVolume", REFUSED, "there are no mounts; pass the data as an artifact", _config_map_files),
    Field("secretAsEnv", REFUSED, "no secret is put into a job; read it from a Key Vault in the task", _secrets),
    Field("secretAsVolume", REFUSED, "no secret is put into a job; read it from a Key Vault in the task", _secrets),
    Field("fieldPathAsEnv", REFUSED, "a step has no pod; give the value as a parameter"),
    Field("pvcMount", REFUSED, "steps share no volume; pass the data as an artifact"),
    Field("podResourceClaims", REFUSED, "devices come with machines; ask for an accelerator"),
    Field("initContainers", REFUSED, "what they prepare or serve would be missing; make them tasks"),
)

PIPELINE_FIELDS = (
    Field("workspace", REFUSED, "steps share no folder; pass the data as artifacts"),
    Field("activeDeadlineSeconds", WARNED, "a pipeline job has no deadline; it is not ended"),
    Field("resourceTtlOnCompletion", WARNED, "a run stays until you remove it"),
    Field("resourceTtlOnSuccess", WARNED, "a run stays until you remove it"),
    Field("resourceTtlOnFailure", WARNED, "a run stays until you remove it"),
)
