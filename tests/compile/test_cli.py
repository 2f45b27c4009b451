"""The command, as people and scripts use it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import uuid
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from penstock.compile._cli import outcome
from penstock.compile.cli import penstock

USER = Path(__file__).parent / "user"
STEPS = USER / "steps.py"
COMMAND = [sys.executable, "-m", "penstock.compile.cli"]
COMMANDS = [
    "list",
    "describe",
    "compile",
    "diff",
    "slim",
    "run",
    "sample",
    "docs",
    "submit",
    "cancel",
    "schedule",
    "schedules",
]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(penstock, [*map(str, arguments)], prog_name="penstock")


def started(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert re.search(rf"Examples?: penstock {command}", result.output)


def test_slim_writes_the_spec_and_says_what_it_came_to(tmp_path: Path) -> None:
    from kfp import compiler

    from tests.compile.test_sharing import several

    whole, slim = tmp_path / "whole.yaml", tmp_path / "slim.yaml"
    compiler.Compiler().compile(several, str(whole))
    result = call("slim", whole, "--output", slim)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr == f"{whole}: {whole.stat().st_size:,} bytes, slimmed to {slim.stat().st_size:,}\n"
    assert call("slim", slim).stdout == slim.read_text()
    assert call("slim", slim, "--output", tmp_path).exit_code == 2


def test_a_misspelled_command_is_guessed() -> None:
    for wrong, right in ((["rnu"], "run"), (["runs", "shwo"], "show")):
        result = call(*wrong)
        assert result.exit_code == 2
        assert f"No such command '{wrong[-1]}'. Did you mean {right}?" in result.stderr


def test_a_folder_that_is_named_like_a_spec_is_told_from_what_is_not_there(tmp_path: Path) -> None:
    for what, problem in ((tmp_path / "a.yaml", "is a folder"), (tmp_path / "b.yaml", "there is no such file")):
        (tmp_path / "a.yaml").mkdir(exist_ok=True)
        assert f"{what}: {problem}" in call("run", what).stderr


def test_lists_of_commands_cut_no_sentence_short() -> None:
    for group in ([], ["runs"], ["schedules"], ["images"], ["sample"]):
        shown = call(*group, "--help").output
        assert "..." not in shown.partition("Commands:")[2]


def test_help_imports_nothing_that_takes_time() -> None:
    heavy = ["kfp", "rich", "yaml", "google.protobuf", "penstock.components", "penstock.compile.launcher"]
    code = (
        "import sys; from penstock.compile.cli import penstock\n"
        "try: penstock(['--help'])\n"
        f"except SystemExit: print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.strip() == "[]"


def test_version_is_the_package_s() -> None:
    assert call("--version").output == f"penstock {version('penstock')}\n"


def test_list_names_every_component_and_pipeline() -> None:
    from penstock import components, pipelines

    result = call("list")
    for name in [*components.__all__, *pipelines.__all__]:
        assert re.search(rf"(?m)^{name} ", result.output)
    listed = json.loads(call("list", "--json").output)
    assert {(entry["kind"], entry["name"]) for entry in listed} >= {
        *(("component", name) for name in components.__all__),
        *(("pipeline", name) for name in pipelines.__all__),
    }
    assert all(entry["sentence"] and entry["package"] == "penstock" for entry in listed)


def test_describe_shows_ports_defaults_and_image() -> None:
    output = call("describe", "train").output
    assert re.search(r"(?m)^target +str +required +Column to predict\.", output)
    assert re.search(r'(?m)^framework +str +"xgboost"', output)
    assert f"image  penstock/tabular:{version('penstock')}" in output


def test_describe_says_the_same_of_a_name_a_function_and_a_spec(tmp_path: Path) -> None:
    by_name = json.loads(call("describe", "tabular-training", "--json").output)
    call("compile", "tabular_training", "--output", str(tmp_path))
    by_spec = json.loads(call("describe", str(tmp_path / "tabular_training.yaml"), "--json").output)
    assert by_name["package"] == "penstock"
    assert {port["name"]: port for port in by_spec["ports"]} == {port["name"]: port for port in by_name["ports"]}
    by_file = json.loads(call("describe", f"{STEPS}:count", "--json").output)
    assert [port["name"] for port in by_file["ports"]] == ["n", "seconds", "Output"]


def test_compile_prints_what_sha256sum_checks(tmp_path: Path) -> None:
    result = call("compile", "--all", "--output", str(tmp_path / "new" / "specs"))
    assert result.exit_code == 0
    assert len(result.output.splitlines()) >= 6
    subprocess.run(["sha256sum", "--check", "--quiet"], input=result.output, text=True, check=True)


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["compile"], 2, "say what to compile, by name or with --all"),
        (["compile", "train", "--all"], 2, "say what to compile, by name or with --all"),
        (["compile", "xyz"], 2, "error: there is no component or pipeline xyz; known: batch_scoring, "),
        (["compile", "trian"], 2, "did you mean train?"),
        (["compile", "nowhere.py:f"], 2, "error: nowhere.py: there is no such file"),
        (["compile", "nowhere.yaml"], 2, "error: nowhere.yaml: there is no such file"),
        (["compile", f"{STEPS}:count", f"{STEPS}:count"], 2, "two would be written to count.yaml"),
        (["compile", "train", "--output", "/proc/nowhere"], 2, "error: /proc/nowhere/train.yaml: cannot be written"),
        (["run", "/proc/self"], 2, "error: /proc/self: is a folder; name a file in it"),
        (["describe", "nowhere.yaml"], 2, "error: nowhere.yaml: there is no such file"),
        (["describe"], 2, "Missing argument"),
        (["run", f"{STEPS}:choosing", "-p", "n"], 2, "error: -p n: give it as name=value, for example -p seed=7"),
        (["run", f"{STEPS}:choosing", "-p", "=1"], 2, "give it as name=value"),
        (["run", f"{STEPS}:choosing", "-p", "n=1", "-p", "n=2"], 2, "error: -p n is given twice"),
        (["run", f"{STEPS}:choosing", "-p", "n=many"], 2, "error: parameter n: expected an integer, got 'many'"),
        (["run", f"{STEPS}:choosing", "-p", "nn=1"], 2, "has no parameter nn"),
        (["run", f"{STEPS}:choosing", "--params", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["run", f"{STEPS}:choosing", "--jobs", "0"], 2, "0 is not in the range x>=1"),
        (["run", f"{STEPS}:nothing"], 2, "has no nothing; its pipelines and components: "),
        (["run", f"{STEPS}:count"], 2, "needs n"),
        (["run", f"{STEPS}"], 2, "say which function"),
        (["sample", "taxis", "--rows", "1", "--output", "x"], 2, "did you mean taxi? known: taxi"),
        (["rnu"], 2, "No such command 'rnu'"),
    ],
)
def test_mistakes_are_told_without_a_traceback_and_leave_nothing(
    arguments: list[str], code: int, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert expected in " ".join(result.stderr.split())
    assert result.exit_code == code
    assert result.stdout == ""
    assert "Traceback" not in result.output
    assert list(tmp_path.rglob("*.yaml")) == []
    assert not (tmp_path / "penstock-out").exists()


def test_ctrl_c_is_told_as_shells_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("penstock.compile._cli.sources.find_source", pressed)
    result = call("describe", "train")
    assert (result.exit_code, result.stderr) == (130, "stopped by SIGINT\n")


def test_parameters_that_do_not_parse_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    for text, problem in (("a: [", "neither YAML nor JSON"), ("- 1", "expected names and values")):
        path.write_text(text)
        result = call("run", f"{STEPS}:choosing", "--params", str(path), "--root", str(tmp_path / "out"))
        assert result.exit_code == 2
        assert problem in result.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A run of `choosing` that goes the long way, without a terminal."""
    folder = tmp_path_factory.mktemp("run")
    done = subprocess.run(
        [*COMMAND, "run", f"{STEPS}:choosing", "-p", "n=2"], cwd=folder, capture_output=True, text=True, timeout=120
    )
    return done, folder


