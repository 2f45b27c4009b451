"""Kubeflow Pipelines on 127.0.0.1."""

from penstock.testing.kubeflow.stand_in import KubeflowStandIn

__all__ = ["KubeflowStandIn"]
