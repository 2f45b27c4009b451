"""Azure ML: compiled pipelines become pipeline jobs of its second version."""
