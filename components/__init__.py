"""Penstock's components: `from penstock.components import ingest, train`."""

import os

if __name__ != "penstock.components":
    raise ImportError(f"this package is penstock.components, not {__name__}: run `make setup`, then import it so")

# Where KFP's executor runs a component, kfp.dsl has no decorators, and only the logic is wanted.
if os.environ.get("_KFP_RUNTIME", "false") != "true":
    from penstock.components.deployment.component import deploy, roll_out, set_traffic, undeploy
    from penstock.components.evaluation.component import evaluate
    from penstock.components.explanation.component import explain, model_card
    from penstock.components.features.component import (
        check_serving,
        compute_features,
        retrieve_features,
        sync_features,
    )
    from penstock.components.ingestion.component import ingest
    from penstock.components.monitoring.component import detect_drift, monitor_performance
    from penstock.components.notification.component import notify
    from penstock.components.prediction.component import predict_batch
    from penstock.components.registry.component import fetch_model, fetch_reference, promote, register
    from penstock.components.training.component import train
    from penstock.components.transformation.component import transform
    from penstock.components.tuning.component import pick, suggest, tune
    from penstock.components.validation.component import validate

__all__ = [
    "check_serving",
    "compute_features",
    "deploy",
    "detect_drift",
    "evaluate",
    "explain",
    "fetch_model",
    "fetch_reference",
    "ingest",
    "model_card",
    "monitor_performance",
    "notify",
    "pick",
    "predict_batch",
    "promote",
    "register",
    "retrieve_features",
    "roll_out",
    "set_traffic",
    "suggest",
    "sync_features",
    "train",
    "transform",
    "tune",
    "undeploy",
    "validate",
]
