"""Tell people and programs how a run ended."""
