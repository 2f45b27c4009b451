"""Synthetic data of known shape, for machines that have none yet."""
