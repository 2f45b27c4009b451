"""Mean attributions as Vertex AI imports them with a model's evaluation.

Google's ModelImportEvaluationOp reads a file of this form as `feature_attributions` and shows it as the evaluation's
feature importance. The first entry is of all rows; those of classes have the class as `value`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def attributions(
    features: Mapping[str, float], by_class: Sequence[tuple[str, Mapping[str, float]]] = ()
) -> dict[str, Any]:
    """Return the content of the file.

    Args:
        features: Mean absolute attribution by feature.
        by_class: The same by class, of a multiclass model.
    """
    found: list[dict[str, Any]] = [{"featureAttributions": dict(features)}]
    found += [{"value": label, "featureAttributions": dict(values)} for label, values in by_class]
    return {"explanation": {"attributions": found}}
