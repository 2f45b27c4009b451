"""The image that serves: what it is set to, what it predicts, and that its proof can fail."""

import json
import subprocess

import numpy as np
import pandas as pd
import pytest

from penstock.compile import images, serving_smoke
from penstock.compile._cli.sources import find_source
from penstock.compile.errors import PenstockError
from penstock.components._shared.model import load_model
from tests.components.conftest import make_dataset  # noqa: F401  a fixture

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def model(make_dataset, tmp_path_factory):  # noqa: F811
    """A model folder with one feature of each kind."""
    from penstock.components.training.fit import fit

    data = make_dataset(
        {
            "size": [1, 2, 3, 4] * 20,
            "color": ["red", "blue", None, "green"] * 20,
            "open": [True, None, False, True] * 20,
            "late": [True, False, True, False] * 20,
        }
    )
    folder = tmp_path_factory.mktemp("served") / "model"
    fit(data, data, folder, target="late", max_rounds=5)
    return folder


def test_it_listens_says_whether_it_is_live_and_starts_the_server(built, engine):
    config = engine.inspect_image(built("serving").id)["Config"]
    assert list(config["ExposedPorts"]) == ["8080/tcp"]
    assert config["Healthcheck"]["Test"] == ["CMD", "python3", "-m", "penstock.components.deployment.serving.health"]
    assert config["Cmd"] == ["python3", "-m", "penstock.components.deployment.serving"]


def test_an_image_that_runs_components_only_has_none_of_that(built, engine):
    config = engine.inspect_image(built("tabular").id)["Config"]
    assert not config.get("ExposedPorts")
    assert not config.get("Healthcheck")


def test_it_predicts_what_the_model_predicts_on_this_machine(built, model):
    rows = {"size": [1, 2, 3], "color": ["red", None, "violet"], "open": [None, True, False]}
    body = json.dumps({"inputs": rows})
    ask = (
        "import sys, time, urllib.request\n"
        "request = urllib.request.Request('http://127.0.0.1:8080/invocations', sys.argv[1].encode(),"
        " {'Content-Type': 'application/json'})\n"
        "for _ in range(600):\n"
        "    try: sys.exit(print(urllib.request.urlopen(request, timeout=9).read().decode()))\n"
        "    except OSError: time.sleep(0.1)\n"
    )
    model.chmod(0o755)
    serve = [
        "docker",
        "run",
        "--rm",
        "--detach",
        "--network",
        "none",
        "--read-only",
        "--tmpfs",
        "/tmp",
        "--cap-drop",
        "ALL",
    ]
    serve += ["--security-opt", "no-new-privileges", "--volume", f"{model}:/mnt/models:ro", built("serving").name]
    container = subprocess.run(serve, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    try:
        command = ["docker", "exec", container, "python3", "-c", ask, body]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    finally:
        subprocess.run(["docker", "rm", "--force", container], capture_output=True, timeout=60)
    there = [each["probability_true"] for each in json.loads(done.stdout)["predictions"]]
    ours = load_model(model, "test", "model").predict(pd.DataFrame(rows))[:, 1]
    np.testing.assert_array_equal(there, ours)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (
            {"check": ("python3", "-c", "print('no'); raise SystemExit(3)")},
            r"its check ends with 3: no; the server says",
        ),
        ({"at": "/elsewhere"}, r"serving train/model: its check ends with .*/mnt/models"),
        ({"models": (("train", "none"),)}, r"the run has no train/none; there are ingest, train"),
    ],
)
def test_a_proof_that_fails_says_so(built, tmp_path, changed, problem):
    image = built("serving")
    what, parameters = images.smoke_test(image.environment)
    given = serving_smoke.serve_of(image.environment)
    serve = serving_smoke.Serve(**{**vars(given), "models": (("train", "model"),), **changed})
    with pytest.raises(PenstockError, match=problem):
        serving_smoke.smoke(
            image, find_source(what).spec(), {**parameters, "source": "sample://taxi?rows=500"}, serve, tmp_path
        )
