"""Every kind of change is told once, where it is, in words, and breaking where it breaks callers."""

import itertools
import json

import pytest
from click.testing import CliRunner
from kfp import dsl, kubernetes
from kfp.compiler import Compiler

from penstock.compile import diff, from_kfp
from penstock.compile.cli import penstock
from penstock.compile.sharing import slim
from penstock.compile.to_kfp import compiled


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def make(rows: int, seed: int = 0) -> int:
    return rows + seed


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def use(value: int, label: str = "a") -> str:
    return f"{label}{value}"


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def clean():
    pass


def spec(function, name="p"):
    return compiled(dsl.pipeline(name=name)(function)).text


def changes(old, new):
    texts = [each if isinstance(each, str) else spec(each) for each in (old, new)]
    return diff.compare(*(from_kfp.parse(text) for text in texts))


def told(old, new):
    return [("! " if change.breaking else "") + str(change) for change in changes(old, new)]


def base(rows: int = 10, seed: int = 1) -> str:
    made = make(rows=rows, seed=seed)
    return use(value=made.output).output


def test_the_same_is_no_change_however_it_is_written(tmp_path):
    path = tmp_path / "kfp.yaml"
    Compiler().compile(dsl.pipeline(name="p")(base), str(path))
    assert told(path.read_text(), base) == []
    assert told(path.read_text(), slim(path.read_text())) == []


def test_inputs_added_and_removed():
    def more(rows: int = 10, seed: int = 1, label: str = "x") -> str:
        return use(value=make(rows=rows, seed=seed).output, label=label).output

    def needed(label: str, rows: int = 10, seed: int = 1) -> str:
        return use(value=make(rows=rows, seed=seed).output, label=label).output

    assert told(base, more) == [
        "input label: added (STRING, optional)",
        "use: input label comes from input label now, was not given",
    ]
    assert told(base, needed)[0] == "! input label: added (STRING, required)"
    assert told(more, base)[0] == "! input label: removed"
    assert told(more, needed) == ["! input label: is required now", 'input label: has no default now, was "x"']
    assert told(needed, more) == ['input label: default is "x", was null', "input label: is optional now"]


def test_a_renamed_input_is_told_as_that_and_its_consumers_are_not():
    def other(count: int = 10, seed: int = 1) -> str:
        return use(value=make(rows=count, seed=seed).output).output

    assert told(base, other) == ["! input count: renamed, was rows"]


def test_types_and_defaults_of_inputs():
    def other(rows: int = 11, seed: int = 1) -> str:
        return use(value=make(rows=rows, seed=seed).output).output

    assert told(base, other) == ["input rows: default is 11, was 10"]
    text = spec(base)
    retyped = text.replace("      seed:\n        defaultValue: 1.0", "      seed:\n        defaultValue: 1.0")
    before = json.loads(json.dumps(from_yaml(text)))
    after = json.loads(json.dumps(before))
    after["root"]["inputDefinitions"]["parameters"]["seed"]["parameterType"] = "NUMBER_DOUBLE"
    assert retyped
    assert "! input seed: is NUMBER_DOUBLE, was NUMBER_INTEGER" in told(json.dumps(before), json.dumps(after))


def from_yaml(text):
    import yaml

    return yaml.safe_load(text)


def test_outputs_removed_retyped_and_from_elsewhere():
    def without(rows: int = 10, seed: int = 1):
        use(value=make(rows=rows, seed=seed).output)

    def number(rows: int = 10, seed: int = 1) -> int:
        made = make(rows=rows, seed=seed)
        use(value=made.output)
        return made.output

    assert told(base, without) == ["! output Output: removed"]
    assert told(without, base) == ["output Output: added (STRING)"]
    assert told(base, number) == [
        "! output Output: is NUMBER_INTEGER, was STRING",
        "output Output: comes from make.Output, came from use.Output",
    ]


def test_tasks_added_removed_renamed_rewired_and_waiting():
    def other(rows: int = 10, seed: int = 1) -> str:
        made = make(rows=rows, seed=seed)
        again = make(rows=made.output, seed=5)
        clean().after(again)
        return use(value=again.output).output

    assert told(base, other) == [
        "make-2: added",
        "clean: added",
        "use: input value comes from make-2.Output, came from make.Output",
    ]
    assert told(other, base)[-2:] == ["make-2: removed", "clean: removed"]

    def waits(rows: int = 10, seed: int = 1) -> str:
        made = make(rows=rows, seed=seed)
        return use(value=rows).after(made).output

    assert told(base, waits) == [
        "use: input value comes from input rows, came from make.Output",
        "use: waits for make now",
    ]
    text = spec(base)
    renamed = from_yaml(text)
    tasks = renamed["root"]["dag"]["tasks"]
    tasks["create"] = tasks.pop("make")
    tasks["use"] |= json.loads(json.dumps(tasks["use"]).replace('"make"', '"create"'))
    assert told(text, json.dumps(renamed)) == ["create: renamed, was make"]


