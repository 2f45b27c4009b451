"""Secrets that stand in a spec, where everybody who can read it or its logs can read them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from penstock.compile import commands, graph
from penstock.compile._checks.scopes import places
from penstock.compile.findings import Codes, Finding, Severity

CODES = Codes(
    (
        "secret",
        Severity.WARNING,
        "What looks like a secret stands in a parameter, a constant, a command or a variable.",
    ),
)

# Names that say so, unless the value is a reference or empty.
_NAME = re.compile(
    r"(?:^|[_-])(?:password|passwd|pwd|secret|token|credentials?|(?:api|access|private|secret|account|auth)[_-]?key)$",
    re.IGNORECASE,
)
_REFERENCE = re.compile(
    r"(?:env|file|secret|vault|keyvault|gs|s3|abfss|https?|projects?|sm)[:/]|.*\{\{\$|.*\$[({]|/|<.*>$|(?:true|false|none|null)$",
    re.IGNORECASE | re.DOTALL,
)
# Forms that issuers document: AWS, GitHub, Google, Slack, Hugging Face, PEM, JSON Web Tokens, Azure Storage; and URLs
# with a password.
_VALUES = (
    ("an AWS access key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("a GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})\b")),
    ("a Google API key", re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b")),
    ("a Slack token", re.compile(r"\bxox[abeoprs]-[0-9A-Za-z-]{10,}")),
    ("a Hugging Face token", re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")),
    ("a private key", re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")),
    ("a JSON Web Token", re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+")),
    ("an Azure account key", re.compile(r"\bAccountKey=[A-Za-z0-9+/=]{40,}")),
    ("a password in a URL", re.compile(r"\b[a-z][a-z0-9+.-]*://[^/\s:@{}$]+:[^/\s:@{}$]+@")),
)


def check(pipeline: graph.Pipeline) -> Iterator[Finding]:
    """Yield what looks like a secret; the value itself is in no finding."""
    for name, parameter in pipeline.inputs.parameters.items():
        yield from _looked_at("", f"the default of parameter {name}", name, parameter.default)
    seen: set[str] = set()
    for place in places(pipeline):
        for name, given in place.task.inputs.items():
            if isinstance(given.source, graph.Constant):
                yield from _looked_at(place.path, f"input {name}", name, given.source.value)
        component = place.task.component
        if component.name in seen or isinstance(component.body, graph.Dag):
            continue
        seen.add(component.name)
        for name, parameter in component.inputs.parameters.items():
            yield from _looked_at(place.path, f"the default of parameter {name}", name, parameter.default)
        if isinstance(component.body, graph.Container):
            for name, text in component.body.env.items():
                yield from _looked_at(place.path, f"environment variable {name}", name, text)
            for text in commands.without_source(component.body):
                yield from _looked_at(place.path, "its command", "", text)


def is_secret(name: str, value: Any) -> str:
    """Return what a value looks like, in words, where it looks like a secret; else nothing."""
    if isinstance(value, str):
        if what := _form(value):
            return what
        if _NAME.search(name) and len(value) > 3 and not _REFERENCE.match(value):
            return "a secret, by its name"
    elif isinstance(value, Mapping):
        return next((found for key, item in value.items() if (found := is_secret(str(key), item))), "")
    elif isinstance(value, list | tuple):
        return next((found for item in value if (found := is_secret(name, item))), "")
    return ""


@functools.lru_cache(maxsize=1024)  # tasks of one function have the same commands
def _form(text: str) -> str:
    return next((what for what, pattern in _VALUES if pattern.search(text)), "")


def _looked_at(path: str, where: str, name: str, value: Any) -> Iterator[Finding]:
    if what := is_secret(name, value):
        remedy = "take it out of the spec, and give the name of a secret, a file or a variable that holds it"
        yield CODES.finding("secret", path, f"{where} holds what looks like {what}", remedy)
