"""Tests pipelines without a cloud: stand-ins that the platforms' own clients talk to, and components run alone."""

if __name__ != "penstock.testing":
    raise ImportError(f"this package is penstock.testing, not {__name__}: import it so")

from penstock.testing.azureml import AzureMLStandIn, JobState, JobStates, Rehearsal
from penstock.testing.component import Artifact, ComponentFailed, Outputs, run_component
from penstock.testing.conversions import assert_same_run, run_azureml_job
from penstock.testing.faults import ALWAYS, Fault
from penstock.testing.katib import KatibStandIn
from penstock.testing.kserve import KServeStandIn
from penstock.testing.kubeflow import KubeflowStandIn
from penstock.testing.runs import Engine, Script
from penstock.testing.server import Answer, ApiError, Request, Route, StandIn
from penstock.testing.vertex import VertexStandIn

__all__ = [
    "ALWAYS",
    "Answer",
    "ApiError",
    "Artifact",
    "AzureMLStandIn",
    "ComponentFailed",
    "Engine",
    "Fault",
    "JobState",
    "JobStates",
    "KServeStandIn",
    "KatibStandIn",
    "KubeflowStandIn",
    "Outputs",
    "Rehearsal",
    "Request",
    "Route",
    "Script",
    "StandIn",
    "VertexStandIn",
    "assert_same_run",
    "run_azureml_job",
    "run_component",
]
