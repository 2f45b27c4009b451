"""Reads the three CI definitions as the commands that they run, and says of a command whether it exists."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import yaml

ROOT = Path(__file__).parents[2]
WORKSPACE = "/workspace"
# What the machines of the three bring.
ELSEWHERE = {"az", "docker", "gcloud"}


@dataclass(frozen=True)
class Step:
    """One command of a CI definition: its words, with substitutions resolved or as the shell gets them."""

    name: str
    words: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


def read(path: str) -> dict[Any, Any]:
    return yaml.safe_load((ROOT / path).read_text())


def resolved(text: str, values: dict[str, str]) -> str:
    """Put in substitutions as Cloud Build does: $NAME and ${NAME}, values that name others, $$ for a dollar."""
    parts = re.split(r"(\$\$|\$\{\w+\}|\$\w+)", text)
    for index in range(1, len(parts), 2):
        name = parts[index].strip("${}")
        parts[index] = resolved(values[name], values) if name else "$"
    return "".join(parts)


def cloudbuild(**given: str) -> list[Step]:
    """Return the steps of cloudbuild.yaml in an order in which each comes after those that it waits for."""
    definition = read("cloudbuild.yaml")
    values = {
        "PROJECT_ID": "project",
        "COMMIT_SHA": "0" * 40,
        "BRANCH_NAME": "main",
        **definition["substitutions"],
        **given,
    }
    steps = []
    for step in definition["steps"]:
        words = tuple(resolved(word, values) for word in (step["entrypoint"], *step["args"]))
        settings = [*definition["options"]["env"], *step.get("env", ())]
        steps.append(Step(step["id"], words, dict(resolved(text, values).split("=", 1) for text in settings)))
    return steps


def github() -> list[Step]:
    return [
        Step(f"{name}: {line}", words)
        for name, job in read(".github/workflows/ci.yml")["jobs"].items()
        for step in job["steps"]
        for line in step.get("run", "").splitlines()
        for words in commands(line)
    ]


def azure() -> list[Step]:
    return [
        Step(f"{stage['stage']}: {line}", words)
        for stage in read("azure-pipelines.yml")["stages"]
        for job in stage["jobs"]
        for step in job["steps"]
        for line in (step.get("bash") or step.get("inputs", {}).get("inlineScript", "")).splitlines()
        for words in commands(line)
    ]


def commands(line: str) -> Iterator[tuple[str, ...]]:
    """Yield the commands of a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set("|&;"):
            if words:
                yield tuple(words)
            words = []
        else:
            words.append(word)


def flaw(words: tuple[str, ...]) -> str | None:
    """Return why a command would fail for want of a target, a subcommand, an option or a file, or None."""
    program, *arguments = words
    program = program.removeprefix(f"{WORKSPACE}/")
    if program == "make":
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        unknown = set(arguments) - targets
        return f"the Makefile has no target {', '.join(sorted(unknown))}" if unknown else None
    if program == ".venv/bin/penstock":
        return _flaw_of_penstock(arguments)
    if program.startswith(".ci/"):
        script = ROOT / program
        return None if script.is_file() and script.stat().st_mode & 0o111 else f"{program} is no executable file"
    return None if program in ELSEWHERE else f"{program} is neither ours nor on the machines of CI"


def _flaw_of_penstock(arguments: list[str]) -> str | None:
    from penstock.compile.cli import penstock

    command: click.Command = penstock
    context = click.Context(command, info_name="penstock")
    while isinstance(command, click.Group):
        name = arguments.pop(0) if arguments else ""
        found = command.get_command(context, name)
        if found is None:
            return f"{context.command_path} has no command «{name}»"
        command = found
        context = click.Context(command, parent=context, info_name=name)
    try:
        command.make_parser(context).parse_args(arguments)
    except click.UsageError as error:
        return error.format_message()
    return None
