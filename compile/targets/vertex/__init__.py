"""Sends runs and schedules to Vertex AI Pipelines."""

from penstock.compile.targets.vertex.jobs import REFUSED, refusals, run_id
from penstock.compile.targets.vertex.platform import Vertex as connect

__all__ = ["REFUSED", "connect", "refusals", "run_id"]
