"""The declaration of `transform`."""

from typing import Any, Dict, List, NamedTuple, Optional  # kfp reads these names

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from penstock.components.caching import uncached
from penstock.components.images import image


@uncached
@dsl.component(base_image=image("beam"), install_kfp_package=False)
def transform(
    train_set: Input[Dataset],
    transformed_train: Output[Dataset],
    transformed_eval: Output[Dataset],
    transform_graph: Output[Artifact],
    eval_set: Optional[Input[Dataset]] = None,
    preprocessing: Optional[Input[Artifact]] = None,
    preprocessing_uri: str = "",
    features: Dict[str, Any] = {},
    keep: List[str] = [],
    beam_options: Dict[str, Any] = {"runner": "DirectRunner"},
) -> NamedTuple("Transformed", [("train_rows", int), ("eval_rows", int)]):
    """Transform rows by TensorFlow Transform, and write the graph that does the same where a model is served.

    Args:
        train_set: Rows to transform; means, quantiles and vocabularies are taken of all of them.
        transformed_train: The rows of train_set, transformed, in their order.
        transformed_eval: The rows of eval_set likewise; no rows without one.
        transform_graph: Output of TensorFlow Transform, as TFX reads it: transform_fn, transformed_metadata, metadata.
        eval_set: Rows to transform by what train_set taught.
        preprocessing: Python file with a function `preprocessing_fn(inputs)`.
        preprocessing_uri: Path or URI of such a file, in place of preprocessing.
        features: Without a file, what becomes of columns: "scale" (mean 0, deviation 1), {"bucketize": buckets},
            "vocabulary" or {"vocabulary": most words}, {"hash": buckets}, "keep". Empty: numbers are scaled, and texts
            looked up in vocabularies.
        keep: Columns that stay as they are, such as the target.
        beam_options: Beam's own options; `runner` is DirectRunner, or one of a cluster whose temp_location TensorFlow
            reads.

    Returns:
        train_rows: Rows in transformed_train.
        eval_rows: Rows in transformed_eval.
    """
    from penstock.components.transformation.transform import transform

    result = transform(
        (train_set.path, train_set.uri),
        (eval_set.path, eval_set.uri) if eval_set else None,
        transformed_train.path,
        transformed_eval.path,
        transform_graph.path,
        preprocessing=preprocessing.path if preprocessing else preprocessing_uri,
        features=features,
        keep=keep,
        beam_options=beam_options,
        uris=(transformed_train.uri, transformed_eval.uri),
    )
    return (result.train_rows, result.eval_rows)
