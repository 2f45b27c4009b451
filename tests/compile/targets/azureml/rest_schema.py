"""Holds payloads to Azure's REST schema, as the models say it that azure-ai-ml generates from the published TypeSpec.

The models themselves take anything: they are read here for names, types, enums, what is required and what only the
service sets. What they leave out of the published document, the patterns of texts, is a table.
"""

from __future__ import annotations

import enum
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

# By model and name on the wire; in the published document each is a required text of at least one character.
PATTERNS = {
    ("LiteralJobInput", "value"): r"[a-zA-Z0-9_]",
    ("UriFolderJobInput", "uri"): r"[a-zA-Z0-9_]",
    ("UriFileJobInput", "uri"): r"[a-zA-Z0-9_]",
    ("CronTrigger", "expression"): r"[a-zA-Z0-9_]",
}
# What azure-ai-ml itself makes of a request, against the document: the service takes it.
OF_THE_CLIENT = ("hash_version", "frequency")
_SCALARS = {str: str, int: int, bool: bool, float: (int, float)}


def problems(payload: Any, model: type, where: str = "") -> Iterator[str]:
    """Yield what a payload has that its model does not allow, with where it is."""
    if not isinstance(payload, Mapping):
        yield f"{where}: {payload!r} is no {model.__name__}"
        return
    model = yield from _concrete(payload, model, where)
    model.__new__(model)  # which resolves its fields
    fields = {field._rest_name: (name, field) for name, field in model._attr_to_rest_field.items()}
    kinds = _kinds(model)
    for key, value in payload.items():
        if key not in fields:
            yield f"{where}.{key}: {model.__name__} has no such field"
            continue
        name, field = fields[key]
        if field._visibility == ["read"] and value is not None:
            yield f"{where}.{key}: only the service sets it"
        elif value is not None and key not in OF_THE_CLIENT:
            yield from _value(value, kinds[name], f"{where}.{key}")
        if (pattern := PATTERNS.get((model.__name__, key))) and not re.search(pattern, str(value)):
            yield f"{where}.{key}: {value!r} does not match {pattern}"
    for key, (name, _) in fields.items():
        if _is_required(model, name) and payload.get(key) is None:
            yield f"{where}.{key}: is required"


def _concrete(payload: Mapping[str, Any], model: type, where: str) -> Any:
    """Return the model that the discriminator of a payload names."""
    mapping = getattr(model, "__mapping__", None)
    if not mapping:
        return model
    model.__new__(model)
    key = next(field._rest_name for field in model._attr_to_rest_field.values() if field._is_discriminator)
    found = mapping.get(payload.get(key))
    if found is None:
        yield f"{where}.{key}: {payload.get(key)!r} is none of {', '.join(map(str, mapping))}"
        return model
    return found


def _value(value: Any, kind: Any, where: str) -> Iterator[str]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is typing.Any:
        return
    if origin is typing.Literal:
        if value not in arguments:
            yield f"{where}: {value!r} is none of {', '.join(map(str, arguments))}"
    elif origin is typing.Union:
        choices = [each for each in arguments if each is not type(None)]
        enums = [each for each in choices if isinstance(each, type) and issubclass(each, enum.Enum)]
        if enums:
            known = [member.value for member in enums[0]]
            if value not in known:
                yield f"{where}: {value!r} is none of {', '.join(map(str, known))}"
        else:
            yield from _value(value, choices[0], where)
    elif origin is list:
        if not isinstance(value, list):
            yield f"{where}: {value!r} is no list"
            return
        for index, each in enumerate(value):
            yield from _value(each, arguments[0], f"{where}[{index}]")
    elif origin is dict:
        if not isinstance(value, Mapping):
            yield f"{where}: {value!r} is no object"
            return
        for key, each in value.items():
            if each is not None and key not in OF_THE_CLIENT:
                yield from _value(each, arguments[1], f"{where}.{key}")
    elif hasattr(kind, "_is_model"):
        yield from problems(value, kind, where)
    elif kind in _SCALARS and (not isinstance(value, _SCALARS[kind]) or (isinstance(value, bool) and kind is not bool)):
        yield f"{where}: {value!r} is no {kind.__name__}"


def _kinds(model: type) -> dict[str, Any]:
    """Return the types of a model's fields, its bases' among them."""
    from azure.ai.ml._restclient.arm_ml_service import models

    found: dict[str, Any] = {}
    for base in reversed(model.__mro__):
        for name, kind in getattr(base, "__annotations__", {}).items():
            found[name] = _resolved(kind, {"_models": models, "typing": typing, **vars(typing)})
    return found


def _resolved(kind: Any, names: dict[str, Any]) -> Any:
    if isinstance(kind, str):
        return _resolved(eval(kind, dict(names)), names)
    if isinstance(kind, typing.ForwardRef):
        return _resolved(kind.__forward_arg__, names)
    arguments = typing.get_args(kind)
    if not arguments or typing.get_origin(kind) is typing.Literal:
        return kind
    inner = tuple(_resolved(each, names) for each in arguments)
    origin = typing.get_origin(kind)
    return typing.Union[inner] if origin is typing.Union else origin[inner]  # noqa: UP007


def _is_required(model: type, name: str) -> bool:
    """Return whether a field has to be there, which the generated documentation of each says in one word."""
    for base in model.__mro__:
        found = re.search(rf":ivar {name}: (.*?)(?=:vartype)", base.__doc__ or "", re.DOTALL)
        if found:
            return bool(re.search(r"\bRequired\.", found[1]))
    return False
