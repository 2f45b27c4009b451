"""Components that run alone."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from kfp import dsl

from penstock.compile.errors import PenstockError
from penstock.testing import Artifact, ComponentFailed, run_component


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def count(
    words: dsl.Input[dsl.Dataset], least: int, lengths: dsl.Output[dsl.Dataset], metrics: dsl.Output[dsl.Metrics]
) -> NamedTuple("Counts", [("words", int), ("mean", float), ("longest", dict)]):
    with open(words.path) as file:
        found = [word for word in file.read().split() if len(word) >= least]
    if not found:
        raise ValueError(f"no word has {least} letters")
    with open(lengths.path, "w") as file:
        file.write(" ".join(str(len(word)) for word in found))
    lengths.metadata["words"] = len(found)
    metrics.log_metric("words", len(found))
    print("counted")
    longest = max(found, key=len)
    return len(found), sum(map(len, found)) / len(found), {longest: len(longest)}


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def add(lengths: dsl.Input[dsl.Dataset]) -> int:
    with open(lengths.path) as file:
        return sum(int(length) for length in file.read().split())


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def sleep(seconds: float):
    import time

    time.sleep(seconds)


@dsl.container_component
def shout(text: str, loud: dsl.OutputPath(str)):
    return dsl.ContainerSpec("python:3.11-slim", ["sh", "-c", 'mkdir -p "$(dirname "$1")"; printf %s "$0!" > "$1"'],
                             [text, loud])  # fmt: skip


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("a pen is a penstock")
    return path


def test_a_component_takes_artifacts_by_path_and_gives_typed_outputs(words, tmp_path):
    found = run_component(count, inputs={"words": words}, parameters={"least": 2}, root=tmp_path)
    assert found.parameters == {"words": 3, "mean": 13 / 3, "longest": {"penstock": 8}}
    assert type(found["words"]) is int
    lengths = found["lengths"]
    assert (lengths.path.read_text(), lengths.type, lengths.metadata) == ("3 2 8", "system.Dataset", {"words": 3})
    assert found.metrics == {"words": 3.0}
    assert "counted" in found.log
    assert found.folder.is_relative_to(tmp_path)
    assert (found.folder / "report.html").exists()


def test_what_one_gave_another_takes(words):
    lengths = run_component(count, inputs={"words": str(words)}, parameters={"least": 3})["lengths"]
    assert isinstance(lengths, Artifact)
    assert run_component(add, inputs={"lengths": lengths}).output == 11


def test_a_failure_is_raised_with_the_components_own_message(words):
    with pytest.raises(ComponentFailed, match="no word has 20 letters") as caught:
        run_component(count, inputs={"words": words}, parameters={"least": 20})
    assert caught.value.exit_code == 1
    assert "Traceback" in caught.value.log


def test_one_that_takes_too_long_is_ended():
    with pytest.raises(ComponentFailed, match=r"took too long: ended after 0\.3 s"):
        run_component(sleep, parameters={"seconds": 60.0}, timeout=0.3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inputs": {"words": "nowhere.txt"}, "parameters": {"least": 1}}, "nowhere.txt is not there"),
        ({"inputs": {"words": "WORDS"}}, "needs least"),
        ({"parameters": {"least": 1}}, "needs words"),
        ({"inputs": {"words": "WORDS"}, "parameters": {"least": "two"}}, "parameter least"),
        ({"inputs": {"words": "WORDS"}, "parameters": {"leest": 1}}, "did you mean least"),
        ({"inputs": {"words": "WORDS", "least": 1}}, "least is a parameter; give it in parameters="),
        ({"parameters": {"words": "WORDS", "least": 1}}, "words is an artifact; give its path in inputs="),
        ({"runner": "thread"}, "there is no runner thread; there are process, docker"),
    ],
)
def test_a_mistaken_call_says_what_is_wrong(words, settings, message):
    inputs = {name: words if value == "WORDS" else value for name, value in settings.pop("inputs", {}).items()}
    with pytest.raises(PenstockError, match=message):
        run_component(count, inputs=inputs, **settings)


def test_what_is_no_component_is_refused():
    with pytest.raises(PenstockError, match="is no component; decorate the function"):
        run_component(len)


def test_outputs_that_are_not_there_name_those_that_are(words):
    found = run_component(count, inputs={"words": words}, parameters={"least": 1})
    with pytest.raises(KeyError, match="there are longest, mean, words, lengths, metrics"):
        found["letters"]
    with pytest.raises(PenstockError, match="take one by its name"):
        found.output  # noqa: B018


def test_the_temporary_folder_goes_with_the_process(words):
    program = (
        "import sys; from pathlib import Path; from kfp import components; from penstock.testing import run_component\n"
        "found = run_component(components.load_component_from_file(sys.argv[1]), inputs={'words': sys.argv[2]},"
        " parameters={'least': 1})\n"
        "print(found.folder)"
    )
    from penstock.compile.to_kfp import compiled

    spec = words.with_name("count.yaml")
    compiled(count).write(spec)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program, spec, words], capture_output=True, text=True)
    folder = done.stdout.splitlines()[-1]
    assert "penstock-component-" in folder
    assert not Path(folder).exists()


@pytest.mark.slow
def test_our_own_components_run_alone_one_after_the_other():
    from penstock.components import ingest, train

    query = "SELECT fare_amount, trip_distance FROM source WHERE fare_amount > 0"
    data = run_component(ingest, parameters={"source": "sample://taxi?rows=500", "query": query})
    inputs = {name: data[name] for name in ("train_set", "eval_set")}
    fitted = run_component(train, inputs=inputs, parameters={"target": "fare_amount"})
    assert (fitted["model"].path / "MLmodel").is_file()
    assert fitted.metrics["eval_rmse"] > 0
    with pytest.raises(ComponentFailed, match="there is no column 'fair_amount'"):
        run_component(train, inputs=inputs, parameters={"target": "fair_amount"})


@pytest.mark.docker
def test_a_component_runs_in_its_image():
    assert run_component(shout, parameters={"text": "hey"}, runner="docker").output == "hey!"


def test_a_command_runs_in_a_process():
    assert run_component(shout, parameters={"text": "hey"}).output == "hey!"
