from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from penstock.components._shared.dataset import open_dataset
from penstock.components._shared.errors import UserError
from penstock.components.evaluation.evaluate import evaluate
from penstock.components.explanation.card import LISTS, TEXTS, write_card
from penstock.components.explanation.explain import explain
from penstock.components.validation.statistics import describe

Make = Callable[..., Path]
SCHEMA = json.loads((Path(__file__).parents[3] / "components" / "explanation" / "card.schema.json").read_text())
TOLD = {name: f"<{name}>" for name in TEXTS} | {name: [f"<{name}> 1", f"<{name}> 2"] for name in LISTS}


@pytest.fixture(scope="module")
def documents(
    tmp_path_factory: pytest.TempPathFactory, model_of: Make, make_dataset: Make, trips: Any
) -> dict[str, Path]:
    """What a run knows of a model, written by the components that know it."""
    folder = tmp_path_factory.mktemp("documents")
    model, rows = model_of("lightgbm", "binary"), make_dataset(trips())
    evaluate(
        model, rows, folder / "evaluation", folder / "page", slices=["zone"], gate=["auc >= 0.99"], bootstrap_samples=20
    )
    outputs = ("attributions", "explanation", "vertex", "page")
    explain(model, rows, *(folder / name for name in outputs), slices=["zone", "night"], repeats=1)
    training = open_dataset(make_dataset(trips(600, seed=1)), "test", "dataset")
    (folder / "statistics").write_bytes(describe(training).SerializeToString())
    return {"model": model, **{name: folder / name for name in ("evaluation", "statistics", "explanation")}}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., tuple[tuple[str, ...], dict[str, Any], str]]:
    """Write a card; return what is missing, the card, which has to be as its schema says, and the page."""

    def write(model: Path, **given: Any) -> tuple[tuple[str, ...], dict[str, Any], str]:
        result = write_card(model, tmp_path / "card", tmp_path / "page", **given)
        found = json.loads((tmp_path / "card").read_text(), parse_constant=lambda name: pytest.fail(name))
        jsonschema.Draft202012Validator(SCHEMA).validate(found)
        assert found["missing"] == list(result.missing)
        return result.missing, found, (tmp_path / "page").read_text()

    return write


def test_card_holds_what_the_run_knows_and_what_was_told(write: Any, documents: dict[str, Path]) -> None:
    missing, found, page = write(**documents, told=TOLD)
    assert missing == ()
    evaluation = json.loads(documents["evaluation"].read_text())
    metrics = {entry["name"]: entry for entry in found["metrics"]["values"]}
    assert metrics["auc"]["value"] == evaluation["metrics"]["auc"]["value"]
    assert metrics["auc"]["low"] == evaluation["metrics"]["auc"]["low"]
    assert found["quantitative_analyses"]["slices"] == evaluation["slices"]
    assert found["quantitative_analyses"]["gate"]["blessed"] is False
    assert found["evaluation_data"]["fingerprint"] == evaluation["eval_set"]["fingerprint"]
    assert found["evaluation_data"]["seen_in_training"] is False
    assert found["training_data"]["fingerprint"] == evaluation["model"]["train_fingerprint"]
    assert found["training_data"]["statistics"]["rows"] == found["training_data"]["rows"] == 600
    assert found["model_details"]["training"]["rounds"] == evaluation["model"]["rounds"]
    assert [(factor["column"], factor["looked_at_by"]) for factor in found["factors"]] == [
        ("zone", ["evaluation", "explanation"]),
        ("night", ["explanation"]),
    ]
    explanation = json.loads(documents["explanation"].read_text())
    assert found["quantitative_analyses"]["explanation"]["features"] == explanation["features"]
    assert found["model_details"]["name"] == "<name>"
    assert found["caveats_and_recommendations"]["limitations"] == ["<limitations> 1", "<limitations> 2"]
    for name in (*TEXTS, *LISTS):
        assert f"&lt;{name}&gt;" in page
    assert "Failed its gate: auc" in page
    headings = ["Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data",
                "Quantitative analyses", "Ethical considerations", "Caveats and recommendations"]  # fmt: skip
    places = [page.index(f"<h2>{heading}</h2>") for heading in headings]
    assert places == sorted(places)


def test_what_is_absent_is_said_in_its_place(write: Any, documents: dict[str, Path]) -> None:
    missing, found, page = write(documents["model"])
    assert missing == ("evaluation", "statistics", "explanation", *TEXTS[1:], *LISTS)
    assert found["metrics"] is None
    assert found["quantitative_analyses"]["explanation"] is None
    assert found["training_data"]["statistics"] is None
    assert found["model_details"]["name"] == "tipped"
    for said in ("no evaluation was given", "no statistics were given", "no explanation was given", "Limitations: not"):
        assert said in page


