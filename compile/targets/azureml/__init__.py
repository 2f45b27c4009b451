"""Azure ML: compiled pipelines become pipeline jobs of its second version, and are sent there."""

from penstock.compile.targets.azureml.jobs import REFUSED, own_form, refusals, run_id
from penstock.compile.targets.azureml.platform import AzureML as connect

__all__ = ["REFUSED", "connect", "own_form", "refusals", "run_id"]
