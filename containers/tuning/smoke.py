"""A search of a few trials, by which an image of this environment shows that it can."""

from kfp import dsl

from penstock.components import ingest, tune
from penstock.components.images import image
from penstock.pipelines.tabular_training import TIPS
from penstock.pipelines.tuned_training import SPACE

# Trials need rows; this environment has what ingest needs, too.
ingest_here = dsl.component(base_image=image("tuning"), install_kfp_package=False)(ingest.python_func)


@dsl.pipeline(name="searched")
def searched(source: str, seed: int) -> None:
    """Search a few hyperparameters on made-up trips."""
    ingested = ingest_here(source=source, query=TIPS)
    tune(
        train_set=ingested.outputs["train_set"],
        eval_set=ingested.outputs["eval_set"],
        target="big_tip",
        space=SPACE,
        max_trials=4,
        max_rounds=20,
        parallel_trials=2,
        seed=seed,
        fit_best=True,
    )
