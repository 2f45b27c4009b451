"""What the tasks of random pipelines do, as a function, and as commands that do it in a process or in this one.

As a script it needs nothing but the standard library, so that it starts quickly.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.compile.targets.local.reference import Artifact, Work

TYPES = ("STRING", "NUMBER_INTEGER", "NUMBER_DOUBLE", "BOOLEAN", "LIST", "STRUCT")
SAMPLES: dict[str, list[Any]] = {
    "STRING": [
        "a", "b", "it's", "", "7", "[1, 2]", "ü\r\n", "{{$.inputs.parameters['p0']}}", '{"Concat": ["x"]}', "$(A)",
    ],
    "NUMBER_INTEGER": [0, 1, 2, -7, 2**53 - 1],
    "NUMBER_DOUBLE": [0.5, -1.25, 1e-7, 1e16 + 2, 3.0],
    "BOOLEAN": [True, False],
    "LIST": [[], [1, 2], [2, 0, 1]],
    "STRUCT": [{"a": 1, "b": [2.5, {"c": 3}]}, {"a": 0}, {}],
}  # fmt: skip


def work(
    program: Mapping[str, Any],
    parameters: Mapping[str, Any],
    artifacts: Mapping[str, Sequence[Artifact]],
    args: Sequence[str],
    env: Mapping[str, str],
    attempt: int,
) -> Work:
    """Return what a command leaves: values that depend on all that it is given."""
    if attempt < program["fails"]:
        return Work(exit_code=3)
    if program["breaks"]:
        return Work(exit_code=None)
    seen = {
        port: [[one.name, one.type, one.uri, one.metadata, one.content] for one in found]
        for port, found in artifacts.items()
    }
    given = [program["name"], {name: plain(value) for name, value in parameters.items()}, seen, args, env]
    digest = hashlib.sha256(json.dumps(given, sort_keys=True).encode()).digest()
    return Work(
        {port: SAMPLES[kind][digest[i] % len(SAMPLES[kind])] for i, (port, kind) in enumerate(program["parameters"])},
        {port: (digest.hex(), {"n": digest[31] % 3}) for port in program["artifacts"]},
    )


def plain(value: Any) -> Any:
    """Return a value without what only the engine knows of it: names of the run and messages of final statuses."""
    if isinstance(value, dict) and "pipelineTaskName" in value:
        error = {"error": True} if value.get("error") else {}
        return {"state": value["state"], "pipelineTaskName": value["pipelineTaskName"], **error}
    return value


def carry_out(command: Sequence[str], args: Sequence[str], env: Mapping[str, str], folder: Path, attempt: int) -> int:
    """Do what a command does, in its working folder RUN/tasks/PATH/work, and return its exit code."""
    run = f"{folder.parents[2]}/"
    program, given = json.loads(command[1]), json.loads(command[2])
    artifacts = {
        port: [
            Artifact(
                one["name"], one["type"]["schemaTitle"], one["uri"].removeprefix(run), one["metadata"],
                content(Path(one["uri"])),
            )
            for one in items["artifacts"]
        ]
        for port, items in given["inputs"]["artifacts"].items()
        if items["artifacts"]
    }  # fmt: skip
    own = {name: env[name] for name in program["env"]}
    seen = [arg.replace(run, "") for arg in args]
    done = work(program, given["inputs"]["parameterValues"], artifacts, seen, own, attempt)
    (folder / "scratch").write_text("x")
    if done.exit_code is None:
        break_something(program, given["outputs"])
        return 0
    for port, (text, _) in done.artifacts.items():
        path = Path(given["outputs"]["artifacts"][port]["artifacts"][0]["uri"])
        if program["folders"]:
            path.mkdir()
            path /= "part-0"
        path.write_text(text)
    said: dict[str, Any] = {"artifacts": {}}
    for port, (_, metadata) in done.artifacts.items():
        said["artifacts"][port] = {"artifacts": [{"name": port, "metadata": metadata}]}
    if program["files"]:
        for port, value in done.parameters.items():
            text = value if isinstance(value, str) else json.dumps(value)
            Path(given["outputs"]["parameters"][port]["outputFile"]).write_text(text, newline="")
    else:
        said["parameterValues"] = dict(done.parameters)
    Path(given["outputs"]["outputFile"]).write_text(json.dumps(said))
    return done.exit_code


def break_something(program: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
    """Write every output but for one, which is missing or wrong."""
    values = {port: SAMPLES[kind][0] for port, kind in program["parameters"]}
    wrong = {"nan": float("nan"), "big": 2**53, "null": None}
    bad = program["breaks"]
    if bad in wrong:
        values[next(iter(values))] = wrong[bad]
    Path(outputs["outputFile"]).write_text(json.dumps({"parameterValues": values}))
    for item in outputs["artifacts"].values():
        Path(item["artifacts"][0]["uri"]).write_text("" if bad == "empty" else "x")
    if bad == "unwritten":
        Path(outputs["outputFile"]).unlink()
    if bad == "garbage":
        Path(outputs["outputFile"]).write_text("{")


def content(path: Path) -> str:
    return (path / "part-0" if path.is_dir() else path).read_text()


def main() -> int:
    """Do what the command line says; how often that was tried before is counted in the folder ATTEMPTS."""
    tried = Path(os.environ["ATTEMPTS"], hashlib.sha256(os.fsencode(Path.cwd())).hexdigest())
    attempt = tried.stat().st_size if tried.exists() else 0
    with tried.open("a") as file:
        file.write(".")
    print("boom")
    return carry_out(sys.argv[:3], sys.argv[3:], os.environ, Path.cwd(), attempt)
