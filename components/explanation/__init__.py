"""The stage that says why a model predicts what it predicts, and writes its card."""
