"""XGBoost: TreeSHAP of its own, path-dependent, in single precision."""

from __future__ import annotations

import numpy as np
import xgboost

from penstock.components.explanation.explainers import MARGIN, Attributed, Explainer, Makers, Subject


def makers(subject: Subject) -> Makers:
    return {"tree": lambda: _tree(subject)}


def _tree(subject: Subject) -> Explainer:
    booster = xgboost.Booster(model_file=str(subject.folder / "model.ubj"))

    def attribute(matrix: np.ndarray) -> Attributed:
        rows = xgboost.DMatrix(
            matrix, missing=np.nan, feature_names=booster.feature_names, feature_types=booster.feature_types
        )
        found = booster.predict(rows, pred_contribs=True, strict_shape=True).astype(np.float64)
        outputs = booster.predict(rows, output_margin=True, strict_shape=True).astype(np.float64)
        return Attributed(found[:, :, :-1], found[0, :, -1], outputs)

    return Explainer(attribute, "TreeSHAP, exact: XGBoost's pred_contribs", MARGIN, tolerance=1e-4)
