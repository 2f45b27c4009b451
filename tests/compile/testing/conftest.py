"""What tests of the stand-ins share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from penstock.compile.to_kfp import compiled as compiled_by_us
from penstock.testing import Script, VertexStandIn


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def double(number: int) -> int:
    return 2 * number


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def describe(number: int, text: dsl.Output[dsl.Dataset], metrics: dsl.Output[dsl.Metrics]) -> str:
    with open(text.path, "w") as file:
        file.write(f"the number is {number}")
    metrics.log_metric("number", number)
    return f"it is {number}"


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def fail(message: str):
    raise ValueError(message)


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def wait(seconds: float):
    import time

    time.sleep(seconds)


@dsl.pipeline(name="doubling")
def doubling(number: int = 3):
    describe(number=double(number=number).output)


@dsl.pipeline(name="failing")
def failing(message: str = "no such column"):
    fail(message=message)


@dsl.pipeline(name="waiting")
def waiting(seconds: float = 60.0):
    wait(seconds=seconds)


PIPELINES = {"doubling": doubling, "failing": failing, "waiting": waiting}


@pytest.fixture(scope="session")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths of compiled pipelines by name: doubling, failing and waiting."""
    folder: Path = tmp_path_factory.mktemp("specs")
    paths = {}
    for name, pipeline in PIPELINES.items():
        compiled_by_us(pipeline).write(folder / f"{name}.yaml")
        paths[name] = str(folder / f"{name}.yaml")
    return paths


@pytest.fixture(scope="session")
def aiplatform() -> Any:
    """The Vertex AI SDK, imported when the first test asks for it: that takes two seconds."""
    return pytest.importorskip("google.cloud.aiplatform")


@pytest.fixture(scope="session")
def exceptions() -> Any:
    """What the SDK raises."""
    return pytest.importorskip("google.api_core.exceptions")


@pytest.fixture
def vertex(aiplatform: Any) -> Iterator[VertexStandIn]:
    """A stand-in of Vertex AI that the SDK talks to; jobs succeed without running."""
    with VertexStandIn(Script()) as stand_in, stand_in.connected():
        yield stand_in
