"""Pipelines made of Penstock's components. They are also the examples."""

if __name__ != "penstock.pipelines":
    raise ImportError(f"this package is penstock.pipelines, not {__name__}: run `make setup`, then import it so")

from penstock.pipelines.batch_scoring import batch_scoring
from penstock.pipelines.continuous_training import continuous_training
from penstock.pipelines.deploy_model import deploy_model
from penstock.pipelines.feature_sync import feature_sync
from penstock.pipelines.spread_training import spread_training
from penstock.pipelines.tabular_training import tabular_training
from penstock.pipelines.transformed_training import transformed_training
from penstock.pipelines.tuned_training import tuned_training

__all__ = [
    "batch_scoring",
    "continuous_training",
    "deploy_model",
    "feature_sync",
    "spread_training",
    "tabular_training",
    "transformed_training",
    "tuned_training",
]
