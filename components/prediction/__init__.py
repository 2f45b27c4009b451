"""Predict whole datasets."""
