"""Describe datasets and hold them to a schema."""
