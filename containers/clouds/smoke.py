"""Predictions by a model that was trained in the same image, by which an image of this environment shows it can."""

from kfp import dsl

from penstock.components import ingest, predict_batch, train
from penstock.components.images import image
from penstock.pipelines.tabular_training import TIPS

# This environment has what ingest and train need, too.
ingest_here, train_here = (
    dsl.component(base_image=image("clouds"), install_kfp_package=False)(each.python_func) for each in (ingest, train)
)


@dsl.pipeline(name="acted")
def acted(source: str, seed: int) -> None:
    """Predict made-up trips by a model of them."""
    ingested = ingest_here(source=source, query=TIPS)
    trained = train_here(
        train_set=ingested.outputs["train_set"],
        eval_set=ingested.outputs["eval_set"],
        target="big_tip",
        max_rounds=5,
        seed=seed,
    )
    predict_batch(model=trained.outputs["model"], dataset=ingested.outputs["eval_set"])
