"""Small pipelines that succeed, fail, wait and choose."""

# kfp reads the names of typing.
# ruff: noqa: UP006, UP035

from typing import List, NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Metrics, Output


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def count(n: int, seconds: float = 0.0) -> int:
    """Count on by one."""
    import time

    time.sleep(seconds)
    return n + 1


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def rate(n: int, metrics: Output[Metrics], page: Output[HTML]) -> NamedTuple("Rated", [("good", bool), ("why", str)]):
    """Rate a number."""
    metrics.log_metric("score", 0.731234567)
    with open(page.path, "w") as file:
        file.write("<!doctype html><title>t</title><h1>Rated</h1>")
    return (n > 2, "so\nit is")


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def refuse(text: str):
    """Fail as a component does that was given something wrong."""
    import sys

    print(f"error: refuse: text: {text} is not wanted. Give another.", file=sys.stderr)
    sys.exit(65)


@dsl.pipeline(name="choosing")
def choosing(n: int = 1, seconds: float = 0.0, names: List[str] = ["a"]) -> int:  # noqa: B006
    """Count, and go on if it is enough."""
    counted = count(n=n, seconds=seconds)
    rated = rate(n=counted.output)
    with dsl.If(rated.outputs["good"] == True, name="enough"):  # noqa: E712
        count(n=counted.output)
    return counted.output


@dsl.pipeline(name="failing")
def failing(text: str = "that"):
    refused = refuse(text=text)
    count(n=1).after(refused)


@dsl.pipeline(name="waiting")
def waiting(seconds: float = 120.0):
    count(n=1, seconds=seconds)
    count(n=2, seconds=seconds)


@dsl.pipeline(name="counted")
def counted(n: int, fast: bool) -> int:
    """Count here or there."""
    with dsl.If(fast == True, name="here"):  # noqa: E712
        here = count(n=n)
    with dsl.Else(name="there"):
        there = count(n=n, seconds=0.01).set_display_name("count slowly")
    return dsl.OneOf(here.output, there.output)


@dsl.pipeline(name="forking")
def forking(fast: bool = True, loops: List[int] = [1, 2]) -> int:  # noqa: B006
    """Count in one of two ways, in a loop and perhaps once more."""
    first = counted(n=1, fast=fast)
    with dsl.ParallelFor(loops) as number:
        count(n=number).after(first)
    with dsl.If(fast == False):  # noqa: E712
        rate(n=first.output)
    return first.output
