"""What tests of our own images share."""

import contextlib
from pathlib import Path

import pytest

from penstock.compile import images
from penstock.compile.targets.local.containers import available

ROOT = Path(__file__).parents[2]
BASE = "python:3.11-slim"


@pytest.fixture(scope="session")
def engine():
    """The engine's client; its tests skip where none answers or it lacks the base image."""
    import docker

    if reason := available():
        pytest.skip(reason)
    with contextlib.closing(docker.from_env().api) as client:
        if not client.images(BASE):
            pytest.skip(f"the base image {BASE} is not here")
        yield client


@pytest.fixture(scope="session")
def built(engine):
    """A function that returns the image of an environment; it is built where its inputs have changed."""

    def build(name: str) -> images.Image:
        (environment,) = images.environments(ROOT, [name])
        if environment.base and not engine.images(environment.base):
            pytest.skip(f"the base image {environment.base} is not here")
        with images.Engine(print) as ours:
            return ours.build(environment)

    return build
