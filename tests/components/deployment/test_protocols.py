"""Every protocol gives, bit for bit, what the model predicts of the same rows in this process."""

import json

import numpy as np
import pandas as pd
import pytest

from penstock.components._shared.model import load_model
from penstock.components.deployment.serving import check, payloads
from penstock.components.deployment.serving.metrics import Metrics
from penstock.components.deployment.serving.payloads import PROTOCOLS
from penstock.components.deployment.serving.served import Answering
from penstock.components.deployment.serving.settings import Settings
from tests.components.deployment.conftest import MODELS, row, serving

ROWS = [row(number) for number in range(300, 331)]
BY_ROUTE = {"/predict": "vertex", "/score": "azureml", "/invocations": "mlflow"}


def expected(folder) -> dict[str, list]:
    """Return what the model predicts of ROWS from a table of pandas, as MLflow would have it."""
    model = load_model(folder, "test", "model")
    predicted = model.predict(pd.DataFrame(ROWS))
    if model.task == "regression":
        return {"prediction": predicted.tolist()}
    labels = [model.classes[place] for place in predicted.argmax(axis=1)]
    texts = [str(label).lower() for label in model.classes]
    return {"prediction": labels, **{f"probability_{text}": predicted[:, i].tolist() for i, text in enumerate(texts)}}


def example() -> dict:
    names = list(ROWS[0])
    return {"columns": names, "data": [[each[name] for name in names] for each in ROWS]}


@pytest.mark.parametrize("name", MODELS)
def test_every_form_of_every_protocol_predicts_what_the_model_does(name, loaded, models):
    wanted, model = expected(models(name)), loaded(name)
    assert len({json.dumps(value) for value in wanted["prediction"]}) > 1, "a constant would prove nothing"
    answering = Answering(model, Metrics(), None, 0)
    forms = list(check.requests(Settings(), model, example()))
    assert len(forms) == 12
    for route, kind, body in forms:
        answer = answering.answer(PROTOCOLS[BY_ROUTE.get(route, "v2")], kind, body, "id")
        assert check.columns(json.loads(answer)) == wanted, route


@pytest.mark.parametrize(
    "name",
    [
        "xgboost-binary",
        pytest.param("lightgbm-multiclass", marks=pytest.mark.slow),
        pytest.param("sklearn-regression", marks=pytest.mark.slow),
    ],
)
def test_a_server_gives_the_same_and_check_says_so(name, loaded, models, monkeypatch, capsys):
    wanted, model = expected(models(name)), loaded(name)
    with serving(models(name).parent) as server:  # the folder above the model's will do, too
        for route, kind, body in check.requests(Settings(), model, example()):
            status, answer = server.post(route, body, headers={"Content-Type": kind})
            assert status == 200, answer
            assert check.columns(answer) == wanted
        monkeypatch.setenv("PENSTOCK_PORT", str(server.port))
        monkeypatch.setenv("PENSTOCK_MODEL", str(models(name)))
        assert check.main() == 0
        other = "xgboost-regression"
        monkeypatch.setenv("PENSTOCK_MODEL", str(models(other)))
        assert check.main() == 1, "another model's predictions are others"
        assert server.stop() == 0
    assert "predicts" in capsys.readouterr().out


def test_vertex_names_port_and_routes(models):
    routes = {"AIP_HEALTH_ROUTE": "/healthy", "AIP_PREDICT_ROUTE": "/v1/endpoints/1:predict"}
    with serving(None, ready=False, AIP_STORAGE_URI=str(models("xgboost-binary")), **routes) as server:
        while not any("is ready" in line for line in server.lines):
            assert server.process.poll() is None, server.lines
        assert server.get("/healthy") == (200, {"ready": True})
        assert server.get("/predict")[0] == 404
        status, answer = server.post(routes["AIP_PREDICT_ROUTE"], {"instances": ROWS[:2], "parameters": None})
        assert status == 200
        assert [set(each) for each in answer["predictions"]] == [
            {"prediction", "probability_false", "probability_true"}
        ] * 2


