"""LightGBM: TreeSHAP of its own, path-dependent, in double precision."""

from __future__ import annotations

import lightgbm
import numpy as np

from penstock.components.explanation.explainers import MARGIN, Attributed, Explainer, Makers, Subject


def makers(subject: Subject) -> Makers:
    text = (subject.folder / "model.txt").read_text(encoding="utf-8")
    # A leaf that is itself a linear model has no single value to hand on to the columns of its path.
    return {} if "\nis_linear=1" in text else {"tree": lambda: of_booster(lightgbm.Booster(model_str=text))}


def of_booster(
    booster: lightgbm.Booster, base: np.ndarray | float = 0.0, about: str = "TreeSHAP, exact: LightGBM's pred_contrib"
) -> Explainer:
    """Return the explainer of a booster, to whose output `base` is added."""

    def attribute(matrix: np.ndarray) -> Attributed:
        found = booster.predict(matrix, pred_contrib=True).reshape(len(matrix), -1, matrix.shape[1] + 1)
        outputs = booster.predict(matrix, raw_score=True).reshape(len(matrix), -1)
        return Attributed(found[:, :, :-1], found[0, :, -1] + base, outputs + base)

    return Explainer(attribute, about, MARGIN, tolerance=1e-9)
