"""Features: computed from rows, kept in a Feast feature store, and joined to training rows as they stood."""
