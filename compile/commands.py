"""What commands of KFP's components look like, where the engine has to know."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

from penstock.compile import graph

# Stand for what the platform does by itself; nobody has such images.
VOLUME_IMAGES = ("argostub/createpvc", "argostub/deletepvc")

_EXECUTOR = "kfp.dsl.executor_main"
_PROGRAM = "ephemeral_component.py"  # where a lightweight component's source goes
_PIP = re.compile(r"\bpip3?\s+install\b")
_OPERATOR = re.compile(r"[;&|()<>]+")
_OPTIONS_WITH_VALUE = {
    "--index-url", "-i", "--extra-index-url", "--trusted-host", "--find-links", "-f", "--target", "-t", "--constraint",
    "-c", "--platform", "--python-version", "--prefix", "--root", "--src", "--timeout", "--retries", "--proxy",
    "--cert", "--client-cert", "--cache-dir", "--log", "--only-binary", "--no-binary", "--progress-bar",
    "--upgrade-strategy", "--config-settings", "-C", "--report",
}  # fmt: skip
_NAMES_PACKAGES = ("-r", "--requirement", "-e", "--editable")

# kfp and the packages that move with it, by name, from a repository, or as a file or folder of it.
_KFP = re.compile(
    r"""(?:kfp|kfp-pipeline-spec|kfp-server-api)(?![\w.-])
    | .*(?:\#egg=kfp\b|[&#]subdirectory=sdk/python\b)
    | (?:.*/)?kfp-\d[^/]*\.(?:whl|tar\.gz)(?:\#.*)?
    | .*/sdk/python/?$""",
    re.VERBOSE,
)
_OLD_PYTHON = re.compile(r"typing-extensions\b.*python_version\s*<\s*[\"']3\.9[\"']")

# What KFP writes around its calls of pip: the check for pip, and a virtual environment (use_venv=True).
_AROUND = re.compile(
    r"""if \s ! \s \[ \s -x \s "\$\(command \s -v \s pip\)" \s \]; \s then \s+
        python3 \s -m \s ensurepip \s [^\n]* \n fi \b
    | ^export \s PIP_DISABLE_PIP_VERSION_CHECK=1 $
    | ^tmp=\$\(mktemp \s -d\) $
    | ^python3 \s -m \s venv \s "\$tmp/venv" \s --system-site-packages $
    | ^\. \s "\$tmp/venv/bin/activate" $""",
    re.VERBOSE | re.MULTILINE,
)
_REST = ["$0", "$@"]


def start_installs(command: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return what a lightweight component has pip install when it starts, kfp and what moves with it left out.

    Returns:
        The arguments of each `pip install`, options and packages, in order; nothing where KFP's own installer is not
        there or installs kfp alone.
    """
    if not _is_installer(command):
        return ()
    left = (tuple(word for word in words if not _is_here(word)) for words in _installer(command[2]) or ())
    return tuple(words for words in left if next(_packages(words), None) is not None)


def own_installs(body: graph.Container) -> list[str]:
    """Return the packages that a command installs by itself when it starts, not through KFP's installer."""
    elements = without_source(body)
    own = elements[3:] if _is_installer(elements) else elements
    return list(dict.fromkeys(package for element in own for package in _installed(element)))


def packages(installs: Sequence[Sequence[str]]) -> list[str]:
    """Return the packages among the arguments of several `pip install`."""
    return list(dict.fromkeys(package for words in installs for package in _packages(words)))


def without_install(command: tuple[str, ...]) -> tuple[str, ...]:
    """Return a lightweight component's command without the first shell, which installs kfp and then calls the rest."""
    return command[3:] if _is_installer(command) else command


def without_source(body: graph.Container) -> list[str]:
    """Return the elements of command and arguments that are not a lightweight component's source."""
    elements = [*body.command, *body.args]
    for index, element in enumerate(elements[:-1]):
        if _PROGRAM in element:
            return elements[: index + 1] + elements[index + 2 :]
    return elements


def is_lightweight(body: graph.Container) -> bool:
    """Return whether a command brings a Python function's source along."""
    return any(_PROGRAM in element for element in body.command)


def is_containerized_python(body: graph.Container) -> bool:
    """Return whether a command runs a function that is in the image only."""
    elements = [*body.command, *body.args]
    return _EXECUTOR in elements and not any("--component_module_path" in element for element in elements)


def _is_installer(command: Sequence[str]) -> bool:
    return len(command) > 3 and tuple(command[:2]) == ("sh", "-c") and _installer(command[2]) is not None


def _is_here(word: str) -> bool:
    return bool(_KFP.match(word) or _OLD_PYTHON.match(word))


def _installer(script: str) -> list[list[str]] | None:
    """Return the arguments of each `pip install` of KFP's installer; None where a script is another, or does more."""
    words = _words(_AROUND.sub("", script))
    if words is None:
        return None
    steps: list[list[str]] = [[]]
    for word in words:
        if word == "&&":
            steps.append([])
        else:
            steps[-1].append(word)
    *calls, last = steps
    if last == [*_REST, ")"] and calls and calls[0][:1] == ["("]:  # KFP 1 wrote it so
        last, calls[0] = _REST, calls[0][1:]
    found = [_call(step) for step in calls]
    return [call for call in found if call is not None] if found and None not in found and last == _REST else None


def _call(words: list[str]) -> list[str] | None:
    """Return the arguments of one `pip install`, if that is what the words are and no more."""
    if words[:1] == ["("] and words[-1:] == [")"]:
        # KFP 1 tried the same again with --user.
        first = words[1 : words.index("||")] if "||" in words else words[1:-1]
        again = words[len(first) + 2 : -1]
        if again and again != [*first, "--user"]:
            return None
        words = first
    while words and re.fullmatch(r"PIP_\w+=\S*", words[0]):
        words = words[1:]
    for start in (["python3", "-m", "pip", "install"], ["pip", "install"], ["pip3", "install"]):
        if words[: len(start)] == start and not any(_OPERATOR.fullmatch(word) for word in words):
            return words[len(start) :]
    return None


def _installed(script: str) -> Iterator[str]:
    for line in script.splitlines():
        if not _PIP.search(line):
            continue
        words = _words(line)
        if words is None:
            yield _PIP.split(line, maxsplit=1)[1].strip() or "packages"
            continue
        for start in range(len(words) - 1):
            if re.fullmatch(r"(.*/)?pip3?", words[start]) and words[start + 1] == "install":
                yield from _packages(words[start + 2 :])


def _words(script: str) -> list[str] | None:
    """Return the words and operators of a shell script; None where its quotes are not closed."""
    lexer = shlex.shlex(script, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        return list(lexer)
    except ValueError:
        return None


def _packages(words: Sequence[str]) -> Iterator[str]:
    skip = False
    for word in words:
        if _OPERATOR.fullmatch(word):
            return
        if skip:
            skip = False
        elif word.startswith("-") and not word.startswith(_NAMES_PACKAGES):
            skip = word in _OPTIONS_WITH_VALUE
        elif word not in _NAMES_PACKAGES:
            yield word
