"""Whatever is killed, and when: what run.json lists is whole, and a resumed run ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

LINES = 12
ARTIFACT = {"artifactType": {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"}}

# Forks an engine for each line that it reads, so that none has to start Python first.
PROGRAM = """
import json, os, sys, traceback
from pathlib import Path
from penstock.compile.targets import local
from penstock.compile.targets.local import containers, environments, forkserver, lineage

last = 0
for line in sys.stdin:
    if last:
        os.waitpid(last, 0)
    job = json.loads(line)
    engine = os.fork()
    if not engine:
        code = 3
        try:
            options = {"root": Path(job["root"]), "jobs": job["jobs"], "runner": "subprocess"}
            if job["resume"]:
                record = local.resume(job["id"], **options)
            else:
                record = local.run(Path(job["spec"]), {}, run_id=job["id"], **options)
            code = 0 if record.state == "SUCCEEDED" else 1
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(code)
    print(engine, flush=True)
    # Its number stays its own until the next one is asked for: who kills it kills no one else.
    ended = os.waitid(os.P_PID, engine, os.WEXITED | os.WNOWAIT)
    print(ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status, flush=True)
    last = engine
"""


class Engines:
    """Engines in processes of their own, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.marks, self.spec = folder, folder / "marks", folder / "spec.json"
        self.marks.mkdir(parents=True)
        self.errors = (folder / "errors.txt").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, "MARKS": str(self.marks)},
        )

    def start(self, run_id: str, *, jobs: int = 6, resume: bool = False) -> int:
        """Start a run, or resume it, and return the engine's process."""
        job = {"spec": str(self.spec), "root": str(self.folder), "id": run_id, "jobs": jobs, "resume": resume}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def wait(self, run_id: str) -> int:
        """Return the engine's exit code, once nothing of the run is at work any more."""
        code = int(self.process.stdout.readline())
        assert code in (0, 1, -signal.SIGKILL), (self.errors.seek(0), self.errors.read())
        with contextlib.suppress(FileNotFoundError), (self.run(run_id) / "lock").open() as lock:
            end = time.monotonic() + 20
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    return code
                assert time.monotonic() < end, "something of the run is still at work"
                time.sleep(0.002)
        return code

    def run(self, run_id: str) -> Path:
        """Return the folder of a run."""
        return self.folder / "runs" / run_id

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(20)
        self.errors.close()


class Killer:
    """Kills, a while after it begins, every command that leaves its process number in a folder of marks."""

    def __init__(self, marks: Path, seed: int, longest: float, chance: float = 1.0) -> None:
        self.marks, self.numbers, self.longest, self.chance = marks, random.Random(seed), longest, chance
        self.landed = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.work)

    def __enter__(self) -> Killer:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def work(self) -> None:
        seen: set[str] = set(os.listdir(self.marks))
        waiting: list[tuple[float, int]] = []
        while not self.over.wait(0.001):
            for name in set(os.listdir(self.marks)) - seen:
                seen.add(name)
                if self.numbers.random() < self.chance:
                    at = time.monotonic() + self.numbers.uniform(0, self.longest)
                    heapq.heappush(waiting, (at, int(name.rpartition(".")[2])))
            while waiting and waiting[0][0] < time.monotonic():
                self.kill(heapq.heappop(waiting)[1])

    def kill(self, number: int) -> None:
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{number}/cmdline").read_bytes()
            if str(self.marks.parent).encode() in line:  # else its number has gone to another process
                os.killpg(number, signal.SIGKILL)
                self.landed += 1


def pipeline(tasks: dict[str, Any], components: dict[str, Any], scripts: dict[str, list[str]], **root: Any) -> str:
    for name, (script, *arguments) in scripts.items():
        components[name]["executorLabel"] = name
        scripts[name] = ["sh", "-ec", script, *arguments]
    spec = {
        "pipelineInfo": {"name": "faults"},
        "schemaVersion": "2.1.0",
        "root": {"dag": {"tasks": tasks, **root.pop("dag", {})}, **root},
        "components": components,
        "deploymentSpec": {
            "executors": {name: {"container": {"image": "none", "command": line}} for name, line in scripts.items()}
        },
    }
    return json.dumps(spec)


# Outputs are whole


