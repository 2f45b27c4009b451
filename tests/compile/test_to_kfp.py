"""The same source gives the same bytes anywhere, and every reader of specs takes them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp import compiler, components
from kfp.pipeline_spec import pipeline_spec_pb2

from penstock.compile import catalog
from penstock.compile.errors import PenstockError
from penstock.compile.sharing import share
from penstock.compile.to_kfp import compiled, load_function

USER = Path(__file__).parent / "user"
REPOSITORY = Path(__file__).parents[2]
ENTRIES = catalog.entries()


def compile_in_process(
    output: Path, *what: str, python: str = sys.executable, cwd: Path | None = None, **environment: str
) -> dict[str, bytes]:
    """Compile in a process of its own and return the bytes by file name."""
    subprocess.run(
        [python, "-m", "penstock.compile.cli", "compile", *what, "--output", str(output)],
        cwd=cwd,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        timeout=120,
    )
    return {path.name: path.read_bytes() for path in sorted(output.iterdir())}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedded")
    (folder / "code").mkdir()
    (folder / "code" / "tool.py").write_text("X = 1\n")
    (folder / "notes.txt").write_text("some notes\n")
    return folder


def test_bytes_are_the_same_over_seeds_zones_locales_and_folders(tmp_path: Path, embedded: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        shutil.copytree(USER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    copy = tmp_path / "copied"
    shutil.copytree(embedded, copy)
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
    (copy / "code" / "__pycache__").mkdir()
    (copy / "code" / "__pycache__" / "tool.cpython-313.pyc").write_bytes(b"byte-code")

    def everything(output: Path, user: Path, **environment: str) -> dict[str, bytes]:
        names = [entry.name for entry in ENTRIES]
        files = [f"{user}/features.py:features", f"{user}/features.py:with_platform", f"{user}/embedding.py:carrying"]
        return compile_in_process(output, *names, *files, cwd=user, **environment)

    first = everything(tmp_path / "a", here, PYTHONHASHSEED="1", TZ="UTC", LC_ALL="C.UTF-8", EMBEDDED=str(embedded))
    second = everything(
        tmp_path / "b", there, PYTHONHASHSEED="4711", TZ="Asia/Kathmandu", LC_ALL="C", EMBEDDED=str(copy)
    )
    assert len(first) == len(ENTRIES) + 3
    assert first == second


def test_all_compiles_whatever_is_listed(tmp_path: Path) -> None:
    written = compile_in_process(tmp_path / "out", "--all")
    assert sorted(written) == sorted(f"{entry.name}.yaml" for entry in ENTRIES)


@pytest.mark.slow
@pytest.mark.parametrize("release", ["3.12", "3.13"])
def test_bytes_are_the_same_on_other_pythons(release: str, tmp_path: Path, embedded: Path) -> None:
    python = environment_of(release, tmp_path / "venv")
    what = [*(entry.name for entry in ENTRIES), f"{USER}/features.py:features", f"{USER}/embedding.py:carrying"]
    here = compile_in_process(tmp_path / "here", *what, EMBEDDED=str(embedded))
    there = compile_in_process(tmp_path / "there", *what, python=python, EMBEDDED=str(embedded))
    assert here == there


def environment_of(release: str, folder: Path) -> str:
    """Return the interpreter of a fresh environment that holds kfp and this package, or skip the test."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        pytest.skip("uv is not here")
    candidates = [f"python{release}", *sorted(map(str, Path.home().glob(f".pyenv/versions/{release}.*/bin/python")))]
    for candidate in candidates:
        made = subprocess.run([uv, "venv", "--quiet", "--python", candidate, str(folder)], capture_output=True)
        if made.returncode == 0:
            break
    else:
        pytest.skip(f"there is no Python {release} here")
    python = str(folder / "bin" / "python")
    # The same kfp, and whatever resolves beside it: what else is installed must not matter.
    kfp = [f"{name}=={version(name)}" for name in ("kfp", "kfp-pipeline-spec", "kfp-server-api")]
    # To be compiled, a pipeline of Google's operators needs nothing of what they need to run.
    operators = f"google-cloud-pipeline-components=={version('google-cloud-pipeline-components')}"
    for arguments in ([*kfp, "rich"], ["--no-deps", operators, str(REPOSITORY)]):
        installed = subprocess.run(
            [uv, "pip", "install", "--quiet", "--python", python, *arguments], capture_output=True, text=True
        )
        if installed.returncode != 0:
            pytest.skip(f"the package index does not serve kfp: {installed.stderr[-200:]}")
    return python


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_means_what_kfp_writes(entry: catalog.Entry, tmp_path: Path) -> None:
    ours = yaml.safe_load(compiled(entry.function).text)
    assert ours == share(json_format.MessageToDict(entry.function.pipeline_spec))[0]
    # kfp's own file cannot be read where a default has several lines; its JSON can.
    compiler.Compiler().compile(entry.function, str(tmp_path / "spec.json"))
    assert ours == share(json.loads((tmp_path / "spec.json").read_text()))[0]


