"""Sends runs and schedules to Kubeflow Pipelines."""

from penstock.compile.targets.kubeflow.options import REFUSED, refusals, run_id
from penstock.compile.targets.kubeflow.platform import Kubeflow as connect

__all__ = ["REFUSED", "connect", "refusals", "run_id"]
