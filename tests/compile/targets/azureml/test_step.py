"""A step takes what Azure gives it as it is, and leaves what those after it read."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from penstock.compile import graph
from penstock.compile.targets.azureml import convert, emit, rehearsal, step

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
VALUES = {
    graph.Type.STRING: st.text(),
    graph.Type.INTEGER: st.integers(-(2**53) + 1, 2**53 - 1),
    graph.Type.DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
    graph.Type.BOOLEAN: st.booleans(),
    graph.Type.LIST: st.lists(JSON, max_size=3),
    graph.Type.STRUCT: st.dictionaries(st.text(), JSON, max_size=3),
}


@settings(deadline=None)
@given(data=st.data(), kind=st.sampled_from(list(VALUES)))
def test_a_parameter_comes_back_as_it_was_given(data, kind):
    value = data.draw(VALUES[kind] | st.none())
    plain = {graph.Type.INTEGER: "integer", graph.Type.DOUBLE: "number", graph.Type.BOOLEAN: "boolean"}
    azure = "string" if value is None else plain.get(kind, "string")
    text = emit.encoded(value, kind, azure)
    # As Azure writes values into commands, from YAML.
    text = str(yaml.safe_load(yaml.safe_dump(text)))
    assert "${{" not in text
    assert "\n" not in text
    came = step.parameter_value(text, kind.value)
    assert came == value
    assert type(came) is type(value)


def test_lines_of_the_command_are_taken_apart():
    text = "@@control@@/mnt/out\n@@p0@@several\nlines @@p1@@ in\n\n@@p1@@\n@@c0@@/mnt/a b\n"
    assert step.read_literals(text) == {
        "control": "/mnt/out",
        "p0": "several\nlines @@p1@@ in\n",
        "p1": "",
        "c0": "/mnt/a b",
    }
    assert step.read_literals("") == {}


def test_text_that_a_shell_would_carry_out_is_text(compiled, converted, tmp_path):
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def say(value: str) -> str:
        return value

    @dsl.pipeline(name="p")
    def pipeline(value: str = "x") -> str:
        return say(value=value).output

    evil = f"'\"; touch {tmp_path}/owned; `touch {tmp_path}/owned` $(touch {tmp_path}/owned) $HOME \\\nPENSTOCK\n"
    done = converted(pipeline, {"value": evil})
    convert.write(done, tmp_path / "job")
    record = rehearsal.run(tmp_path / "job" / "job.yml", root=tmp_path, jobs=2)
    assert record.outputs == {"Output": evil}
    assert not (tmp_path / "owned").exists()


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def write(text: str, data: Output[Dataset], model: Output[Dataset]):
    from pathlib import Path

    Path(data.path).mkdir()
    Path(data.path, "part").write_text(text)
    Path(model.path).write_text(text)
    Path(model.path + ".index").write_text("beside")
    data.metadata["rows"] = 3


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def read(data: Input[Dataset], model: Input[Dataset]) -> str:
    from pathlib import Path

    return f"{Path(data.path, 'part').read_text()} {Path(model.path + '.index').read_text()} {data.metadata['rows']}"


def test_outputs_lie_where_those_after_it_look(converted, tmp_path):
    @dsl.pipeline(name="p")
    def pipeline() -> str:
        written = write(text="a")
        return read(data=written.outputs["data"], model=written.outputs["model"]).output

    convert.write(converted(pipeline), tmp_path / "job")
    record = rehearsal.run(tmp_path / "job" / "job.yml", root=tmp_path, jobs=2)
    assert record.outputs == {"Output": "a beside 3"}
    outputs = Path(record.folder) / "steps" / "write" / "outputs"
    assert sorted(path.relative_to(outputs).as_posix() for path in outputs.rglob("*") if path.is_file()) == [
        "control/penstock-task.json",
        "o0/data/part",
        "o0/penstock-artifact.json",
        "o1/model",
        "o1/model.index",
        "o1/penstock-artifact.json",
    ]
    assert json.loads((outputs / "o0" / "penstock-artifact.json").read_text())["metadata"] == {"rows": 3}
    assert not list((Path(record.folder) / "steps" / "write" / "code").glob(".penstock-*"))


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_the_command_says_so_where_an_image_has_no_python(converted, shell, tmp_path):
    @dsl.pipeline(name="p")
    def pipeline():
        write(text="a")

    command = yaml.safe_load(converted(pipeline).files["components/write.yml"])["command"]
    path = subprocess.run(["which", shell], capture_output=True, text=True).stdout.strip()
    if not path:
        pytest.skip(f"{shell} is not here")
    done = subprocess.run([path, "-c", command], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (127, "penstock: the image has no python3\n")
