"""Any model: Shapley values from random orders of the columns, each walked forth and back.

Štrumbelj, Kononenko: Explaining prediction models and individual predictions with feature contributions. Knowledge and
Information Systems 41 (2014).
"""

from __future__ import annotations

import numpy as np

from penstock.components.explanation.explainers import PREDICTION, Attributed, Explainer, Subject, of_classes

BACKGROUND = 50  # rows whose values stand in for a column that is not known
ORDERS = 10  # of the columns, a row


def explainer(subject: Subject) -> Explainer:
    import shap

    rows, weights = subject.background()
    random = np.random.default_rng(subject.seed)
    chosen = random.choice(len(rows), size=BACKGROUND, p=weights / weights.sum())
    background = rows[np.sort(chosen)]
    features = len(subject.model.encoded)
    steps = 2 * features + 1

    def predict(matrix: np.ndarray) -> np.ndarray:
        return of_classes(subject.model.predict_matrix(matrix), subject.model.task)

    masked = shap.maskers.Independent(background, max_samples=BACKGROUND)
    inner = shap.explainers.Permutation(predict, masked, seed=subject.seed)
    cost = BACKGROUND * ORDERS * steps

    def attribute(matrix: np.ndarray) -> Attributed:
        found = inner(matrix, max_evals=ORDERS * steps, silent=True)
        values = np.asarray(found.values, dtype=np.float64).reshape(len(matrix), features, -1).transpose(0, 2, 1)
        outputs = predict(matrix)
        base = predict(background).mean(axis=0)
        return Attributed(values, base, outputs)

    return Explainer(
        attribute,
        f"Shapley values from {ORDERS} random orders of the columns, each forth and back, over {BACKGROUND} background "
        "rows: shap's Permutation",
        PREDICTION,
        tolerance=1e-6,
        most_rows=max(1, subject.max_evaluations // cost),
        background_rows=BACKGROUND,
        cost=f"each row costs {cost:,} predictions, and max_evaluations is {subject.max_evaluations:,}",
    )
