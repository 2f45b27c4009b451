"""scikit-learn's HistGradientBoosting as the text of a LightGBM model: the same trees, so the same predictions.

What goes left in scikit-learn goes left in LightGBM, with one exception: LightGBM sends a missing category to the
right, so that a split by category which sends it left is written with its sides exchanged.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# Bits of LightGBM's decision_type.
CATEGORICAL, DEFAULT_LEFT, MISSING_IS_NAN = 1, 2, 8
WORD = 32


def as_lightgbm(estimator: Any) -> str:
    """Return the text of a LightGBM model that adds up what the estimator's trees do, without its baseline.

    It reads the columns in the order in which the estimator's trees do; see input_places.
    """
    known, place_of = estimator._bin_mapper.make_known_categories_bitsets()
    predictors = [tree for iteration in estimator._predictors for tree in iteration]
    count = estimator.n_features_in_
    trees = [_tree(number, predictor, known, place_of) for number, predictor in enumerate(predictors)]
    head = {
        "version": "v4",
        "num_class": estimator.n_trees_per_iteration_,
        "num_tree_per_iteration": estimator.n_trees_per_iteration_,
        "label_index": 0,
        "max_feature_idx": count - 1,
        # Of several trees an iteration LightGBM wants to know what for; raw scores are the same.
        "objective": "regression"
        if estimator.n_trees_per_iteration_ == 1
        else f"multiclass num_class:{estimator.n_trees_per_iteration_}",
        "feature_names": " ".join(f"f{place}" for place in range(count)),
        "feature_infos": " ".join(["[-inf:inf]"] * count),
        "tree_sizes": " ".join(str(len(tree.encode())) for tree in trees),
    }
    return "tree\n" + _lines(head) + "\n" + "".join(trees) + "end of trees\n\nparameters:\nend of parameters\n"


def input_places(estimator: Any) -> np.ndarray:
    """Return for each column that the trees read its place among the estimator's features: categories come first."""
    categorical = estimator.is_categorical_
    if categorical is None:
        return np.arange(estimator.n_features_in_)
    return np.concatenate([np.flatnonzero(categorical), np.flatnonzero(~categorical)])


def _tree(number: int, predictor: Any, known: np.ndarray, place_of: np.ndarray) -> str:
    nodes = predictor.nodes
    leaves = np.flatnonzero(nodes["is_leaf"])
    splits = np.flatnonzero(nodes["is_leaf"] == 0)
    # LightGBM counts splits from 0 up, leaves from -1 down.
    names = np.empty(len(nodes), dtype=np.int64)
    names[leaves] = -1 - np.arange(len(leaves))
    names[splits] = np.arange(len(splits))
    facts: dict[str, Any] = {"num_leaves": len(leaves), "num_cat": int(nodes["is_categorical"][splits].sum())}
    if len(splits):
        thresholds: list[float] = []
        kinds, left, right = [], [], []
        words: list[int] = []
        bounds = [0]
        for node in nodes[splits]:
            sides = [names[node["left"]], names[node["right"]]]
            if node["is_categorical"]:
                goes_left = predictor.raw_left_cat_bitsets[node["bitset_idx"]]
                if node["missing_go_to_left"]:
                    goes_left = known[place_of[node["feature_idx"]]] & ~goes_left
                    sides.reverse()
                thresholds.append(len(bounds) - 1)
                kinds.append(CATEGORICAL | MISSING_IS_NAN)
                words += [int(word) for word in goes_left]
                bounds.append(len(words))
            else:
                thresholds.append(float(node["num_threshold"]))
                kinds.append(MISSING_IS_NAN | (DEFAULT_LEFT if node["missing_go_to_left"] else 0))
            left.append(sides[0])
            right.append(sides[1])
        facts |= {
            "split_feature": nodes["feature_idx"][splits],
            "split_gain": nodes["gain"][splits],
            "threshold": thresholds,
            "decision_type": kinds,
            "left_child": left,
            "right_child": right,
        }
    facts |= {
        "leaf_value": nodes["value"][leaves],
        "leaf_weight": nodes["count"][leaves],
        "leaf_count": nodes["count"][leaves],
    }
    if len(splits):
        facts |= {
            "internal_value": nodes["value"][splits],
            "internal_weight": nodes["count"][splits],
            "internal_count": nodes["count"][splits],
        }
        if facts["num_cat"]:
            facts |= {"cat_boundaries": bounds, "cat_threshold": words}
    facts |= {"is_linear": 0, "shrinkage": 1}
    return f"Tree={number}\n" + _lines(facts) + "\n\n"


def _lines(facts: dict[str, Any]) -> str:
    return "".join(f"{name}={_text(value)}\n" for name, value in facts.items())


def _text(value: Any) -> str:
    if isinstance(value, list | np.ndarray):
        return " ".join(_text(item) for item in (value.tolist() if isinstance(value, np.ndarray) else value))
    return repr(float(value)) if isinstance(value, float) else str(value)
