"""A pipeline that has a bit of everything that KFP's compiler writes."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Collected, Dataset, Input, Model, Output


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def split(rows: int, data: Output[Dataset]) -> NamedTuple("Outputs", [("parts", list), ("many", bool)]):
    from pathlib import Path

    Path(data.path).write_text(str(rows))
    return [1, 2, 3], rows > 2


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def fit(data: Input[Dataset], part: int, model: Output[Model], rate: float = 0.1) -> int:
    from pathlib import Path

    Path(model.path).write_text(f"{part} {rate}")
    return part


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def best(models: Input[list[Model]], scores: list) -> float:
    return float(max(scores)) + len(models)


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def tell(text: str) -> str:
    return text


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def finish(status: dsl.PipelineTaskFinalStatus):
    print(status.state)


@dsl.container_component
def show(data: Input[Dataset], title: str = "data"):
    return dsl.ContainerSpec(
        image="alpine:3.20", command=["sh", "-c"], args=[dsl.ConcatPlaceholder(["echo ", title]), data.path]
    )


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def look(found: Input[Artifact]) -> str:
    return found.uri


@dsl.pipeline(name="rich")
def rich(rows: int = 3, sizes: list = [1, 2], greeting: str = "hello") -> str:  # noqa: B006 kfp copies it
    with dsl.ExitHandler(finish()):
        parted = split(rows=rows)
        show(data=parted.outputs["data"])
        with dsl.ParallelFor(parted.outputs["parts"], parallelism=2) as part:
            fitted = fit(data=parted.outputs["data"], part=part)
        best(models=Collected(fitted.outputs["model"]), scores=Collected(fitted.outputs["Output"]))
        with dsl.ParallelFor([1, 2]) as size:
            fit(data=parted.outputs["data"], part=size, rate=0.5)
        with dsl.ParallelFor(sizes) as size:
            fit(data=parted.outputs["data"], part=size).set_retry(2).set_cpu_limit("1")
    with dsl.If(rows > 2, name="many"):
        said = tell(text=f"{greeting}, many")
    with dsl.Else():
        other = tell(text="few")
    chosen = dsl.OneOf(said.output, other.output)
    imported = dsl.importer(artifact_uri="gs://bucket/trips", artifact_class=Dataset, reimport=False)
    look(found=imported.output)
    return tell(text=chosen).output
