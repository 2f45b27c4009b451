"""A pipeline whose second task fails until a file is there, and whose first counts how often it runs."""

from kfp import dsl


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def count(marker: str) -> str:
    import os

    with open(os.path.join(os.path.dirname(marker), "count"), "a") as file:
        file.write("x")
    return marker


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def need(marker: str):
    import os

    if not os.path.exists(marker):
        raise FileNotFoundError(marker)


@dsl.pipeline(name="once")
def once(marker: str):
    need(marker=count(marker=marker).output)
