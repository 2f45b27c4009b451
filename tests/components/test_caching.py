"""Steps that read or change the outside are compiled without caching, also in pipelines that never think of it."""

from kfp import compiler, dsl

from penstock.compile import from_kfp
from penstock.components import train
from penstock.components.caching import uncached


@uncached
@dsl.component(base_image="python:3.11", install_kfp_package=False)
def now() -> str:
    import time

    return str(time.time())


def caching(what, tmp_path) -> dict[str, bool]:
    compiler.Compiler().compile(what, str(tmp_path / "spec.yaml"))
    return {path: task.caching.enabled for path, task in from_kfp.read(tmp_path / "spec.yaml").walk()}


def test_tasks_of_an_uncached_component_are_not_cached_unless_the_pipeline_says_so(tmp_path):
    @dsl.pipeline(name="two")
    def two():
        now()
        now().set_caching_options(True)
        with dsl.If(now().output == "1"):
            now()

    found = caching(two, tmp_path)
    assert found == {"now": False, "now-2": True, "now-3": False, "condition-1": False, "condition-1.now-4": False}


def test_it_is_not_cached_when_it_is_compiled_alone(tmp_path):
    assert caching(now, tmp_path) == {"now": False}
    assert caching(train, tmp_path) == {"train": True}


def test_it_is_still_the_component_that_it_was():
    assert now.name == "now"
    assert float(now.python_func()) > 0
    assert float(now.execute()) > 0