def nest(*conditions):
    def branches(rows: int = 10, seed: int = 1):
        made = make(rows=rows, seed=seed)
        for number, limit in enumerate(conditions):
            with dsl.If(made.output > limit):
                use(value=made.output, label=f"l{limit}").set_display_name(f"use {limit}")
                if number == 0:
                    clean()

    return branches


def loops(*each):
    def inside(rows: int = 10, seed: int = 1):
        for items in each:
            with dsl.ParallelFor(items) as item, dsl.If(item > 3):
                use(value=item, label=str(items))

    return inside


def test_one_condition_more_is_one_change_wherever_it_is_put():
    for at in range(3):
        limits = [5, 7]
        limits.insert(at, 99)
        found = told(loops([1], [2]), loops(*[[1], [2]][:at], [9, 8], *[[1], [2]][at:]))
        assert len(found) == 1, found
        assert "added: for each of [9, 8], with" in found[0]


def test_the_condition_of_a_scope_is_told_in_words():
    assert told(nest(5), nest(6)) == [
        "condition-1: runs if int(make.Output) > 6, ran if int(make.Output) > 5",
        "condition-1.use: is shown as 'use 6', was 'use 5'",
        'condition-1.use: input label is "l6", was "l5"',
    ]


def test_a_condition_put_around_a_task_moves_it():
    def guarded(rows: int = 10, seed: int = 1):
        made = make(rows=rows, seed=seed)
        with dsl.If(made.output > 5):
            use(value=made.output)

    def open_(rows: int = 10, seed: int = 1):
        use(value=make(rows=rows, seed=seed).output)

    assert told(open_, guarded) == [
        "condition-1: added: if int(make.Output) > 5, with use",
        "condition-1.use: moved into condition-1, was in the pipeline itself",
    ]


def test_loops_parallelism_retries_caching_and_exit_handlers():
    def before(rows: int = 10):
        with dsl.ParallelFor([1, 2], parallelism=2) as item:
            make(rows=item)
        use(value=rows)

    def after(rows: int = 10):
        with dsl.ParallelFor([1, 2, 3], parallelism=4) as item:
            make(rows=item)
        use(value=rows).set_retry(3, backoff_duration="5s").set_caching_options(False)

    assert told(before, after) == [
        "for-loop-2: loops over [1, 2, 3], looped over [1, 2]",
        "for-loop-2: runs 4 iterations at a time, ran 2",
        "use: is tried again 3 times after 5 s, was not tried again",
        "use: caching is off now",
    ]

    def handled(rows: int = 10):
        with dsl.ExitHandler(clean()):
            with dsl.ParallelFor([1, 2], parallelism=2) as item:
                make(rows=item)
            use(value=rows)

    found = told(before, handled)
    assert any(line.startswith("clean: added") for line in found)
    assert any(line.startswith("exit-handler-1: added: with") for line in found)


def edited(change, text=None):
    found = from_yaml(text or spec(base))
    change(found["deploymentSpec"]["executors"]["exec-use"]["container"])
    return json.dumps(found)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c.update(image="python:3.12"), "use: image python is 3.12, was 3.11"),
        (lambda c: c.update(image="mine/python:3.11"), "use: image is mine/python:3.11, was python:3.11"),
        (lambda c: c.update(env=[{"name": "A", "value": "1"}]), 'use: environment variable A = "1": added'),
        (
            lambda c: c.update(env=[{"name": "API_TOKEN", "value": "hunter2-canary"}]),
            "use: environment variable API_TOKEN = (not shown: it looks like a secret): added",
        ),
        (
            lambda c: c.update(
                resources={"resourceCpuLimit": "2", "accelerator": {"resourceType": "T4", "resourceCount": "1"}}
            ),
            "use: cpu limit is 2, was none",
        ),
        (lambda c: c["args"].append("--more"), "use: its command or arguments changed"),
    ],
)
def test_images_variables_resources_and_commands(change, expected):
    assert expected in told(spec(base), edited(change))


