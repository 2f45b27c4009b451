import json

import pytest
from kfp import dsl

from penstock.components import pick, suggest, train, tune
from penstock.components._shared.dataset import open_dataset
from penstock.components._shared.errors import UserError
from penstock.components._shared.model import load_model

SPACE = {"eta": {"type": "float", "low": 0.05, "high": 0.5}, "max_depth": {"type": "int", "low": 1, "high": 4}}


def artifact(kind, tmp_path, name):
    return kind(uri=str(tmp_path / name))


def outputs(tmp_path):
    kinds = {"trials": dsl.Dataset, "model": dsl.Model, "report": dsl.HTML, "metrics": dsl.Metrics}
    return {name: artifact(kind, tmp_path, name) for name, kind in kinds.items()}


def test_tune_logs_what_it_found_and_gives_train_its_hyperparameters(train_set, eval_set, tmp_path):
    ports = outputs(tmp_path)
    hyperparameters, value = tune.python_func(
        train_set=dsl.Dataset(uri=str(train_set)), eval_set=dsl.Dataset(uri=str(eval_set)), **ports,
        target="late", space=SPACE, max_rounds=10, max_trials=3,
    )  # fmt: skip
    assert ports["metrics"].metadata["complete"] == 3
    assert ports["metrics"].metadata["eval_log_loss"] == value
    trained = dsl.Metrics(uri=str(tmp_path / "trained"))
    train.python_func(
        train_set=dsl.Dataset(uri=str(train_set)), eval_set=dsl.Dataset(uri=str(eval_set)),
        model=artifact(dsl.Model, tmp_path, "m"), metrics=trained, target="late", max_rounds=10,
        hyperparameters=json.loads(json.dumps(hyperparameters)),
    )  # fmt: skip
    assert trained.metadata["eval_log_loss"] == value


def test_proposals_are_trained_and_the_best_is_picked_byte_for_byte(train_set, eval_set, tmp_path):
    proposals = suggest.python_func(space=SPACE, count=3, hyperparameters={"gamma": 0.1}, seed=4)
    assert proposals == suggest.python_func(space=SPACE, count=3, hyperparameters={"gamma": 0.1}, seed=4)
    assert all(each["gamma"] == 0.1 and 0.05 <= each["eta"] <= 0.5 for each in proposals)
    models, losses = [], []
    for number, proposal in enumerate(proposals):
        models.append(artifact(dsl.Model, tmp_path, f"model-{number}"))
        metrics = dsl.Metrics(uri=str(tmp_path / "metrics-of-one"))
        train.python_func(
            train_set=dsl.Dataset(uri=str(train_set)), eval_set=dsl.Dataset(uri=str(eval_set)),
            model=models[-1], metrics=metrics, target="late", max_rounds=10, hyperparameters=proposal,
        )  # fmt: skip
        losses.append(metrics.metadata["eval_log_loss"])
    ports = outputs(tmp_path)
    hyperparameters, value = pick.python_func(models=models, space=SPACE, **ports)
    best = losses.index(min(losses))
    assert value == min(losses)
    assert hyperparameters["eta"] == proposals[best]["eta"]
    for file in (tmp_path / f"model-{best}").rglob("*"):
        if file.is_file():
            copied = tmp_path / "model" / file.relative_to(tmp_path / f"model-{best}")
            assert copied.read_bytes() == file.read_bytes()
    assert load_model(tmp_path / "model", "test", "model").target == "late"
    assert open_dataset(tmp_path / "trials", "test", "trials").rows == 3
    worst = pick.python_func(models=models, space=SPACE, direction="maximize", **ports)
    assert worst[1] == max(losses)


def test_a_grid_is_suggested_whole_or_not_at_all():
    grid = {"a": {"type": "int", "low": 1, "high": 3}, "b": {"type": "categorical", "choices": ["x", "y"]}}
    assert len(suggest.python_func(space=grid, sampler="grid")) == 6
    with pytest.raises(UserError, match="suggest: count: the grid has 6 points, not 5"):
        suggest.python_func(space=grid, sampler="grid", count=5)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"count": 0}, "suggest: count: 0 is not in range"),
        ({"count": 101}, "suggest: count: 101 is not in range. Give a whole number from 1 to 100"),
        ({"sampler": "tpe"}, "suggest: sampler: 'tpe' is unknown"),
        ({"hyperparameters": {"eta": 1}}, "suggest: space: eta: hyperparameters gives it a value, too"),
        ({"space": {"eta": {"type": "int", "low": 2, "high": 1}}}, "suggest: space: eta: the range"),
    ],
)
def test_what_cannot_be_suggested_is_named(given, part):
    with pytest.raises(UserError) as refused:
        suggest.python_func(**{"space": SPACE, **given})
    assert part in str(refused.value)


def test_nothing_to_pick_from_is_an_error(tmp_path):
    with pytest.raises(UserError, match="pick: models: there are none"):
        pick.python_func(models=[], space=SPACE, **outputs(tmp_path))
