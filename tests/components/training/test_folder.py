"""The model folder as others see it: MLflow, and servers that have no Penstock."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow.models
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import xgboost
import yaml

from penstock.components._shared.dataset import open_dataset
from penstock.components._shared.model import load_model
from penstock.components._shared.tabular import encode

NAMES = (
    *(
        f"{framework}-{task}"
        for framework in ("xgboost", "lightgbm", "sklearn")
        for task in ("binary", "multiclass", "regression")
    ),
    "random_forest-binary",
    "logistic_regression-multiclass",
    "ridge-regression",
)

# Runs where `import penstock` fails, as on a server; writes what each model predicts.
SERVER = """
import importlib, json, sys
sys.modules["penstock"] = None
import mlflow.pyfunc
import pandas as pd
from mlflow.pyfunc.scoring_server import infer_and_parse_data

folders, output = json.loads(sys.argv[1]), sys.argv[2]
frame = pd.read_parquet(f"{output}/rows")
for name, folder in folders.items():
    model = mlflow.pyfunc.load_model(folder)
    model.predict(frame).to_parquet(f"{output}/{name}")
    with open(f"{folder}/serving_input_example.json") as file:
        request = infer_and_parse_data(json.load(file), model.metadata.get_input_schema())
    model.predict(request).to_parquet(f"{output}/{name}-request")
    flavor = (set(model.metadata.flavors) - {"python_function"}).pop()
    print(name, type(importlib.import_module(f"mlflow.{flavor}").load_model(folder)).__name__)