def test_no_secret_is_in_what_is_told():
    token = "ghp_" + "a1B2" * 10
    new = edited(lambda c: c.update(env=[{"name": "PASSWORD", "value": "canary-1"}], args=[*c["args"], token]))
    assert not [
        line for line in (repr(change) for change in changes(spec(base), new)) if "canary" in line or token in line
    ]


def test_source_of_a_function_is_shown_as_a_short_difference_once_for_all_tasks():
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def work(value: int) -> int:
        return value + 1

    def many(start: int = 0):
        for _ in range(6):
            work(value=start)

    old = spec(many)
    [change] = changes(old, old.replace("return value + 1", "return value + 2"))
    assert str(change) == "work, work-2, work-3 and 3 more: its source changed"
    assert "-    return value + 1\n" in change.detail
    assert "+    return value + 2" in change.detail
    longer = "\\n".join(["return value + 2", *[f"    # {i}" for i in range(99)]])
    [change] = changes(old, json.dumps(from_yaml(old)).replace("return value + 1", longer))
    assert len(change.detail.splitlines()) == 41
    assert change.detail.endswith("more lines")


def test_settings_of_platforms():
    def settled(rows: int = 10, seed: int = 1) -> str:
        made = make(rows=rows, seed=seed)
        kubernetes.use_secret_as_env(made, secret_name="store", secret_key_to_env={"key": "STORE"})
        return use(value=made.output).output

    found = told(base, settled)
    assert found
    assert all(line.startswith("make: kubernetes.secretAsEnv") and line.endswith("added") for line in found)


def test_name_and_versions():
    assert told(spec(base), spec(base, name="q")) == ["name is q, was p"]
    text = spec(base)
    version = from_yaml(text)["sdkVersion"]
    assert told(text, text.replace(version, "kfp-2.99.0")) == [f"SDK version is kfp-2.99.0, was {version}"]


# The command


@pytest.fixture
def call(tmp_path):
    def written(function, name):
        path = tmp_path / name
        path.write_text(function if isinstance(function, str) else spec(function))
        return str(path)

    def call(old, new, *options):
        paths = written(old, "old.yaml"), written(new, "new.yaml")
        return CliRunner().invoke(penstock, ["diff", *paths, *options])

    return call


def other(count: int = 10, seed: int = 1) -> str:
    return use(value=make(rows=count, seed=seed).output).output


def test_exit_codes_tell_breaking_changes_from_others(call):
    harmless = edited(lambda c: c.update(image="python:3.12"))
    assert [call(base, each).exit_code for each in (base, harmless, other)] == [0, 1, 3]
    assert [call(base, each, "--breaking").exit_code for each in (base, harmless, other)] == [0, 0, 3]
    assert call(base, "a: 1").exit_code == 2


def test_bytes_that_differ_alone_are_said_and_no_difference(call):
    same = call(base, json.dumps(from_yaml(spec(base))))
    assert same.exit_code == 0
    assert "the same in meaning; only the bytes differ" in same.output
    assert "the same\n" in call(base, base).output


def test_text_is_grouped_and_markdown_is_escaped(call):
    text = call(base, other).output.splitlines()
    assert text[0].endswith("new.yaml: 1 change, 1 breaking")
    assert text[2:] == ["Inputs and outputs", "  breaking  input count: renamed, was rows"]
    markdown = call(base, edited(lambda c: c.update(image="a_b/c*d:1"))).output
    assert "image is" in markdown
    markdown = call(base, edited(lambda c: c.update(image="a_b/c*d:1")), "--format", "markdown").output
    assert "### Components" in markdown
    assert r"- `use`: image is a\_b/c\*d:1, was python:3.11" in markdown


def test_json_has_all_of_a_change(call):
    found = json.loads(call(base, other, "--json").output)
    assert found["breaking"] == 1
    assert found["changes"] == [
        {
            "group": "inputs and outputs",
            "path": "input count",
            "sentence": "renamed, was rows",
            "breaking": True,
            "detail": "",
        }
    ]


@pytest.mark.corpus
def test_every_spec_of_others_is_the_same_as_itself_and_different_from_the_next(kfp_specs):
    paths = sorted((kfp_specs / "valid").rglob("*.yaml"))
    for path, following in itertools.pairwise(paths):
        pipeline, other = from_kfp.read(path), from_kfp.read(following)
        assert diff.compare(pipeline, pipeline) == [], path
        if pipeline.name != other.name:
            assert diff.compare(pipeline, other), path