def test_statistics_tell_missing_values_and_nan(write: Any, documents: dict[str, Path], trips: Any) -> None:
    _, found, _ = write(documents["model"], statistics=documents["statistics"])
    entries = {entry["name"]: entry for entry in found["training_data"]["statistics"]["features"]}
    table = trips(600, seed=1)
    assert entries["other"]["missing"] == pytest.approx(table["other"].null_count / 600)
    assert entries["zone"]["missing"] == pytest.approx(table["zone"].null_count / 600)
    assert entries["distance"]["mean"] == pytest.approx(table["distance"].to_numpy().mean())
    assert entries["zone"]["distinct"] == 4


def test_statistics_of_other_rows_are_shown_as_such(
    write: Any, documents: dict[str, Path], make_dataset: Make, trips: Any, tmp_path: Path
) -> None:
    other = open_dataset(make_dataset(trips(50)), "test", "dataset")
    (tmp_path / "statistics").write_bytes(describe(other).SerializeToString())
    _, _, page = write(documents["model"], statistics=tmp_path / "statistics")
    assert "The statistics are of 50 rows, not of those that the model was fitted on" in page


def test_metrics_of_training_rows_are_marked(
    write: Any, documents: dict[str, Path], make_dataset: Make, trips: Any, tmp_path: Path
) -> None:
    rows = make_dataset(trips(600, seed=1))
    evaluate(documents["model"], rows, tmp_path / "evaluation", tmp_path / "evaluated", bootstrap_samples=0)
    _, found, page = write(documents["model"], evaluation=tmp_path / "evaluation")
    assert found["evaluation_data"]["seen_in_training"] is True
    assert "the metrics flatter it" in page
    assert found["metrics"]["values"][2]["low"] is None


def test_attributions_that_do_not_add_up_are_told_in_the_card_too(
    write: Any, documents: dict[str, Path], tmp_path: Path
) -> None:
    explanation = json.loads(documents["explanation"].read_text())
    explanation["additivity"] |= {"holds": False, "failed_rows": 7}
    (tmp_path / "explanation").write_text(json.dumps(explanation))
    _, _, page = write(documents["model"], explanation=tmp_path / "explanation")
    assert "The attributions of 7 rows do not add up to their predictions" in page


def test_documents_of_another_model_are_refused(documents: dict[str, Path], model_of: Make, tmp_path: Path) -> None:
    for argument in ("evaluation", "explanation"):
        with pytest.raises(UserError) as caught:
            write_card(
                model_of("xgboost", "binary"), tmp_path / "card", tmp_path / "page", **{argument: documents[argument]}
            )
        assert f"model_card: {argument}: " in str(caught.value)
        assert "is of another model: it differs in framework, hyperparameters" in str(caught.value)
    assert not (tmp_path / "card").exists()


@pytest.mark.parametrize(
    ("argument", "content", "problem"),
    [
        ("evaluation", b"{", "is no JSON"),
        ("evaluation", b"[]", "is of format None"),
        ("explanation", b'{"format": "penstock.evaluation/1"}', "is of format 'penstock.evaluation/1'"),
        ("statistics", b"\x00\x01", "is no DatasetFeatureStatisticsList"),
        ("evaluation", None, "cannot be read: No such file or directory"),
        ("statistics", None, "cannot be read: No such file or directory"),
    ],
)
def test_files_that_are_none_are_refused(
    documents: dict[str, Path], tmp_path: Path, argument: str, content: bytes | None, problem: str
) -> None:
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    with pytest.raises(UserError) as caught:
        write_card(documents["model"], tmp_path / "card", tmp_path / "page", **{argument: tmp_path / "file"})
    assert str(caught.value).startswith(f"model_card: {argument}: ")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_texts_of_other_types_are_refused(documents: dict[str, Path], tmp_path: Path) -> None:
    for told, problem in (
        ({"owners": "me"}, "owners: 'me' is no list of texts"),
        ({"owners": [1]}, "owners: [1] is no list of texts"),
        ({"version": 1}, "version: 1 is no text"),
    ):
        with pytest.raises(UserError, match="is no") as caught:
            write_card(documents["model"], tmp_path / "card", tmp_path / "page", told=told)
        assert problem in str(caught.value)


def test_same_run_gives_the_same_bytes(write: Any, documents: dict[str, Path], tmp_path: Path) -> None:
    write(**documents, told=TOLD)
    first = (tmp_path / "card").read_bytes(), (tmp_path / "page").read_bytes()
    write(**documents, told=TOLD)
    assert ((tmp_path / "card").read_bytes(), (tmp_path / "page").read_bytes()) == first