WRITE = """
: > "$MARKS/$0.$$"
i=0
mkdir "$2"
while [ $i -lt 12 ]; do
    echo "line $i of $0, which is long enough to show where it was cut" >> "$1"
    echo "part $i of $0" > "$2/$i"
    sleep 0.002
    i=$((i + 1))
done
"""


def writers(count: int) -> str:
    """Return a pipeline of tasks that write a file and a folder bit by bit."""
    outputs = {"artifacts": {"file": ARTIFACT, "folder": ARTIFACT}}
    paths = ["{{$.outputs.artifacts['file'].path}}", "{{$.outputs.artifacts['folder'].path}}"]
    item = {"inputDefinitions": {"parameters": {"item": {"parameterType": "STRING"}}}}
    components: dict[str, Any] = {
        "write": {**item, "outputDefinitions": outputs},
        "loop": {
            **item,
            "dag": {
                "tasks": {
                    "write": {
                        "componentRef": {"name": "write"},
                        "inputs": {"parameters": {"item": {"componentInputParameter": "item"}}},
                    }
                }
            },
        },
    }
    items = json.dumps([f"i{index}" for index in range(count)])
    loop = {"componentRef": {"name": "loop"}, "parameterIterator": {"itemInput": "item", "items": {"raw": items}}}
    scripts = {"write": [WRITE, "{{$.inputs.parameters['item']}}", *paths]}
    return pipeline({"loop": loop}, components, scripts)


def listed_outputs_are_whole(run: Path) -> Counter[str]:
    """Hold what run.json lists against what the tasks write; return how many ended in which state."""
    if not (run / "run.json").exists():  # the engine was killed before it had begun anything
        return Counter()
    tasks = [task for task in json.loads((run / "run.json").read_text())["tasks"] if task["path"].endswith(".write")]
    for task in tasks:
        artifacts = task["outputs"]["artifacts"]
        assert bool(artifacts) == (task["state"] == "SUCCEEDED"), task
        if artifacts:
            item = task["inputs"]["parameters"]["item"]
            written = (run / artifacts["file"][0]["uri"]).read_text().splitlines()
            assert written == [
                f"line {i} of {item}, which is long enough to show where it was cut" for i in range(LINES)
            ]
            parts = {path.name: path.read_text() for path in (run / artifacts["folder"][0]["uri"]).iterdir()}
            assert parts == {str(i): f"part {i} of {item}\n" for i in range(LINES)}
        elif task["state"] == "FAILED":
            assert "SIGKILL" in task["error"]
            assert not (run / "tasks" / task["path"] / "outputs").exists()
    return Counter(task["state"] for task in tasks)


@contextlib.contextmanager
def run_json_parses(run: Path) -> Iterator[None]:
    """Read run.json again and again meanwhile: there is never half of one."""
    over = threading.Event()
    problems: list[BaseException] = []

    def read() -> None:
        while not over.wait(0.003) and not problems:
            try:
                json.loads((run / "run.json").read_text())
            except FileNotFoundError:
                pass
            except BaseException as problem:
                problems.append(problem)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert problems == []


def kill_writers(folder: Path, seed: int, kills: int) -> Counter[str]:
    """Kill writing tasks, and two times of three the engine too, until there were so many kills."""
    numbers = random.Random(seed)
    engines = Engines(folder)
    states: Counter[str] = Counter()
    try:
        engines.spec.write_text(writers(24))
        landed = count = 0
        while landed < kills:
            run_id = f"r{count}"
            kill_engine = count % 3 > 0
            with contextlib.ExitStack() as stack:
                stack.enter_context(run_json_parses(engines.run(run_id)))
                killer = Killer(engines.marks, seed + count, 0.09, chance=0.3 if kill_engine else 1.0)
                stack.enter_context(killer)
                engine = engines.start(run_id)
                if kill_engine:
                    time.sleep(numbers.uniform(0, 0.4))
                    os.kill(engine, signal.SIGKILL)
                code = engines.wait(run_id)
                states[f"engine {code}"] += 1
            states += listed_outputs_are_whole(engines.run(run_id))
            landed += killer.landed + (code < 0)
            count += 1
        states["kills"] = landed
    finally:
        engines.close()
    return states


