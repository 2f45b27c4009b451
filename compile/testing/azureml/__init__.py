"""Azure ML on 127.0.0.1."""

from penstock.testing.azureml.plays import JobState, JobStates
from penstock.testing.azureml.rehearsals import Rehearsal
from penstock.testing.azureml.stand_in import AzureMLStandIn

__all__ = ["AzureMLStandIn", "JobState", "JobStates", "Rehearsal"]