assert not any(module.startswith("penstock.") for module in sys.modules)
"""


@pytest.fixture(scope="module")
def frame(eval_set):
    return pq.read_table(open_dataset(eval_set, "test", "").files[0]).to_pandas()


@pytest.fixture(scope="module")
def served(models, frame, tmp_path_factory):
    """Return the folder of what a server without Penstock predicted, and what it printed."""
    here = tmp_path_factory.mktemp("server")
    working = here / "working"
    working.mkdir()
    frame.to_parquet(here / "rows")
    folders = {name: str(models(name)[0]) for name in NAMES}
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    ran = subprocess.run(
        [sys.executable, "-c", SERVER, json.dumps(folders), here],
        cwd=working,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert list(working.iterdir()) == []
    return here, dict(line.split() for line in ran.stdout.splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_mlflow_predicts_from_raw_columns_what_we_do(name, served, models, frame):
    model = load_model(models(name)[0], "test", "model")
    there, ours = pd.read_parquet(served[0] / name), model.predict(frame)
    if model.task == "regression":
        assert list(there.columns) == ["prediction"]
        assert (there["prediction"].to_numpy() == ours).all()
    else:
        texts = [str(label).lower() for label in model.classes]
        assert list(there.columns) == ["prediction", *(f"probability_{text}" for text in texts)]
        assert (there.iloc[:, 1:].to_numpy() == ours).all()
        assert there["prediction"].tolist() == [model.classes[place] for place in ours.argmax(axis=1)]


@pytest.mark.parametrize("name", NAMES)
def test_the_example_is_the_first_training_rows_and_can_be_served(name, served, models, train_set):
    folder = models(name)[0]
    first = pq.read_table(open_dataset(train_set, "test", "").files[0]).slice(0, 5)
    example = json.loads((folder / "input_example.json").read_text())
    assert example["columns"] == ["size", "color", "gaps", "share", "open"]
    assert example["data"] == [list(row.values()) for row in first.select(example["columns"]).to_pylist()]
    ours = load_model(folder, "test", "model").predict(first.to_pandas())
    there = pd.read_parquet(served[0] / f"{name}-request")
    assert (there.iloc[:, -1].to_numpy() == (ours if ours.ndim == 1 else ours[:, -1])).all()


def test_native_flavors_load(served):
    assert served[1]["xgboost-binary"] == served[1]["lightgbm-binary"] == "Booster"
    assert served[1]["sklearn-regression"] == "HistGradientBoostingRegressor"
    assert served[1]["logistic_regression-multiclass"] == "Pipeline"


def test_serving_leaves_the_model_readable(served, models):
    folder = models("xgboost-binary")[0]
    (folder / "registered_model_meta").write_text("model_name: x")  # as MLflow leaves it in a download
    (folder / "code" / "__pycache__").mkdir(exist_ok=True)
    (folder / "code" / "__pycache__" / "x.pyc").write_bytes(b"")
    assert load_model(folder, "test", "model").task == "binary"


@pytest.mark.parametrize("name", NAMES)
def test_mlmodel_is_what_mlflow_writes(name, models):
    folder = models(name)[0]
    written = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
    read = mlflow.models.Model.load(str(folder))
    theirs = {key: value for key, value in read.to_dict().items() if value is not None}
    assert theirs == {key: value for key, value in written.items() if value is not None}
    fresh = mlflow.models.Model().to_dict()
    assert fresh.keys() - {"prompts", "resources", "env_vars", "auth_policy", "model_id"} <= written.keys()


def test_the_signature_says_what_may_be_missing(models):
    inputs = mlflow.models.Model.load(str(models("xgboost-binary")[0])).signature.inputs
    assert [(column.name, column.to_dict()["type"], column.required) for column in inputs] == [
        ("size", "long", True),
        ("color", "string", True),
        ("gaps", "double", False),  # integers, but with missing values a float
        ("share", "double", False),
        ("open", "any", False),
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("xgboost-binary", ["prediction boolean", "probability_false double", "probability_true double"]),
        (
            "lightgbm-multiclass",
            [
                "prediction string",
                "probability_cold double",
                "probability_neutral double",
                "probability_warm double",
            ],
        ),
        ("sklearn-regression", ["prediction double"]),
    ],
)
def test_the_signature_says_what_comes_out(name, expected, models):
    outputs = mlflow.models.Model.load(str(models(name)[0])).signature.outputs
    assert [f"{column.name} {column.type.name}" for column in outputs] == expected


@pytest.mark.parametrize("name", ["xgboost-binary", "lightgbm-binary", "sklearn-binary"])
def test_requirements_are_pinned_to_what_is_installed(name, models):
    folder = models(name)[0]
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in lines)
    assert f"numpy=={np.__version__}" in lines
    assert f"pandas=={pd.__version__}" in lines
    conda = yaml.safe_load((folder / "conda.yaml").read_text())
    assert conda["dependencies"][-1] == {"pip": lines}
    names = {line.partition("==")[0] for line in lines}
    assert names & {"xgboost-cpu", "xgboost", "lightgbm", "skops"}


def test_code_is_named_by_its_content(models):
    folder = models("xgboost-binary")[0]
    (code,) = (folder / "code").glob("*.py")
    assert code.stem == yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["python_function"]["loader_module"]
    assert code.stem.startswith("penstock_tabular_")


@pytest.mark.slow
def test_mlflows_own_server_answers_a_request(models, tmp_path):
    folder = models("lightgbm-multiclass")[0]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    bin_folder = Path(sys.executable).parent
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    environment["PATH"] = f"{bin_folder}:{environment['PATH']}"
    command = [bin_folder / "mlflow", "models", "serve", "-m", folder, "--env-manager", "local", "-h", "127.0.0.1"]
    server = subprocess.Popen(
        [*command, "-p", str(port)],
        cwd=tmp_path,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            (folder / "serving_input_example.json").read_bytes(),
            {"Content-Type": "application/json"},
        )
        answer = None
        deadline = time.monotonic() + 60
        while answer is None:
            try:
                with urllib.request.urlopen(request, timeout=10) as response:
                    answer = json.load(response)["predictions"]
            except urllib.error.URLError:
                assert time.monotonic() < deadline
                assert server.poll() is None
                time.sleep(0.2)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    example = json.loads((folder / "input_example.json").read_text())
    ours = load_model(folder, "test", "model").predict(pd.DataFrame(example["data"], columns=example["columns"]))
    assert [[row[f"probability_{name}"] for name in ("cold", "neutral", "warm")] for row in answer] == ours.tolist()
    assert [row["prediction"] for row in answer] == ["warm", "neutral", "cold", "warm", "neutral"]


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_xgboost_predicts_what_it_predicts_of_its_own_matrices(task, models, frame):
    folder = models(f"xgboost-{task}")[0]
    booster = xgboost.Booster(model_file=str(folder / "model.ubj"))
    model = load_model(folder, "test", "model")
    rows = encode(model.columns, frame)
    assert np.isnan(rows).any()
    own = xgboost.DMatrix(rows, feature_names=booster.feature_names, feature_types=booster.feature_types)
    ours = model.predict(frame)
    assert ((ours[:, 1] if task == "binary" else ours) == booster.predict(own)).all()
