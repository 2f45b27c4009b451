"""Shapley values by their definition: every subset of the columns is tried. Written apart from what it is to check."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import skops.io

from penstock.components._shared.tabular import SKLEARN_TYPES


@dataclass(frozen=True)
class Node:
    """A node of a tree; a leaf has a value, a split a column, a rule and two children."""

    cover: float
    value: Any = None
    feature: int = -1
    first: Callable[[float], bool] | None = None
    children: tuple[Node, ...] = ()


def shapley(value: Callable[[frozenset[int]], Any], features: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the Shapley values of a game, (features, ...), and the value of the empty set."""
    sets = {frozenset(chosen): np.asarray(value(frozenset(chosen))) for chosen in subsets(range(features))}
    found = []
    for feature in range(features):
        total = 0.0
        for chosen in subsets(place for place in range(features) if place != feature):
            known = frozenset(chosen)
            weight = math.factorial(len(known)) * math.factorial(features - len(known) - 1) / math.factorial(features)
            total = total + weight * (sets[known | {feature}] - sets[known])
        found.append(total)
    return np.array(found), sets[frozenset()]


def subsets(places: Iterable[int]) -> list[tuple[int, ...]]:
    every = list(places)
    return [chosen for size in range(len(every) + 1) for chosen in itertools.combinations(every, size)]


def conditional(tree: Node, row: np.ndarray, known: frozenset[int]) -> Any:
    """Return a tree's value where columns that are not known go both ways, by the training rows that did."""
    if tree.first is None:
        return tree.value
    if tree.feature in known:
        return conditional(tree.children[0 if tree.first(row[tree.feature]) else 1], row, known)
    total = sum(child.cover for child in tree.children)
    return sum(child.cover / total * conditional(child, row, known) for child in tree.children)


def interventional(
    predict: Callable[[np.ndarray], np.ndarray], background: np.ndarray, row: np.ndarray, known: frozenset[int]
) -> np.ndarray:
    """Return the mean prediction where columns that are not known have the values of the background."""
    rows = background.copy()
    for feature in known:
        rows[:, feature] = row[feature]
    return predict(rows).mean(axis=0)


def xgboost_trees(folder: Path, outputs: int) -> tuple[list[list[Node]], np.ndarray]:
    import xgboost

    booster = xgboost.Booster(model_file=str(folder / "model.ubj"))
    names = booster.feature_names

    def read(node: dict[str, Any]) -> Node:
        if "leaf" in node:
            return Node(node["cover"], node["leaf"])
        by_id = {child["nodeid"]: read(child) for child in node["children"]}
        condition, missing = node["split_condition"], node["missing"] == node["yes"]
        if isinstance(condition, list):  # a category of the list takes the branch that is called yes
            rule = lambda x: missing if np.isnan(x) else int(x) in condition  # noqa: E731
        else:
            rule = lambda x: missing if np.isnan(x) else np.float32(x) < np.float32(condition)  # noqa: E731
        children = (by_id[node["yes"]], by_id[node["no"]])
        return Node(node["cover"], feature=names.index(node["split"]), first=rule, children=children)

    trees = [read(json.loads(text)) for text in booster.get_dump(dump_format="json", with_stats=True)]
    score = json.loads(booster.save_config())["learner"]["learner_model_param"]["base_score"]
    base = np.array(json.loads(score), dtype=float).reshape(-1) * np.ones(outputs)
    if json.loads(booster.save_config())["learner"]["objective"]["name"] == "binary:logistic":
        base = np.log(base / (1 - base))
    return [trees[place::outputs] for place in range(outputs)], base


def lightgbm_trees(folder: Path, outputs: int) -> tuple[list[list[Node]], np.ndarray]:
    import lightgbm

    def read(node: dict[str, Any]) -> Node:
        if "leaf_value" in node:
            return Node(node.get("leaf_count", 1), node["leaf_value"])
        children = (read(node["left_child"]), read(node["right_child"]))
        if node["decision_type"] == "==":
            left = {int(text) for text in node["threshold"].split("||")}
            rule = lambda x: not np.isnan(x) and int(x) in left  # noqa: E731
        else:
            # Where no value was missing in training, LightGBM reads NaN as 0.
            zero = node["missing_type"] == "None"
            rule = lambda x: (  # noqa: E731
                (node["threshold"] >= 0.0 if zero else node["default_left"]) if np.isnan(x) else x <= node["threshold"]
            )
        return Node(node["internal_count"], feature=node["split_feature"], first=rule, children=children)

    dumped = lightgbm.Booster(model_file=str(folder / "model.txt")).dump_model()
    trees = [read(tree["tree_structure"]) for tree in dumped["tree_info"]]
    return [trees[place::outputs] for place in range(outputs)], np.zeros(outputs)


def hist_gradient_boosting_trees(folder: Path, outputs: int) -> tuple[list[list[Node]], np.ndarray]:
    estimator = skops.io.load(folder / "model.skops", trusted=list(SKLEARN_TYPES))
    categorical = np.asarray(estimator.is_categorical_)
    order = [*np.flatnonzero(categorical), *np.flatnonzero(~categorical)]
    encoder = estimator._preprocessor.named_transformers_["encoder"]

    def read(predictor: Any, place: int) -> Node:
        node = predictor.nodes[place]
        if node["is_leaf"]:
            return Node(float(node["count"]), float(node["value"]))
        feature, missing = node["feature_idx"], bool(node["missing_go_to_left"])
        if node["is_categorical"]:
            bits = predictor.raw_left_cat_bitsets[node["bitset_idx"]]
            learned = [value for value in encoder.categories_[feature] if not np.isnan(value)]

            def rule(x: float) -> bool:
                if np.isnan(x) or x not in learned:
                    return missing
                code = learned.index(x)
                return bool(int(bits[code // 32]) >> (code % 32) & 1)
        else:
            rule = lambda x: missing if np.isnan(x) else x <= node["num_threshold"]  # noqa: E731
        children = (read(predictor, node["left"]), read(predictor, node["right"]))
        return Node(float(node["count"]), feature=int(order[feature]), first=rule, children=children)

    trees = [[read(iteration[place], 0) for iteration in estimator._predictors] for place in range(outputs)]
    return trees, np.asarray(estimator._baseline_prediction, dtype=float).reshape(-1)


def random_forest_trees(folder: Path, outputs: int) -> tuple[list[list[Node]], np.ndarray]:
    estimator = skops.io.load(folder / "model.skops", trusted=list(SKLEARN_TYPES))
    scale = 1 / len(estimator.estimators_)

    def read(tree: Any, place: int, output: int) -> Node:
        cover = float(tree.weighted_n_node_samples[place])
        if tree.children_left[place] == -1:
            values = tree.value[place, 0]
            return Node(cover, scale * (values[output] / values.sum() if len(values) > 1 else values[0]))
        threshold, missing = tree.threshold[place], bool(tree.missing_go_to_left[place])
        rule = lambda x: missing if np.isnan(x) else np.float32(x) <= threshold  # noqa: E731
        children = tuple(read(tree, side[place], output) for side in (tree.children_left, tree.children_right))
        return Node(cover, feature=int(tree.feature[place]), first=rule, children=children)

    classes = list(range(outputs)) if outputs > 1 or not hasattr(estimator, "classes_") else [1]
    trees = [[read(tree.tree_, 0, output) for tree in estimator.estimators_] for output in classes]
    return trees, np.zeros(outputs)


TREES = {
    "xgboost": xgboost_trees,
    "lightgbm": lightgbm_trees,
    "hist_gradient_boosting": hist_gradient_boosting_trees,
    "random_forest": random_forest_trees,
}