def test_run_ends_with_outputs_metrics_and_paths(finished: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, folder = finished
    assert done.returncode == 0, done.stderr
    assert re.search(r"(?m)^count +Output +3", done.stdout)
    assert re.search(r"(?m)^rate +why +so it is", done.stdout)
    assert re.search(r"(?m)^rate +score +0\.731235", done.stdout)
    assert re.search(r"(?m)^ +Output +3", done.stdout)
    report = re.search(r"(?m)^report +(\S+)$", done.stdout)
    assert report
    assert (folder / report[1]).is_file()
    assert report[1].startswith("penstock-out/runs/choosing-")
    assert not [line for line in done.stdout.splitlines() if line.endswith(" ")]


def test_what_is_an_output_and_a_metric_too_is_told_once() -> None:
    outputs = SimpleNamespace(parameters={"rows": 3, "auc": 0.5})
    task: Any = SimpleNamespace(outputs=outputs, metrics={"rows": 3.0, "auc": 0.25})
    assert list(outcome._rows(task, "measure")) == [
        ["measure", "rows", "3"],
        ["measure", "auc", "0.5"],
        ["measure", "auc", "0.25"],
    ]


def test_run_says_each_change_on_a_line_where_there_is_no_terminal(
    finished: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    lines = [line.split("s  ", 1)[1] for line in finished[0].stderr.splitlines()]
    kept = [re.sub(r" in [\d.]+ s$", "", line) for line in lines]
    assert kept == [
        "count: running",
        "count: succeeded",
        "rate: running",
        "rate: succeeded",
        "count-2: running",
        "count-2: succeeded",
    ]
    assert "\x1b" not in finished[0].stdout + finished[0].stderr


def test_run_ran_the_bytes_that_compile_writes(
    finished: tuple[subprocess.CompletedProcess[str], Path], tmp_path: Path
) -> None:
    call("compile", f"{STEPS}:choosing", "--output", str(tmp_path))
    (spec,) = (finished[1] / "penstock-out" / "runs").glob("*/spec.yaml")
    assert spec.read_bytes() == (tmp_path / "choosing.yaml").read_bytes()


def test_skipped_branch_says_why(tmp_path: Path) -> None:
    result = call("run", f"{STEPS}:choosing", "--root", str(tmp_path), "-p", "n=0")
    assert result.exit_code == 0
    assert "enough: skipped: not (rate-good == true)" in result.stderr
    assert result.stderr.count("skipped") == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            [],
            {
                "count: running", "count: succeeded", "count[0]: running", "count[0]: succeeded",
                "count[1]: running", "count[1]: succeeded", "rate: skipped: not (fast == false)",
            },
        ),
        (
            ["-p", "fast=false", "-p", "loops=[]"],
            {
                "count slowly: running", "count slowly: succeeded", "for-loop-1: succeeded", "rate: running",
                "rate: succeeded",
            },
        ),
    ],
)  # fmt: skip
def test_lines_tell_steps_and_no_groups_around_them_and_no_branch_that_another_was_taken_for(
    given: list[str], expected: set[str], tmp_path: Path
) -> None:
    result = call("run", f"{STEPS}:forking", "--root", str(tmp_path), *given)
    assert result.exit_code == 0, result.stderr
    lines = [line.split("s  ", 1)[1] for line in result.stderr.splitlines()]
    kept = [re.sub(r" in [\d.]+ s$", "", line) for line in lines]
    assert len(kept) == len(expected)
    assert set(kept) == expected


