"""Measure models and decide whether they are good enough."""
