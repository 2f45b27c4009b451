"""Record models, their lineage and which of them is in use."""
