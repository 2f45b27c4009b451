"""What pipelines with branches need that stand in other pipelines."""

from kfp.dsl.pipeline_context import Pipeline

_APART = 100  # branches that a pipeline around this one may have


def number_apart() -> None:
    """Have the branches of the pipeline that is being defined numbered apart from those around it.

    KFP numbers the branches of each pipeline from 1, and takes those of one that is nested for those around it.
    """
    for _ in range(_APART):
        Pipeline.get_default_pipeline().get_next_group_id()