def test_what_run_json_lists_is_whole_after_kills(tmp_path):
    states = kill_writers(tmp_path / "one", 1, 30)
    assert states["FAILED"] > 5
    assert states["SUCCEEDED"] > 5
    assert states["engine -9"] > 0


@pytest.mark.slow
def test_what_run_json_lists_is_whole_after_500_kills(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda seed: kill_writers(tmp_path / str(seed), seed, 250), (100, 200)))
    states = found[0] + found[1]
    assert states["kills"] >= 500
    assert states["FAILED"] > 150
    assert states["engine -9"] > 20


# A resumed run ends as if nothing had happened


STEP = """
: > "$MARKS/$0.$$"
echo "$0" >> "$MARKS.begun"
sleep 0.03
printf '%s' "$0($2)" > "$1"
"""
JOIN = """
: > "$MARKS/$0.$$"
echo "$0" >> "$MARKS.begun"
sleep 0.02
out=$1
name=$0
shift
echo "$name of $#" > "$out"
for file in "$@"; do cat "$file" >> "$out"; done
"""


def steps() -> str:
    """Return a pipeline with a loop, an inner pipeline and a condition, of tasks that tell when they begin."""
    text = {"parameterType": "STRING"}
    gives = {"outputDefinitions": {"parameters": {"out": text}}}
    takes = {"inputDefinitions": {"parameters": {"value": text}}}
    out = "{{$.outputs.parameters['out'].output_file}}"
    value = "{{$.inputs.parameters['value']}}"

    def given(task: str, port: str = "out") -> dict[str, Any]:
        source = {"taskOutputParameter": {"producerTask": task, "outputParameterKey": port}}
        return {"inputs": {"parameters": {"value": source}}}

    outer = {"inputs": {"parameters": {"value": {"componentInputParameter": "value"}}}}

    def task(component: str, *more: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {"componentRef": {"name": component}}
        for one in more:
            found |= one
        return found

    def one(name: str) -> dict[str, Any]:
        return {"outputs": {"parameters": {"out": {"valueFromParameter": {
            "producerSubtask": name, "outputParameterKey": "out"}}}}}  # fmt: skip

    collected = {"outputDefinitions": {"parameters": {"out": {"parameterType": "LIST"}}}}
    components: dict[str, Any] = {
        "first": dict(gives),
        "step": {**takes, **gives},
        "again": {**takes, **gives},
        "data": {**takes, "outputDefinitions": {"artifacts": {"out": ARTIFACT}}},
        "last": {
            "inputDefinitions": {
                "parameters": {"value": {"parameterType": "LIST"}},
                "artifacts": {"data": ARTIFACT},
            },
            "outputDefinitions": {"artifacts": {"out": ARTIFACT}},
        },
        "loop": {**takes, **collected, "dag": {
            "tasks": {"step": task("step", outer), "again": task("again", given("step"))}, **one("again")}},
        "inner": {**takes, "outputDefinitions": {"artifacts": {"out": ARTIFACT}}, "dag": {
            "tasks": {"again": task("again", outer), "data": task("data", given("again"))},
            "outputs": {"artifacts": {"out": {"artifactSelectors": [
                {"producerSubtask": "data", "outputArtifactKey": "out"}]}}}}},
    }  # fmt: skip
    scripts = {
        "first": [STEP, "first", out, "x"],
        "step": [STEP, f"step-{value}", out, value],
        "again": [STEP, f"again-{value}", out, value],
        "data": [JOIN, "data", "{{$.outputs.artifacts['out'].path}}"],
        "last": [JOIN, "last", "{{$.outputs.artifacts['out'].path}}", "{{$.inputs.artifacts['data'].path}}"],
    }
    items = {"itemInput": "value", "items": {"raw": '["a", "b", "c", "d"]'}}
    condition = {"triggerPolicy": {"condition": "inputs.parameter_values['value'] != 'nothing'"}}
    data = {"taskOutputArtifact": {"producerTask": "inner", "outputArtifactKey": "out"}}
    last = given("loop")
    last["inputs"]["artifacts"] = {"data": data}
    tasks = {
        "first": task("first"),
        "loop": task("loop", {"parameterIterator": items, "dependentTasks": ["first"]}),
        "inner": task("inner", given("first"), condition),
        "last": task("last", last),
    }
    outputs = {
        "artifacts": {"out": {"artifactSelectors": [{"producerSubtask": "last", "outputArtifactKey": "out"}]}},
        "parameters": {"all": {"valueFromParameter": {"producerSubtask": "loop", "outputParameterKey": "out"}}},
    }
    definitions = {"artifacts": {"out": ARTIFACT}, "parameters": {"all": {"parameterType": "LIST"}}}
    return pipeline(tasks, components, scripts, dag={"outputs": outputs}, outputDefinitions=definitions)


def final_outputs(run: Path) -> tuple[str, dict[str, Any], str, list[tuple[str, str]]]:
    record = json.loads((run / "run.json").read_text())
    states = sorted((task["path"], task["state"]) for task in record["tasks"])
    written = (run / record["outputs"]["artifacts"]["out"][0]["uri"]).read_text()
    return record["state"], record["outputs"]["parameters"], written, states


def begun(engines: Engines) -> Counter[str]:
    """Return how often each command has begun."""
    file = Path(f"{engines.marks}.begun")
    return Counter(file.read_text().splitlines() if file.exists() else [])


def kept(run: Path) -> set[str]:
    """Return the commands, by the name that they tell, of the tasks that have succeeded according to run.json."""
    if not (run / "run.json").exists():
        return set()
    found = set()
    for task in json.loads((run / "run.json").read_text())["tasks"]:
        if task["state"] == "SUCCEEDED" and task["kind"] == "container":
            name = task["path"].rpartition(".")[2]
            value = task["inputs"]["parameters"].get("value")
            found.add(f"{name}-{value}" if name in ("step", "again") else name)
    return found


def resume_until_it_succeeds(folder: Path, seed: int, cases: int) -> Counter[str]:
    """Kill tasks and engines at random moments, and resume each run until it succeeds; return what was met."""
    numbers = random.Random(seed)
    engines = Engines(folder)
    met: Counter[str] = Counter()
    try:
        engines.spec.write_text(steps())
        engines.start("undisturbed")
        assert engines.wait("undisturbed") == 0
        undisturbed = final_outputs(engines.run("undisturbed"))
        assert undisturbed[0] == "SUCCEEDED"
        for case in range(cases):
            run_id, resume = f"c{case}", False
            for attempt in range(20):
                last = attempt >= 4
                before, done = begun(engines), kept(engines.run(run_id))
                with Killer(engines.marks, seed + case + attempt, 0.05, 0.0 if last else 0.1) as killer:
                    engine = engines.start(run_id, jobs=numbers.choice([1, 2, 4]), resume=resume)
                    if not last and numbers.random() < 0.7:
                        time.sleep(numbers.uniform(0, 0.5))
                        os.kill(engine, signal.SIGKILL)
                    code = engines.wait(run_id)
                assert all(before[name] for name in done), f"{done} and {before} do not name alike"
                again = {name for name in done if begun(engines)[name] > before[name]}
                assert again == set(), f"{run_id}: what had succeeded was run again: {again}"
                met[f"code {code}"] += 1
                met["kills"] += killer.landed + (code < 0)
                met["kept"] += len(done)
                record = engines.run(run_id) / "run.json"
                if code == 0 or (record.exists() and json.loads(record.read_text())["state"] == "SUCCEEDED"):
                    break  # it may have been killed after its end was written
                resume = record.exists()
                if not resume:  # killed before it had begun anything: there is nothing to resume
                    run_id += "-"
            assert final_outputs(engines.run(run_id)) == undisturbed
    finally:
        engines.close()
    return met


def test_killed_runs_are_resumed_to_the_same_end_without_repeating_what_had_succeeded(tmp_path):
    met = resume_until_it_succeeds(tmp_path / "one", 3, 3)
    assert met["kills"] > 2
    assert met["kept"] > 5


@pytest.mark.slow
def test_many_killed_runs_are_resumed_to_the_same_end_without_repeating_what_had_succeeded(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda seed: resume_until_it_succeeds(tmp_path / str(seed), seed, 30), (100, 200)))
    met = found[0] + found[1]
    assert met["kills"] > 50
    assert met["code -9"] > 20
    assert met["kept"] > 200
