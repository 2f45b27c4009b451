"""Rows that are held to a schema, on one machine or on Beam: the choice is a parameter, so one spec carries both."""

from typing import Any, Dict, NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input

from penstock.components import validate
from penstock.components.images import image
from penstock.pipelines.branches import number_apart


class Validated(NamedTuple):
    """What is known of the rows: the schema that they were held to, and their statistics."""

    schema: Artifact
    statistics: Artifact


@dsl.pipeline(name="validated")
def validated(
    dataset: Input[Dataset],
    schema_uri: str = "",
    on_anomaly: str = "fail",
    engine: str = "local",
    beam_options: Dict[str, Any] = {"runner": "DirectRunner"},
) -> Validated:
    """Hold a dataset to a schema, on one machine or on Beam, each in its own image.

    Args:
        dataset: Rows to describe and check.
        schema_uri: Path or URI of a schema.pbtxt. Empty: inferred.
        on_anomaly: "fail" to stop at anomalies, "report" to go on.
        engine: "beam" for Beam; anything else is for `validate` itself.
        beam_options: Beam's own options, the runner among them.

    Returns:
        schema: What the dataset was held to.
        statistics: What it holds.
    """
    number_apart()
    given = {
        "dataset": dataset,
        "schema_uri": schema_uri,
        "on_anomaly": on_anomaly,
        "engine": engine,
        "beam_options": beam_options,
    }
    with dsl.If(engine != "beam", name="on-one-machine"):
        here = validate(**given)
    with dsl.Else(name="on-beam"):
        there = validate(**given).set_container_image(image("beam")).set_display_name("validate on Beam")
    return Validated(
        schema=dsl.OneOf(here.outputs["schema"], there.outputs["schema"]),
        statistics=dsl.OneOf(here.outputs["statistics"], there.outputs["statistics"]),
    )
