"""One module a kind of registry; each knows one SDK."""
