"""Fitting a model: what `train`, and `tune` once a trial, make of datasets, hyperparameters and a framework."""
