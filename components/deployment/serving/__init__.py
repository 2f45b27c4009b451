"""Serves a model folder over HTTP, in the protocols of Vertex AI, KServe, Azure ML and MLflow.

    python -m penstock.components.deployment.serving MODEL

settings.py says what can be set, payloads.py what is understood, and docs/serving.md how it is used.
"""
