"""Watch data and models once they are in use."""