def test_azure_ml_names_the_folder_above_the_model(models):
    folder = models("xgboost-binary")
    with serving(None, AZUREML_MODEL_DIR=str(folder.parent)) as server:
        assert server.get("/") == (200, {"live": True})
        names = list(ROWS[0])
        data = {"columns": names, "index": [5], "data": [[ROWS[0][name] for name in names]]}
        status, answer = server.post("/score", {"input_data": data, "params": {}})
        assert (status, len(answer)) == (200, 1)


def test_mlflows_answer_is_what_its_own_server_parses_and_gives(models, server):
    from mlflow.pyfunc import load_model as load_mlflow_model
    from mlflow.pyfunc.scoring_server import infer_and_parse_data

    model = load_mlflow_model(str(models("xgboost-binary")))
    request = json.loads((models("xgboost-binary") / "serving_input_example.json").read_text())
    theirs = model.predict(infer_and_parse_data(request, model.metadata.get_input_schema()))
    status, ours = server.post("/invocations", request)
    assert status == 200
    assert ours["predictions"] == json.loads(json.dumps(theirs.to_dict(orient="records")))


def test_open_inference_describes_the_model(server):
    assert server.get("/v2")[1]["name"] == "penstock"
    status, model = server.get("/v2/models/model/versions/7")
    assert status == 200
    assert model == server.get("/v2/models/model")[1]
    assert (model["name"], model["versions"], model["platform"]) == ("model", ["7"], "penstock_xgboost")
    assert {each["name"]: each["datatype"] for each in model["inputs"]} == {
        "size": "INT64", "color": "BYTES", "gaps": "FP64", "share": "FP64", "open": "BOOL", "shut": "BOOL",
    }  # fmt: skip
    assert [(each["name"], each["datatype"], each["shape"]) for each in model["outputs"]] == [
        ("prediction", "BOOL", [-1]), ("probability_false", "FP64", [-1]), ("probability_true", "FP64", [-1]),
    ]  # fmt: skip


def tensors(rows: int = 3) -> dict:
    return {
        "inputs": [
            {"name": name, "datatype": datatype, "shape": [rows], "data": [each[name] for each in ROWS[:rows]]}
            for name, datatype in
            {"size": "INT32", "color": "BYTES", "gaps": "FP32", "share": "FP64", "open": "BOOL", "shut": "BOOL"}.items()
        ]
    }  # fmt: skip


def test_open_inference_answers_with_shapes_the_id_and_the_outputs_that_were_asked_for(server):
    body = {**tensors(), "id": "mine", "outputs": [{"name": "probability_true"}]}
    status, answer = server.post("/v2/models/model/infer", body)
    assert status == 200
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("model", "7", "mine")
    [output] = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("probability_true", "FP64", [3])
    for tensor in body["inputs"]:
        tensor["shape"], tensor["data"] = [3, 1], [[value] for value in tensor["data"]]
    assert server.post("/v2/models/model/versions/7/infer", body) == (200, answer)


def test_no_rows_give_no_predictions(server):
    assert server.post("/predict", {"instances": []}) == (200, {"predictions": []})
    assert server.post("/invocations", b"size,color,shut\n", headers={"Content-Type": "text/csv"}) == (
        200,
        {"predictions": []},
    )


def test_rows_do_without_what_may_be_missing_and_bring_what_is_not_read(server):
    whole = {**ROWS[0], "gaps": None, "share": None, "open": None}
    bare = {name: ROWS[0][name] for name in ("size", "color", "shut")}
    status, answer = server.post("/predict", {"instances": [whole, bare, {**bare, "key": {"any": ["thing"]}}]})
    assert status == 200
    first, second, third = answer["predictions"]
    assert first == second == third


def test_an_unseen_category_is_read_as_missing(loaded):
    model = loaded("xgboost-multiclass")
    rows = payloads.Rows(1, {**{name: [value] for name, value in ROWS[0].items()}, "color": ["violet"]})
    assert np.isnan(
        model.signature.matrix(rows.columns, 1)[0, [each.name for each in model.signature.inputs].index("color")]
    )
