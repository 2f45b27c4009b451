"""pytest fixtures: stand-ins that the client libraries are pointed at for the time of a test.

Named in a conftest.py: pytest_plugins = ["penstock.testing.fixtures"]. There is no entry point for it: pytest would
import it, and the engine with it, at the start of every test session of everybody who has Penstock installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from penstock.testing.azureml import AzureMLStandIn
    from penstock.testing.kubeflow import KubeflowStandIn
    from penstock.testing.vertex import VertexStandIn


@pytest.fixture
def vertex() -> Iterator[VertexStandIn]:
    """Vertex AI on 127.0.0.1, to which google-cloud-aiplatform and google-cloud-storage talk; runs jobs for real.

    aiplatform.init is done: project test-project, location us-central1, a staging bucket. Before the next test all is
    as it was. `vertex.play = Script(…)` lets the test say how jobs go.
    """
    from penstock.testing.vertex import VertexStandIn

    with VertexStandIn() as stand_in, stand_in.connected():
        yield stand_in


@pytest.fixture
def kubeflow() -> Iterator[KubeflowStandIn]:
    """Kubeflow Pipelines on 127.0.0.1, to which kfp.Client() talks; runs runs for real.

    `kubeflow.play = Script(…)` lets the test say how they go.
    """
    from penstock.testing.kubeflow import KubeflowStandIn

    with KubeflowStandIn() as stand_in, stand_in.connected():
        yield stand_in


@pytest.fixture
def azureml() -> Iterator[AzureMLStandIn]:
    """A workspace of Azure ML on 127.0.0.1, which every MLClient finds that is made during the test.

    `azureml.client()` is one, with its own credential. Jobs go as `azureml.play` says, and do not run; before the next
    test all is as it was.
    """
    from penstock.testing.azureml import AzureMLStandIn

    with AzureMLStandIn() as stand_in, stand_in.connected():
        yield stand_in