def test_json_is_the_content_of_run_json_and_nothing_else(tmp_path: Path) -> None:
    params = tmp_path / "params.json"
    params.write_text('{"n": 5, "names": ["x"]}')
    result = call("run", f"{STEPS}:choosing", "--root", str(tmp_path / "out"), "--params", str(params), "--json")
    record = json.loads(result.stdout)
    assert result.stderr == ""
    assert record == json.loads((Path(record["folder"]) / "run.json").read_text())
    assert (record["state"], record["parameters"]["n"]) == ("SUCCEEDED", 5)


def test_p_goes_before_the_file(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("n: 5\n")
    result = call("run", f"{STEPS}:choosing", "--root", tmp_path, "--params", params, "-p", "n=7", "--json")
    assert json.loads(result.stdout)["parameters"]["n"] == 7


def test_compiled_spec_runs_as_it_is(tmp_path: Path) -> None:
    call("compile", f"{STEPS}:choosing", "--output", str(tmp_path))
    result = call("run", str(tmp_path / "choosing.yaml"), "--root", str(tmp_path / "out"), "--json")
    assert json.loads(result.stdout)["state"] == "SUCCEEDED"


def test_failing_step_prints_its_own_message_and_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("run", f"{STEPS}:failing", "--root", "out")
    assert result.exit_code == 1
    *_, message, log, again = result.stderr.splitlines()
    assert message == "error: refuse: text: that is not wanted. Give another."
    assert re.fullmatch(r"to go on from here: penstock run --resume failing-\S+ --root out", again)
    assert re.fullmatch(r"  log: out/runs/failing-\S+/tasks/refuse/log\.txt", log)
    assert Path(log.split()[1]).is_file()
    assert "Traceback" not in result.output
    assert "failed in" in result.stdout


def test_a_failed_run_is_resumed_and_a_second_run_reuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failed = json.loads(call("run", f"{STEPS}:failing", "--root", "out", "--json").stdout)
    again = call("run", "--resume", failed["id"], "--root", "out", "--json")
    assert again.exit_code == 1
    assert len(json.loads(again.stdout)["resumed"]) == 1
    call("run", f"{STEPS}:choosing", "--root", "out")
    reused = call("run", f"{STEPS}:choosing", "--root", "out")
    assert ": reused in" in reused.stderr
    assert ": reused" not in call("run", f"{STEPS}:choosing", "--root", "out", "--no-cache").stderr


def test_a_resumed_run_takes_no_pipeline_and_no_parameters(tmp_path: Path) -> None:
    assert "keeps its parameters" in call("run", "--resume", "x", "-p", "n=1").stderr
    for wrong in (("run",), ("run", "choosing", "--resume", "x")):
        result = call(*wrong)
        assert result.exit_code == 2
        assert "say what to run, or which run to resume" in result.stderr
    result = call("run", "--resume", "x", "--root", tmp_path)
    assert (result.exit_code, "there is no run in" in result.stderr) == (2, True)


def test_failing_run_with_json_still_prints_the_record(tmp_path: Path) -> None:
    result = call("run", f"{STEPS}:failing", "--root", str(tmp_path), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["state"] == "FAILED"
    assert result.stderr.startswith("error: refuse: ")


def processes_with(mark: str) -> list[int]:
    """Return the processes whose environment holds a mark."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if mark.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signal_ends_the_run_and_every_child(number: signal.Signals, code: int, tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    process = started("run", f"{STEPS}:waiting", "--root", "out", "--jobs", "2", cwd=tmp_path, MARK=mark)
    assert process.stderr
    for _ in range(2):
        assert "running" in process.stderr.readline()
    deadline = time.monotonic() + 30
    while len(processes_with(mark)) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(processes_with(mark)) >= 3
    try:
        process.send_signal(number)
        process.send_signal(number)  # the impatient press twice
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == code
    assert f"stopped by {number.name}; see out/runs/waiting-" in errors
    assert "Traceback" not in errors
    while processes_with(mark) and time.monotonic() < deadline + 30:
        time.sleep(0.05)
    assert processes_with(mark) == []
    (record,) = (tmp_path / "out" / "runs").glob("*/run.json")
    run = json.loads(record.read_text())
    assert run["state"] == "CANCELLED"
    assert {task["state"] for task in run["tasks"]} == {"CANCELLED"}
    assert record.with_name("report.html").is_file()


def test_stopped_run_with_json_still_prints_the_record(tmp_path: Path) -> None:
    process = started("run", f"{STEPS}:waiting", "--root", "out", "--json", cwd=tmp_path)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("out/runs/*/tasks/count/log.txt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        process.terminate()
        written, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 143
    assert json.loads(written)["state"] == "CANCELLED"
    assert errors.startswith("stopped by SIGTERM; see out/runs/waiting-")


def on_a_terminal(arguments: list[str], cwd: Path, columns: int, **environment: str) -> tuple[int, str]:
    """Run the command on a terminal of its own; return the exit code and what it wrote."""
    main, other = pty.openpty()
    environment = {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "30", **environment}
    process = subprocess.Popen(
        [*COMMAND, *arguments], cwd=cwd, env={**os.environ, **environment}, stdin=other, stdout=other, stderr=other
    )
    os.close(other)
    written = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if select.select([main], [], [], 1)[0]:
                chunk = os.read(main, 65536)
                if not chunk:
                    break
                written += chunk
        except OSError:  # the other end is closed
            break
    os.close(main)
    return process.wait(timeout=30), written.decode()


def test_terminal_shows_steps_in_place(tmp_path: Path) -> None:
    arguments = ["run", f"{STEPS}:choosing", "--root", "out", "-p", "n=0", "-p", "seconds=0.5"]
    code, written = on_a_terminal(arguments, tmp_path, 100)
    assert code == 0, written
    assert "\x1b[1A" in written  # goes up to draw again
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    assert re.search(r"✓ count +\d\.\d s", plain)
    assert re.search(r"↷ enough +skipped: not \(rate-good == true\)", plain)
    assert re.search(r"succeeded in [\d.]+ s", plain)


def test_narrow_terminal_without_colour_loses_no_path(tmp_path: Path) -> None:
    code, written = on_a_terminal(["run", f"{STEPS}:choosing", "--root", "out"], tmp_path, 40, NO_COLOR="1")
    assert code == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", written)
    assert re.search(r"report  out/runs/choosing-[\w-]+/report\.html", written)


def test_dumb_terminal_gets_lines(tmp_path: Path) -> None:
    code, written = on_a_terminal(["run", f"{STEPS}:choosing", "--root", "out"], tmp_path, 80, TERM="dumb")
    assert code == 0
    assert "\x1b" not in written
    assert "count: succeeded in" in written


def test_reader_that_goes_away_ends_the_command_quietly(tmp_path: Path) -> None:
    process = started("describe", "tabular_training", cwd=tmp_path)
    assert process.stdout
    process.stdout.close()
    assert process.stderr
    assert "Traceback" not in process.stderr.read()
    process.wait(timeout=60)


def test_ascii_terminals_are_served(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "run", f"{STEPS}:choosing", "--root", "out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert done.stdout.isascii()


def test_sample_writes_the_same_files_again_and_keeps_off_what_is_there(tmp_path: Path) -> None:
    pytest.importorskip("penstock.components.ingestion.samples.taxi")
    first = call("sample", "taxi", "--rows", "50", "--output", tmp_path / "a", "--seed", "3")
    assert first.exit_code == 0, first.output
    second = call("sample", "taxi", "--rows", "50", "--output", tmp_path / "b", "--seed", "3")
    files = [Path(line) for line in first.stdout.splitlines()]
    again = [Path(line) for line in second.stdout.splitlines()]
    assert files
    assert [path.read_bytes() for path in files] == [path.read_bytes() for path in again]
    refused = call("sample", "taxi", "--rows", "50", "--output", tmp_path / "a")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "is not empty" in refused.stderr
    assert call("sample", "taxi", "--rows", "0", "--output", tmp_path / "c").exit_code == 2


def test_sample_help_says_that_the_data_are_made_up() -> None:
    assert "synthetic" in call("sample", "--help").output


def test_completion_offers_names_and_files(tmp_path: Path) -> None:
    done = subprocess.run(
        COMMAND,
        env={
            **os.environ,
            "_PENSTOCK_COMPLETE": "bash_complete",
            "COMP_WORDS": "penstock run ta",
            "COMP_CWORD": "2",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["plain,tabular_training", "file,ta"]


def test_warnings_are_one_line_each(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import warnings\nfrom kfp import dsl\n"
        "for _ in range(3): warnings.warn('mind the gap')\n"
        "@dsl.component(base_image='x', install_kfp_package=False)\ndef f(): pass\n"
    )
    done = subprocess.run(
        [*COMMAND, "compile", f"{path}:f", "--output", str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == "warning: mind the gap\n"
    assert yaml.safe_load((tmp_path / "f.yaml").read_text())["pipelineInfo"]["name"] == "f"
