"""From raw trips to a registered model, by which an image of this environment shows that it can."""

from kfp import dsl

from penstock.components import evaluate, ingest, register, train, validate
from penstock.pipelines.tabular_training import TIPS


@dsl.pipeline(name="raw-to-registered")
def raw_to_registered(source: str, seed: int) -> None:
    """Train a model of made-up trips, measure it and register it."""
    ingested = ingest(source=source, query=TIPS)
    data, held_out = ingested.outputs["train_set"], ingested.outputs["eval_set"]
    validated = validate(dataset=data)
    model = train(train_set=data, eval_set=held_out, target="big_tip", seed=seed).outputs["model"]
    evaluated = evaluate(model=model, eval_set=held_out, gate=["auc >= 0.5"], model_name="smoke", seed=seed)
    register(
        model=model,
        metrics=evaluated.outputs["metrics"],
        schema=validated.outputs["schema"],
        model_name="smoke",
        expected_version=evaluated.outputs["champion_version"],
    )