@pytest.mark.parametrize("name", ["features", "with_platform"])
def test_specs_of_users_mean_what_kfp_writes(name: str) -> None:
    function = load_function(f"{USER / 'features.py'}:{name}")
    documents = list(yaml.safe_load_all(compiled(function).text))
    kfps = share(json_format.MessageToDict(function.pipeline_spec), json_format.MessageToDict(function.platform_spec))
    assert documents == [document for document in kfps if document]
    assert len(documents) == (2 if name == "with_platform" else 1)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_kfp_and_protobuf_and_the_vertex_sdk_read_it(entry: catalog.Entry, tmp_path: Path) -> None:
    spec = compiled(entry.function)
    path = tmp_path / "spec.yaml"
    spec.write(path)
    loaded = components.load_component_from_file(str(path))
    assert " ".join(loaded.description.split()).startswith(entry.sentence)
    assert json_format.MessageToDict(loaded.pipeline_spec)["root"] == yaml.safe_load(spec.text)["root"]
    json_format.ParseDict(yaml.safe_load(spec.text), pipeline_spec_pb2.PipelineSpec())

    aiplatform = pytest.importorskip("google.cloud.aiplatform")
    credentials = pytest.importorskip("google.auth.credentials")
    job = aiplatform.PipelineJob(
        display_name="job",
        template_path=str(path),
        pipeline_root="gs://bucket/root",
        parameter_values={
            name: example(parameter)
            for name, parameter in yaml.safe_load(spec.text)["root"]["inputDefinitions"].get("parameters", {}).items()
            if "defaultValue" not in parameter and parameter["parameterType"] != "TASK_FINAL_STATUS"
        },
        project="project",
        location="us-central1",
        credentials=credentials.AnonymousCredentials(),
    )
    assert job.pipeline_spec["pipelineInfo"]["name"] == spec.name


def example(parameter: dict[str, Any]) -> Any:
    values = {
        "STRING": "text",
        "NUMBER_INTEGER": 1,
        "NUMBER_DOUBLE": 1.0,
        "BOOLEAN": True,
        "LIST": [1],
        "STRUCT": {"a": 1},
    }
    return values[parameter["parameterType"]]


def test_description_of_several_paragraphs_survives(tmp_path: Path) -> None:
    function = load_function(f"{USER / 'features.py'}:features")
    compiled(function).write(tmp_path / "spec.yaml")
    loaded = components.load_component_from_file(str(tmp_path / "spec.yaml"))
    assert loaded.description == function.description
    assert "A second paragraph" in loaded.description


def test_embedded_files_come_out_as_they_were(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDED", str(embedded))
    text = compiled(load_function(f"{USER / 'embedding.py'}:carrying")).text
    source = yaml.safe_load(text)["deploymentSpec"]["executors"]["exec-carry"]["container"]["command"][-1]
    # What the step does when it starts, up to the function.
    module: dict[str, Any] = {}
    exec(source[source.index("__KFP_EMBEDDED_ARCHIVE_B64") : source.index("def carry")], module)
    folder = Path(module["__KFP_EMBEDDED_ASSET_DIR"])
    sys.path.remove(str(folder))
    assert (folder / "notes.txt").read_text() == "some notes\n"
    assert (folder / "code" / "tool.py").read_text() == "X = 1\n"


def test_write_leaves_the_old_file_where_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("old")

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", broken)
    with pytest.raises(OSError, match="disk full"):
        compiled(ENTRIES[0].function).write(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def user_file(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "function", "expected"),
    [
        ("import nowhere_to_be_found\n", "f", r"mine\.py:1: ModuleNotFoundError: No module named"),
        ("x = 1\n\nprint(1 / 0)\n", "f", r"mine\.py:3: ZeroDivisionError: division by zero"),
        ("def f(:\n", "f", r"mine\.py:1: SyntaxError: "),
        ("raise SystemExit(3)\n", "f", r"mine\.py:1: SystemExit: 3"),
        ("def f(): ...\n", "f", r"f is neither a pipeline nor a component but a function; decorate it"),
        ("def f(): ...\n", "g", r"mine\.py has no g; .* none; is @dsl\.pipeline missing\?"),
        ("from penstock.components import train\n", "g", r"has no g; .*mine\.py:train"),
        ("from penstock.components import train\n", "", r"say which function; .*mine\.py:train"),
        (
            "from kfp import dsl\n@dsl.pipeline\ndef p(x: int):\n    pass\n",
            "p",
            r"mine\.py:2: ValueError: Task is missing from pipeline",
        ),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_line(tmp_path: Path, text: str, function: str, expected: str) -> None:
    path = user_file(tmp_path, text)
    with pytest.raises(PenstockError, match=expected) as caught:
        load_function(f"{path}:{function}" if function else str(path))
    assert "\n" not in str(caught.value)


def test_missing_file_is_named() -> None:
    with pytest.raises(PenstockError, match=r"nowhere\.py: there is no such file"):
        load_function("nowhere.py:f")


def test_loading_leaves_the_path_as_it_was_and_prints_nothing_to_stdout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = list(sys.path)
    path = user_file(tmp_path, "print('hello')\nfrom penstock.components import train as f\n")
    load_function(f"{path}:f")
    assert sys.path == before
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")


def test_file_named_like_a_loaded_module_does_not_replace_it(tmp_path: Path) -> None:
    path = tmp_path / "json.py"
    path.write_text("from penstock.components import train as f\n")
    load_function(f"{path}:f")
    import json

    assert json.dumps([1]) == "[1]"
