import json
import math
import re
from pathlib import Path

import pytest

from penstock.components._shared.errors import UserError
from penstock.components._shared.fitting.frameworks import NAMES, framework
from penstock.components._shared.fitting.hyperparameters import check
from penstock.components.training import fit


def checked(name, given, task="binary"):
    return check(given, framework(name).known(task, given), name)


@pytest.mark.parametrize(
    ("name", "wrong", "meant"),
    [
        ("xgboost", "max_deph", "max_depth"),
        ("lightgbm", "num_leafs", "num_leaves"),
        ("sklearn", "l2_regularisation", "l2_regularization"),
    ],
)
def test_an_unknown_name_lists_the_known_ones_and_the_one_meant(name, wrong, meant):
    with pytest.raises(UserError) as refused:
        checked(name, {wrong: 3})
    message = str(refused.value)
    assert f"{name} does not know {wrong!r}" in message
    assert f"Did you mean {meant!r}?" in message
    assert "max_depth" in message.partition("It knows")[2]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [1.0, math.nan], {"x": [math.inf]}])
@pytest.mark.parametrize("name", NAMES)
def test_values_that_are_not_finite_are_refused(name, value):
    with pytest.raises(UserError, match=r"learning_rate is .*Give finite numbers"):
        checked(name, {"learning_rate": value})


@pytest.mark.parametrize(
    ("name", "given", "ours"),
    [
        ("xgboost", "n_estimators", "max_rounds"),
        ("xgboost", "random_state", "seed"),
        ("xgboost", "scale_pos_weight", "class_weights"),
        ("lightgbm", "num_boost_round", "max_rounds"),
        ("lightgbm", "bagging_seed", "seed"),
        ("lightgbm", "is_unbalance", "class_weights"),
        ("sklearn", "max_iter", "max_rounds"),
        ("sklearn", "random_state", "seed"),
        ("sklearn", "class_weight", "class_weights"),
    ],
)
def test_what_an_argument_stands_for_is_refused_by_naming_it(name, given, ours):
    with pytest.raises(UserError, match=f"Use {ours} instead"):
        checked(name, {given: 1})


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("xgboost", {"max_depth": 6.0, "eta": 1.0}, {"max_depth": 6, "eta": 1}),
        (
            "lightgbm",
            {"num_leaves": 31.0, "monotone_constraints": [1.0, 0.0]},
            {"num_leaves": 31, "monotone_constraints": [1, 0]},
        ),
        ("sklearn", {"max_leaf_nodes": 15.0, "max_features": 1.0}, {"max_leaf_nodes": 15, "max_features": 1.0}),
        (
            "sklearn",
            {"estimator": "random_forest", "max_features": 2.0, "max_samples": 1.0, "n_jobs": 2.0},
            {"estimator": "random_forest", "max_features": 2, "max_samples": 1.0, "n_jobs": 2},
        ),
        ("sklearn", {"estimator": "logistic_regression", "C": 1.0}, {"estimator": "logistic_regression", "C": 1.0}),
    ],
)
def test_integers_that_came_as_floats_are_integers_again(name, given, expected):
    result = checked(name, given)
    assert result == expected
    assert {key: type(value) for key, value in result.items()} == {key: type(value) for key, value in expected.items()}


def test_two_names_of_one_hyperparameter_are_refused():
    with pytest.raises(UserError, match="'eta' and 'learning_rate' are the same"):
        checked("xgboost", {"eta": 0.1, "learning_rate": 0.2})
    with pytest.raises(UserError, match="'reg_alpha' and 'lambda_l1' are the same"):
        checked("lightgbm", {"reg_alpha": 0.1, "lambda_l1": 0.2})


def test_null_means_not_given_except_where_it_is_a_value():
    assert checked("xgboost", {"max_depth": None}) == {}
    assert checked("sklearn", {"max_depth": None}) == {"max_depth": None}


def test_the_known_names_come_from_the_library():
    assert {"rate_drop", "max_cat_threshold", "colsample_bynode", "grow_policy"} <= framework("xgboost").known(
        "binary", {}
    ).names.keys()
    assert "tweedie_variance_power" in framework("xgboost").known("regression", {}).names
    assert "tweedie_variance_power" not in framework("xgboost").known("binary", {}).names
    assert {"linear_tree", "colsample_bytree", "path_smooth"} <= framework("lightgbm").known("binary", {}).names.keys()


@pytest.mark.parametrize(
    ("name", "task", "given", "part"),
    [
        ("xgboost", "binary", {"objective": "reg:squarederror"}, "binary:logistic"),
        ("xgboost", "regression", {"booster": "gblinear"}, "gbtree, dart"),
        ("xgboost", "binary", {"eval_metric": 3}, "name of a metric"),
        ("lightgbm", "multiclass", {"objective": "binary"}, "multiclass"),
        ("sklearn", "binary", {"estimator": "ridge"}, "hist_gradient_boosting, random_forest, logistic_regression"),
        ("sklearn", "regression", {"estimator": "svm"}, "hist_gradient_boosting, random_forest, ridge"),
    ],
)
def test_values_that_do_not_fit_the_task_list_those_that_do(name, task, given, part):
    with pytest.raises(UserError, match=part):
        framework(name).settled(task, checked(name, given, task))


@pytest.mark.parametrize(
    ("name", "given", "part"),
    [
        ("xgboost", {"max_depth": -3}, "max_depth"),
        ("xgboost", {"eta": "quick"}, "quick"),
        ("xgboost", {"eval_metric": "nonsense"}, "nonsense"),
        ("lightgbm", {"learning_rate": -1}, "learning_rate"),
        ("lightgbm", {"metric": ["auc", "nonsense"]}, "nonsense"),
        ("lightgbm", {"max_bin": {"a": 1}}, "max_bin"),
        ("sklearn", {"max_depth": -3}, "max_depth"),
        ("sklearn", {"estimator": "logistic_regression", "solver": "guess"}, "solver"),
    ],
)
def test_what_a_framework_refuses_is_one_line_of_its_own_words(name, given, part, learn, tmp_path):
    with pytest.raises(UserError) as refused:
        learn(framework=name, hyperparameters=given)
    message = str(refused.value)
    assert message.startswith(f"train: hyperparameters: {name} refuses them: ")
    assert part in message
    assert "Stack trace" not in message
    assert "/src/" not in message
    assert len(message) < 400
    assert not (tmp_path / "model").exists()


def test_the_examples_of_the_readme_are_known():
    readme = Path(fit.__file__).with_name("README.md").read_text(encoding="utf-8")
    examples = [json.loads(text) for text in re.findall(r'(?:^ {4}|`)(\{".*?\})(?:`|$)', readme, re.MULTILINE)]
    given = [example for example in examples if "balanced" not in example]
    assert len(given) >= 3
    for example in given:
        assert checked("xgboost", example)
