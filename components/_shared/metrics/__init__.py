"""What is measured of models, by task, with intervals."""
