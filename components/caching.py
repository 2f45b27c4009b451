"""Steps that are never taken from a cache."""

from typing import Any

from kfp import dsl
from kfp.dsl.python_component import PythonComponent


def uncached(component: PythonComponent) -> PythonComponent:
    """Turn caching off for every task of a component that reads or changes what lies outside of its ports.

    The key of a platform's cache holds parameters and the names of artifacts; of a file behind a path, a registry or an
    endpoint it knows nothing. A pipeline can still say `task.set_caching_options(True)`.
    """
    return _Uncached(component.component_spec, component.python_func)


class _Uncached(PythonComponent):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        task = super().__call__(*args, **kwargs)
        # Outside of a pipeline, kfp.local has run the task by now; it has no cache for lone components.
        return task if dsl.pipeline_context.Pipeline.get_default_pipeline() is None else task.set_caching_options(False)

    @property
    def pipeline_spec(self) -> Any:
        spec = super().pipeline_spec
        for task in spec.root.dag.tasks.values():
            task.caching_options.ClearField("enable_cache")
        return spec
