"""Katib, of Kubeflow, on 127.0.0.1."""

from penstock.testing.katib.stand_in import KatibStandIn

__all__ = ["KatibStandIn"]
