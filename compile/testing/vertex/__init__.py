"""Vertex AI on 127.0.0.1."""

from penstock.testing.vertex.stand_in import VertexStandIn

__all__ = ["VertexStandIn"]
