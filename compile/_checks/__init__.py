"""The rules of check.py, by what they know: each module has a table of codes and yields findings on a pipeline."""
