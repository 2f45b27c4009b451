"""A user's file with what makes kfp's own output differ from one compilation to the next."""

# kfp reads the names of typing, and copies defaults.
# ruff: noqa: B006, UP006, UP035, UP045

from typing import Dict, List, NamedTuple, Optional

from helper import SQL  # a neighbour of this file
from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

SETTINGS = {"zeta": 1, "alpha": {"y": "no", "n": 2.5}, "mu": ["on", "1e3"], "été": True}


@dsl.component(base_image="python:3.11", packages_to_install=["b", "a"])
def make(rows: int, data: Output[Dataset], settings: Dict[str, int] = {"b": 1, "a": 2}) -> NamedTuple(
    "Made", [("count", int), ("names", List[str])]
):
    """Make rows.

    Args:
        rows: How many.
        data: The rows.
        settings: By name,
            in two lines.

    Returns:
        count: How many there are.
        names: Their names.
    """
    with open(data.path, "w") as file:
        file.write("é\n" * rows)
    return (rows, ["a", "b"])


@dsl.component(base_image="python:3.11")
def measure(
    data: Input[Dataset], metrics: Output[Metrics], name: str = "x", extra: Optional[Input[Artifact]] = None
) -> float:
    metrics.log_metric("size", 1.5)
    return 1.5


@dsl.component(base_image="python:3.11")
def tell(text: str):
    print(text)


@dsl.container_component
def shout(text: str):
    """Say it aloud."""
    return dsl.ContainerSpec(image="alpine", command=["sh", "-c", 'echo "$0"'], args=[text])


@dsl.pipeline
def inner(rows: int = 3) -> float:
    made = make(rows=rows)
    return measure(data=made.outputs["data"]).outputs["Output"]


@dsl.pipeline(name="many-features")
def features(
    query: str = SQL,
    settings: Dict[str, object] = SETTINGS,
    names: List[str] = ["a", "b"],
    rows: int = 3,
) -> float:
    """Show everything that
    # looks like a comment: or not.

    A second paragraph – with é and 🙂.
    """
    with dsl.ExitHandler(shout(text="the end")):
        made = make(rows=rows).set_caching_options(False)
        with dsl.ParallelFor(items=made.outputs["names"], parallelism=2) as name:
            measured = measure(data=made.outputs["data"], name=name)
            with dsl.If(measured.outputs["Output"] > 1):
                tell(text=query)
            with dsl.Else():
                tell(text="no").set_retry(num_retries=2)
    return inner(rows=rows).output


@dsl.pipeline(name="with-a-platform", pipeline_config=dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size="1Gi")))
def with_platform(text: str = "hello"):
    tell(text=text)
