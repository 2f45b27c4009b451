"""What a task means: conditions, values, placeholders, outputs, processes."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.compile import launcher
from penstock.compile.launcher import Artifact, ArtifactPort, ConditionError, Parameter, Task, TaskError

DATASET = {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"}


def holds(text: str, **parameters) -> bool:
    return launcher.condition_holds(text, parameters)


# Conditions


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("int(inputs.parameter_values['x']) > 2", 3, True),
        ("double(int(inputs.parameter_values['x'])) > 0.5", 1, True),
        ("double(int(inputs.parameter_values['x'])) > 0.5", 0, False),
        ("inputs.parameter_values['x'] > 0.5", 1, True),
        ("0.5 <= inputs.parameter_values['x']", 0.25, False),
        ("int(inputs.parameter_values['x']) == 5", 5.0, True),
        ("inputs.parameter_values['x'] == 'heads'", "heads", True),
        ("inputs.parameter_values['x'] != 'heads'", "heads", False),
        ('inputs.parameter_values["x"] == "it\'s"', "it's", True),
        (r"inputs.parameter_values['x'] == 'it\'s'", "it's", True),
        (r"inputs.parameter_values['x'] == 'a\\b\n\x41\u00e9\101'", "a\\b\nAéA", True),
        ("inputs.parameter_values['x'] == 'say \"yes\"'", 'say "yes"', True),
        ("inputs.parameter_values['x'] == 'a && b'", "a && b", True),
        ("inputs.parameter_values['x'] == true", True, True),
        ("inputs.parameter_values['x'] == true", False, False),
        ("inputs.parameter_values['x'] == true", "true", False),
        ("inputs.parameter_values['x'] == 1", True, False),
        ("inputs.parameter_values['x'] != 1", "1", True),
        ("!(int(inputs.parameter_values['x']) > 2) && int(inputs.parameter_values['x']) > 0", 1, True),
        ("!(int(inputs.parameter_values['x']) > 2) && !(int(inputs.parameter_values['x']) > 0)", 1, False),
        ("inputs.parameter_values['x'] < -1.5e1", -16, True),
        ("inputs.parameter_values['x'] == 1e-05", 0.00001, True),
        ("inputs.parameter_values['x'] < 'b'", "a", True),
        ("int(inputs.parameter_values['x']) == 7", "7", True),
        ("inputs.parameter_values['x'] == 'x' || true", "y", True),
        ("inputs.parameter_values['x'] == ''", "", True),
    ],
)
def test_conditions_that_the_compiler_writes_are_evaluated(text, value, expected):
    assert holds(text, x=value) is expected


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("inputs.parameter_values['x'] == 'it's'", "character 38"),
        ("inputs.parameter_values['x'] ==", "its end"),
        ("inputs.parameter_values['x'] = 1", "'= 1'"),
        ("size(inputs.parameter_values['x']) > 1", "'size"),
        ("(inputs.parameter_values['x'] == 1", "its end"),
        ("inputs.parameter_values['x'] == nan", "'nan'"),
        (r"inputs.parameter_values['x'] == 'C:\dir'", r"C:\\dir"),
        ("1 < inputs.parameter_values['x'] < 3", "'< 3'"),
        ("", "its end"),
    ],
)
def test_a_condition_that_does_not_parse_says_where(text, near):
    with pytest.raises(ConditionError) as caught:
        launcher.parse_condition(text)
    assert "does not parse" in str(caught.value)
    assert near in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value", "message"),
    [
        ("inputs.parameter_values['y'] == 1", 1, "input y has no value"),
        ("inputs.parameter_values['x'] > 1", "2", "compares text with a number"),
        ("inputs.parameter_values['x'] > 0", True, "compares a boolean with a number"),
        ("int(inputs.parameter_values['x']) > 0", "many", "not a number"),
        ("double(inputs.parameter_values['x']) > 0", True, "a boolean is not a number"),
        ("inputs.parameter_values['x'] && true", 1, "needs a boolean, not 1"),
        ("inputs.parameter_values['x']", "yes", "needs a boolean, not 'yes'"),
        ("inputs.parameter_values['x'] < inputs.parameter_values['x']", {"a": 1}, "compares an object with an object"),
        ("inputs.parameter_values['x'] >= inputs.parameter_values['x']", [1], "compares a list with a list"),
    ],
)
def test_a_condition_over_values_it_cannot_take_is_an_error_not_false(text, value, message):
    with pytest.raises(ConditionError, match=message):
        holds(text, x=value)


@pytest.mark.parametrize("missing", ["inputs.parameter_values['y'] == 1", "inputs.parameter_values['x'] > 1"])
def test_what_decides_a_condition_does_so_whatever_the_rest_of_it_is(missing):
    assert holds(f"{missing} || inputs.parameter_values['x'] == 'a'", x="a")
    assert not holds(f"{missing} && inputs.parameter_values['x'] == 'b'", x="a")
    with pytest.raises(ConditionError, match=r"no value|compares text"):
        holds(f"{missing} && inputs.parameter_values['x'] == 'a'", x="a")


def test_the_inputs_of_a_condition_are_found():
    tree = launcher.parse_condition("!(inputs.parameter_values['a'] == 1) && int(inputs.parameter_values['b']) > 2")
    assert launcher.condition_inputs(tree) == {"a", "b"}


numbers = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))
operators = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])


@st.composite
def comparisons(draw) -> tuple[str, bool, dict]:
    """A conjunction as the compiler writes it, what Python makes of it, and the values it reads."""
    parts, truths, values = [], [], {}
    for index in range(draw(st.integers(1, 4))):
        operator, negate = draw(operators), draw(st.booleans())
        pair = draw(st.one_of(st.tuples(numbers, numbers), st.tuples(st.text(), st.text()), st.just((True, False))))
        left, right = draw(st.permutations(pair))
        values[f"v{index}"] = left
        shown = repr(right) if not isinstance(right, str | bool) else json.dumps(right, ensure_ascii=False)
        text = f"inputs.parameter_values['v{index}'] {operator} {shown}"
        truth = {
            "==": left == right,
            "!=": left != right,
            "<": left < right,
            "<=": left <= right,
            ">": left > right,
            ">=": left >= right,
        }[operator]
        parts.append(f"!({text})" if negate else text)
        truths.append(truth is not negate)
    return " && ".join(parts), all(truths), values


@settings(max_examples=300, deadline=None)
@given(comparisons())
def test_any_conjunction_evaluates_as_python_would(case):
    text, expected, values = case
    assert launcher.condition_holds(text, values) is expected


# Values


def test_selectors_pick_from_objects_and_from_json_text():
    assert launcher.select({"a": {"b": 2}}, 'parseJson(string_value)["a"]') == {"b": 2}
    assert launcher.select('{"a": [1, 2]}', 'parseJson(string_value)["a"]') == [1, 2]
    with pytest.raises(ValueError, match="has no 'c'"):
        launcher.select({"a": 1}, 'parseJson(string_value)["c"]')
    with pytest.raises(ValueError, match="does not parse"):
        launcher.select({"a": 1}, "string_value.a")


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (3.0, "NUMBER_INTEGER", 3),
        (3, "NUMBER_DOUBLE", 3.0),
        (2**53 - 1, "NUMBER_INTEGER", 2**53 - 1),
        ([1, 2.5], "LIST", [1, 2.5]),
        ({"a": [1]}, "STRUCT", {"a": [1]}),
        ("", "STRING", ""),
        (False, "BOOLEAN", False),
    ],
)
def test_values_take_the_type_of_their_port(value, kind, expected):
    found = launcher.check_value(value, kind)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (float("nan"), "NUMBER_DOUBLE", "not a finite number"),
        (float("-inf"), "NUMBER_DOUBLE", "not a finite number"),
        ([1.0, {"a": float("nan")}], "LIST", "not a finite number"),
        (2**53, "NUMBER_INTEGER", r"beyond 2\^53-1"),
        (2.0**60, "NUMBER_INTEGER", r"beyond 2\^53-1"),
        ({"ids": [2**53]}, "STRUCT", r"beyond 2\^53-1"),
        (True, "NUMBER_INTEGER", "expected an integer, got a boolean: True"),
        (1.5, "NUMBER_INTEGER", "expected an integer, got a number: 1.5"),
        ("1", "NUMBER_INTEGER", "expected an integer, got text: '1'"),
        (1, "BOOLEAN", "expected a boolean, got a number"),
        ({}, "LIST", "expected a list, got an object"),
        (None, "STRING", "expected text, got null"),
        (5, "STRING", "expected text, got a number"),
        ({1: "a"}, "STRUCT", "the key 1 is not text"),
    ],
)
def test_values_of_other_types_and_numbers_no_backend_holds_are_refused(value, kind, message):
    with pytest.raises(ValueError, match=message):
        launcher.check_value(value, kind)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-05, "0.00001"),
        (1e16, "10000000000000000"),
        (3.0, "3"),
        (0.5, "0.5"),
        (7, "7"),
        (True, "true"),
        ([1, "a"], '[1, "a"]'),
    ],
)
def test_numbers_go_on_a_command_line_as_on_kubeflow(value, text):
    assert launcher.to_text(value) == text


def test_inputs_of_text_take_any_value_as_text():
    task = Task("t", ["x"], input_parameters={"x": Parameter("STRING")})
    assert launcher.bind(task, {"x": {"a": 1}}) == {"x": '{"a": 1}'}


def test_defaults_fill_in_and_what_is_missing_is_named():
    task = Task(
        "t",
        ["x"],
        input_parameters={
            "a": Parameter("STRING", "z"),
            "b": Parameter("LIST", optional=True),
            "c": Parameter("STRUCT"),
        },
    )
    assert launcher.bind(task, {"c": {}, "a": None}) == {"a": "z", "c": {}}
    with pytest.raises(TaskError, match="t: input 'c': has no value"):
        launcher.bind(task, {})


def test_only_a_literal_is_taken_where_there_are_some():
    task = Task("t", ["x"], input_parameters={"mode": Parameter("STRING", literals=["fast", "slow"])})
    with pytest.raises(TaskError, match="'quick' is not one of 'fast', 'slow'"):
        launcher.bind(task, {"mode": "quick"})


# Placeholders


@pytest.fixture
def task() -> Task:
    return Task(
        "join",
        ["run"],
        input_parameters={
            "n": Parameter("NUMBER_INTEGER"),
            "conf": Parameter("STRUCT"),
            "text": Parameter("STRING", optional=True),
        },
        input_artifacts={"data": ArtifactPort(DATASET), "more": ArtifactPort(DATASET, is_list=True, optional=True)},
        output_parameters={"rows": Parameter("NUMBER_INTEGER"), "ratio": Parameter("NUMBER_DOUBLE")},
        output_artifacts={"model": ArtifactPort({"schemaTitle": "system.Model"}, metadata={"kind": "tree"})},
    )


@pytest.fixture
def given_input(task, tmp_path) -> dict:
    data = Artifact("data", DATASET, "/d/data", {"rows": 4, "by": "me"})
    values = launcher.bind(task, {"n": 5, "conf": {"deep": [1, {"k": "v"}]}})
    return launcher.executor_input(task, values, {"data": [data]}, tmp_path / "outputs")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n={{$.inputs.parameters['n']}}", "n=5"),
        ('{{$.inputs.parameters["n"]}}', "5"),
        ("{{$.inputs.parameters['conf']}}", '{"deep": [1, {"k": "v"}]}'),
        ("{{$.inputs.artifacts['data'].uri}}", "/d/data"),
        ("{{$.inputs.artifacts['data'].path}}/x", "/d/data/x"),
        ("{{$.inputs.artifacts['data'].metadata['rows']}}", "4"),
        ("{{$.inputs.artifacts['data'].metadata}}", '{"rows": 4, "by": "me"}'),
        ("{{$.outputs.artifacts['model'].path}}", "TMP/outputs/model"),
        ("{{$.outputs.artifacts['model'].metadata['kind']}}", "tree"),
        ("{{$.outputs.parameters['rows'].output_file}}", "TMP/outputs/rows"),
        ("{{$.outputs.output_file}}", "TMP/outputs/executor_output.json"),
        ("{{$.pipeline_job_name}}-{{$.pipeline_task_name}}", "run-1-join"),
        ("{\"n\": {{$.inputs.parameters['n']}}}", '{"n": 5}'),
        ("{{$.unknown}} {{x}} {{ $ }}", "{{$.unknown}} {{x}} {{ $ }}"),
    ],
)
def test_placeholders_become_what_they_name(text, expected, given_input, tmp_path):
    names = {"pipeline_job_name": "run-1", "pipeline_task_name": "join"}
    assert launcher.fill_text(text, given_input, names) == expected.replace("TMP", str(tmp_path))


def test_the_whole_executor_input_and_whole_artifacts_are_json(given_input):
    assert json.loads(launcher.fill_text("{{$}}", given_input, {})) == given_input
    assert json.loads(launcher.fill_text("{{$.inputs.artifacts['data']}}", given_input, {}))[0]["uri"] == "/d/data"


def test_what_a_placeholder_brings_in_is_not_looked_through_again(task, tmp_path):
    values = launcher.bind(task, {"n": 1, "conf": {}, "text": "{{$.inputs.parameters['n']}}"})
    given = launcher.executor_input(task, values, {"data": [Artifact("data", DATASET, "/d")]}, tmp_path / "o")
    assert launcher.fill_text("{{$.inputs.parameters['text']}}", given, {}) == "{{$.inputs.parameters['n']}}"


def test_a_placeholder_of_an_input_without_value_is_an_error(given_input):
    with pytest.raises(TaskError, match="refers to the input 'text', which has no value"):
        launcher.fill_text("{{$.inputs.parameters['text']}}", given_input, {})


def test_constants_are_filled_at_any_depth_and_keep_their_type():
    given = {"inputs": {"parameterValues": {"pipelinechannel--n": 5, "pipelinechannel--l": [1, 2]}}}
    constant = {
        "a": ["n is {{$.inputs.parameters['pipelinechannel--n']}}", "{{$.inputs.parameters['pipelinechannel--l']}}"]
    }
    assert launcher.fill(constant, given, {}) == {"a": ["n is 5", [1, 2]]}


def command(*elements: str, given: dict, task: Task, env: dict | None = None) -> list[str]:
    from dataclasses import replace

    return launcher.command_line(replace(task, command=elements, env=env or {}), given, {})[0]


def test_concat_joins_and_if_present_chooses(given_input, task):
    concat = json.dumps(
        {"Concat": ["--n=", "{{$.inputs.parameters['n']}}", {"IfPresent": {"InputName": "text", "Then": "t"}}]}
    )
    present = json.dumps({"IfPresent": {"InputName": "data", "Then": ["--data", "{{$.inputs.artifacts['data'].uri}}"]}})
    absent = json.dumps({"IfPresent": {"InputName": "text", "Then": "yes", "Else": ["--no", {"Concat": ["te", "xt"]}]}})
    nothing = json.dumps({"IfPresent": {"InputName": "text", "Then": "yes"}})
    line = command(
        "run", concat, present, absent, nothing, '{"Concat": broken', '{"a": 1}', given=given_input, task=task
    )
    assert line == ["run", "--n=5", "--data", "/d/data", "--no", "text", '{"Concat": broken', '{"a": 1}']


def test_variables_of_the_task_are_expanded_as_kubernetes_does(given_input, task):
    env = {"MODE": "fast-{{$.inputs.parameters['n']}}"}
    line = command("echo $(MODE) $$(MODE) $(OTHER) $(date) ${MODE}", given=given_input, task=task, env=env)
    assert line == ["echo fast-5 $(MODE) $(OTHER) $(date) ${MODE}"]


# Outputs


def shell(script: str, **ports) -> Task:
    return Task("step", ["sh", "-ec", script], **ports)


def run(task: Task, folder: Path, parameters: dict | None = None, artifacts: dict | None = None, **options):
    return launcher.run(task, parameters or {}, artifacts or {}, folder / "step", **options)


FILE = "{{$.outputs.parameters['x'].output_file}}"


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("STRING", " a\n", " a\n"),
        ("STRING", "a\r\nb\r", "a\r\nb\r"),
        ("NUMBER_INTEGER", "7\n", 7),
        ("NUMBER_DOUBLE", "1e-3", 0.001),
        ("NUMBER_DOUBLE", "3", 3.0),
        ("BOOLEAN", "True\n", True),
        ("LIST", "[1, 2.5]", [1, 2.5]),
        ("STRUCT", '{"a": 10}', {"a": 10}),
    ],
)
def test_output_files_are_read_by_type(kind, text, expected, tmp_path):
    task = Task("step", ["sh", "-ec", 'printf "%s" "$0" > "$1"', text, FILE], output_parameters={"x": Parameter(kind)})
    found = run(task, tmp_path).parameters["x"]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("NUMBER_INTEGER", "9007199254740993", r"step: output 'x': 9007199254740993 is beyond 2\^53-1"),
        ("NUMBER_INTEGER", "1.5", "expected an integer, got a number: 1.5"),
        ("NUMBER_INTEGER", "many", "expected an integer, got 'many'"),
        ("NUMBER_DOUBLE", "NaN", "step: output 'x': nan is not a finite number"),
        ("BOOLEAN", "yes", "expected true or false, got 'yes'"),
        ("LIST", '{"a": 1}', "expected a list, got an object"),
        ("STRUCT", "[Infinity]", "not a finite number"),
    ],
)
def test_output_files_that_do_not_fit_are_refused(kind, text, message, tmp_path):
    task = Task("step", ["sh", "-ec", 'printf "%s" "$0" > "$1"', text, FILE], output_parameters={"x": Parameter(kind)})
    with pytest.raises(TaskError, match=message):
        run(task, tmp_path)


def test_an_output_parameter_that_was_not_written_is_refused(tmp_path):
    with pytest.raises(TaskError, match="step: output 'x': is declared but was not written"):
        run(shell("true", output_parameters={"x": Parameter("STRING")}), tmp_path)


SAY = "cat > {{$.outputs.output_file}} <<'END'\n%s\nEND\n"


def test_the_executor_output_wins_over_files(tmp_path):
    said = json.dumps({"parameterValues": {"x": 2}})
    task = shell(f"echo 1 > {FILE}; {SAY % said}", output_parameters={"x": Parameter("NUMBER_INTEGER")})
    assert run(task, tmp_path).parameters == {"x": 2}
    assert list((tmp_path / "step" / "outputs").iterdir()) == []


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ('{"parameterValues": {"x": NaN}}', "step: output 'x': nan is not a finite number"),
        ('{"parameterValues": {"x": true}}', "step: output 'x': expected an integer, got a boolean"),
        ('{"parameterValues": {"x": 1, "y": 2}}', "step: output 'y': was written but is not declared; declared: x"),
        ('{"parameterValues": {"x": 1}, "artifacts": {"m": {}}}', "step: output 'm': was written but is not declared"),
        ("[]", "not an object"),
        ("{", "not JSON"),
    ],
)
def test_an_executor_output_that_does_not_fit_is_refused(said, message, tmp_path):
    with pytest.raises(TaskError, match=message):
        run(shell(SAY % said, output_parameters={"x": Parameter("NUMBER_INTEGER")}), tmp_path)


PATH = "{{$.outputs.artifacts['a'].path}}"


def artifact(title: str = "system.Dataset", **options) -> dict:
    return {"output_artifacts": {"a": ArtifactPort({"schemaTitle": title}, **options)}}


def test_artifacts_come_with_static_and_written_metadata(tmp_path):
    said = json.dumps({"artifacts": {"a": {"artifacts": [{"name": "a", "uri": "", "metadata": {"rows": 2}}]}}})
    found = run(shell(f"echo data > {PATH}; {SAY % said}", **artifact(metadata={"by": "me"})), tmp_path).artifacts["a"]
    assert found == Artifact(
        "a", {"schemaTitle": "system.Dataset"}, str(tmp_path / "step/outputs/a"), {"by": "me", "rows": 2}
    )
    assert Path(found.uri).read_text() == "data\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("true", "step: output 'a': is declared but nothing was written to its path"),
        (f": > {PATH}", "step: output 'a': is an empty file"),
        (f"mkdir {PATH}", "step: output 'a': is an empty folder"),
    ],
)
def test_artifacts_that_are_missing_or_empty_are_refused_and_leave_nothing(script, message, tmp_path):
    with pytest.raises(TaskError, match=message):
        run(shell(script, **artifact()), tmp_path)
    assert sorted(path.name for path in (tmp_path / "step").iterdir()) == ["log.txt"]


@pytest.mark.parametrize("title", launcher.METADATA_ONLY)
def test_metrics_may_be_metadata_alone(title, tmp_path):
    assert run(shell("true", **artifact(title)), tmp_path).artifacts["a"].metadata == {}


def test_metadata_that_no_backend_holds_is_refused(tmp_path):
    said = '{"artifacts": {"a": {"artifacts": [{"metadata": {"auc": NaN}}]}}}'
    with pytest.raises(TaskError, match="step: output 'a': metadata: nan is not a finite number"):
        run(shell(SAY % said, **artifact("system.Metrics")), tmp_path)


def test_an_artifact_at_a_custom_path_is_taken_from_there(tmp_path):
    custom = tmp_path / "elsewhere"
    said = json.dumps({"artifacts": {"a": {"artifacts": [{"custom_path": str(custom)}]}}})
    found = run(shell(f"mkdir {custom}; echo 1 > {custom}/part; {SAY % said}", **artifact()), tmp_path)
    assert (Path(found.artifacts["a"].uri) / "part").read_text() == "1\n"
    with pytest.raises(TaskError, match=r"its custom path .*elsewhere is not there"):
        run(shell(f"rm -r {custom}; {SAY % said}", **artifact()), tmp_path)


def test_an_artifact_that_lies_in_the_cloud_keeps_its_uri(tmp_path):
    said = json.dumps({"artifacts": {"a": {"artifacts": [{"uri": "gs://bucket/model"}]}}})
    assert run(shell(SAY % said, **artifact()), tmp_path).artifacts["a"].uri == "gs://bucket/model"


def test_a_missing_artifact_is_named_and_an_optional_one_left_out(tmp_path):
    task = shell("true", input_artifacts={"data": ArtifactPort(DATASET), "more": ArtifactPort(DATASET, optional=True)})
    with pytest.raises(TaskError, match="step: input 'data': has no artifact"):
        run(task, tmp_path)
    data = Artifact("data", DATASET, "/d")
    assert "more" not in launcher.executor_input(task, {}, {"data": [data]}, tmp_path)["inputs"]["artifacts"]
    with pytest.raises(TaskError, match="takes one artifact, was given 2"):
        run(task, tmp_path, artifacts={"data": [data, data]})


# Processes


def test_a_task_works_in_a_folder_of_its_own_with_its_own_variables_and_no_input(tmp_path, monkeypatch):
    monkeypatch.setenv("FROM_USER", "yes")
    script = "cat; pwd; echo $TMPDIR; echo $MODE; echo $FROM_USER; touch here; mktemp"
    run(Task("step", ["sh", "-ec", script], env={"MODE": "fast"}), tmp_path)
    folder, temporary, mode, user, made = (tmp_path / "step/log.txt").read_text().splitlines()
    assert (folder, mode, user) == (str(tmp_path / "step/work"), "fast", "yes")
    assert made.startswith(temporary + "/")
    assert sorted(path.name for path in (tmp_path / "step").iterdir()) == ["log.txt", "outputs"]


def test_a_long_path_still_has_room_for_sockets(tmp_path):
    program = (
        "import os, tempfile, multiprocessing as m; print(tempfile.gettempdir());"
        "m.Manager().shutdown(); open(tempfile.gettempdir() + '/x', 'w'); print(os.listdir('.'))"
    )
    folder = tmp_path / ("long" * 20)
    run(Task("step", [sys.executable, "-c", program]), folder)
    temporary, seen = (folder / "step/log.txt").read_text().splitlines()
    assert len(temporary) < 64
    assert "'x'" in seen
    assert not os.path.lexists(temporary)


def test_retries_start_afresh_and_stop_at_the_first_success(tmp_path):
    script = f"ls {PATH} && exit 9; echo x > {PATH}; echo >> {tmp_path}/tries; test $(wc -l < {tmp_path}/tries) -ge 3"
    task = shell(script, retries=3, wait=0.01, **artifact())
    assert Path(run(task, tmp_path).artifacts["a"].uri).read_text() == "x\n"
    assert "--- attempt 3 of 4" in (tmp_path / "step/log.txt").read_text()
    assert "--- attempt 4 of 4" not in (tmp_path / "step/log.txt").read_text()


def test_retries_wait_longer_each_time(tmp_path):
    begin = time.monotonic()
    with pytest.raises(TaskError, match="exit code 1"):
        run(shell("exit 1", retries=3, wait=0.1, factor=2.0, longest_wait=0.25), tmp_path)
    assert 0.1 + 0.2 + 0.25 <= time.monotonic() - begin < 60


@pytest.mark.parametrize(
    ("script", "message", "code"),
    [
        (
            "echo noise; echo 'error: ingest: source: is empty. Give rows.' >&2; exit 65",
            "ingest: source: is empty. Give rows.",
            65,
        ),
        ("echo 'error: not mine'; exit 3", "exit code 3: error: not mine", 3),
        ("exit 4", "exit code 4", 4),
        ("kill -9 $$", "killed by SIGKILL; the machine may be out of memory", -9),
    ],
)
def test_a_failed_command_is_reported_by_its_own_words(script, message, code, tmp_path):
    with pytest.raises(TaskError) as caught:
        run(shell(script), tmp_path)
    assert str(caught.value) == message
    assert caught.value.exit_code == code


def test_an_exception_is_reported_by_its_last_line(tmp_path):
    program = "try:\n  {}['a']\nexcept KeyError as e:\n  raise ValueError('bad value: 7') from e"
    with pytest.raises(TaskError, match=r"^ValueError: bad value: 7$"):
        run(Task("step", [sys.executable, "-c", program]), tmp_path)


def test_a_command_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TaskError, match="step: the command 'no-such-program' is not there"):
        run(Task("step", ["no-such-program"]), tmp_path)


def alive(marker: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if marker in line and state != "Z":
                found.append(line)
    return found


def gone(marker: str) -> bool:
    """Whether no process has the marker, given a moment: the kernel ends what was killed when it gets to it."""
    end = time.monotonic() + 30
    while alive(marker) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(marker)


def test_a_timeout_ends_the_whole_process_group(tmp_path):
    with pytest.raises(TaskError, match=r"step: timed out after 0\.3 s"):
        run(shell("sleep 61.23 & sleep 61.23", timeout=0.3), tmp_path)
    assert gone("sleep 61.23")


def test_what_a_command_leaves_running_ends_with_it(tmp_path):
    run(shell("sleep 62.34 & true"), tmp_path)
    assert gone("sleep 62.34")


def test_stopping_kills_what_ignores_the_signal_after_the_grace(tmp_path):
    stop = launcher.Stop(grace=0.3)
    threading.Timer(0.5, stop.request).start()
    begin = time.monotonic()
    with pytest.raises(launcher.Stopped):
        run(
            shell("trap '' TERM; echo 1 > " + PATH + "; while true; do sleep 0.05; done", **artifact()),
            tmp_path,
            stop=stop,
        )
    assert 0.7 < time.monotonic() - begin < 10
    assert not (tmp_path / "step/outputs").exists()


def test_a_wait_before_a_retry_can_be_stopped(tmp_path):
    stop = launcher.Stop()
    threading.Timer(0.3, stop.request).start()
    with pytest.raises(launcher.Stopped):
        run(shell("exit 1", retries=1, wait=600), tmp_path, stop=stop)


# The script


def test_the_file_is_alone_and_for_python_3_8():
    tree = ast.parse(Path(launcher.__file__).read_text(), feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


@pytest.fixture
def script(tmp_path) -> Path:
    copy = tmp_path / "shipped" / "kfp_launcher.py"
    copy.parent.mkdir()
    copy.write_bytes(Path(launcher.__file__).read_bytes())
    return copy


def job(tmp_path: Path, task: Task, **options) -> Path:
    from dataclasses import asdict

    made = launcher.Job(task, str(tmp_path / "step"), str(tmp_path / "result.json"), **options)
    (tmp_path / "job.json").write_text(json.dumps(asdict(made)))
    return tmp_path / "job.json"


def test_as_a_script_it_runs_a_job_and_writes_what_came_of_it(script, tmp_path):
    task = shell(f"echo hello; echo 3 > {FILE}", output_parameters={"x": Parameter("NUMBER_INTEGER")})
    done = subprocess.run([sys.executable, "-I", script, job(tmp_path, task)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")
    assert json.loads((tmp_path / "result.json").read_text()) == {
        "state": "SUCCEEDED",
        "parameters": {"x": 3},
        "artifacts": {},
    }


@pytest.mark.slow
def test_the_script_runs_on_the_oldest_python_it_may_meet(script, tmp_path):
    found = [*Path.home().glob(".pyenv/versions/3.8*/bin/python"), shutil.which("python3.8")]
    oldest = found[0]
    if oldest is None or subprocess.run([oldest, "-c", ""], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("there is no Python 3.8 here")
    task = shell(f"echo 3 > {FILE}", output_parameters={"x": Parameter("NUMBER_INTEGER")}, timeout=60)
    path = job(tmp_path, task, condition="double(int(inputs.parameter_values['n'])) > 0.5", parameters={"n": 1})
    subprocess.run([oldest, "-I", script, path], check=True)
    assert json.loads((tmp_path / "result.json").read_text())["parameters"] == {"x": 3}


def test_as_a_script_it_skips_by_its_condition_and_fails_with_the_commands_code(script, tmp_path):
    task = Task("step", ["sh", "-c", "exit 9"], input_parameters={"n": Parameter("NUMBER_INTEGER")})
    condition = "int(inputs.parameter_values['n']) > 2"
    path = job(tmp_path, task, parameters={"n": 1}, condition=condition)
    assert subprocess.run([sys.executable, script, path]).returncode == 0
    assert json.loads((tmp_path / "result.json").read_text())["state"] == "SKIPPED"
    path = job(tmp_path, task, parameters={"n": 3}, condition=condition)
    done = subprocess.run([sys.executable, script, path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (9, "error: exit code 9\n")


def test_as_a_script_it_hands_sigterm_on(script, tmp_path):
    process = subprocess.Popen(
        [sys.executable, script, job(tmp_path, shell("echo up; sleep 63.45"))], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    process.stdout.close()
    assert gone("sleep 63.45")
    assert os.path.exists(tmp_path / "result.json")
