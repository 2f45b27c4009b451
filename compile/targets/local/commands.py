"""What commands of KFP's components look like, where the engine has to know."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from penstock.compile import graph

_EXECUTOR = "kfp.dsl.executor_main"
_PROGRAM = "ephemeral_component.py"  # where a lightweight component's source goes
_PIP = re.compile(r"\bpip3?\s+install\b")
_OPERATOR = re.compile(r"[;&|()<>]+")
_OPTIONS_WITH_VALUE = {"--index-url", "-i", "--extra-index-url", "--trusted-host", "--find-links", "-f", "--target"}
_KFP = re.compile(r"kfp(?![\w.-])|.*(?:#egg=kfp\b|[&#]subdirectory=sdk/python)")
_OLD_PYTHON = re.compile(r"typing-extensions\b.*python_version\s*<\s*[\"']3\.9[\"']")


def installs(body: graph.Container) -> list[str]:
    """Return the packages that a command installs when it starts, without kfp, which is here already."""
    found: list[str] = []
    for element in without_source(body):
        found += [package for package in _installed(element) if not _KFP.match(package)]
    return list(dict.fromkeys(found))


def without_install(command: tuple[str, ...]) -> tuple[str, ...]:
    """Return a lightweight component's command without the first shell, which installs kfp and then calls the rest."""
    is_installer = len(command) > 3 and command[:2] == ("sh", "-c") and command[2].rstrip().endswith('"$0" "$@"')
    return command[3:] if is_installer and _PIP.search(command[2]) else command


def without_source(body: graph.Container) -> list[str]:
    """Return the elements of command and arguments that are not a lightweight component's source."""
    elements = [*body.command, *body.args]
    for index, element in enumerate(elements[:-1]):
        if _PROGRAM in element:
            return elements[: index + 1] + elements[index + 2 :]
    return elements


def is_containerized_python(body: graph.Container) -> bool:
    """Return whether a command runs a function that is in the image only."""
    elements = [*body.command, *body.args]
    return _EXECUTOR in elements and not any("--component_module_path" in element for element in elements)


def _installed(script: str) -> Iterator[str]:
    for line in script.splitlines():
        if not _PIP.search(line):
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.commenters = ""
        try:
            words = list(lexer)
        except ValueError:
            yield _PIP.split(line, maxsplit=1)[1].strip() or "packages"
            continue
        for start in range(len(words) - 1):
            if re.fullmatch(r"(.*/)?pip3?", words[start]) and words[start + 1] == "install":
                yield from _packages(words[start + 2 :])


def _packages(words: list[str]) -> Iterator[str]:
    skip = False
    for word in words:
        if _OPERATOR.fullmatch(word):
            return
        if skip:
            skip = False
        elif word.startswith("-") and word not in ("-r", "--requirement", "-e", "--editable"):
            skip = word in _OPTIONS_WITH_VALUE
        elif not word.startswith("-") and not _OLD_PYTHON.match(word):
            yield word
