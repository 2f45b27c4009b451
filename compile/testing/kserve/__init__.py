"""KServe on 127.0.0.1."""

from penstock.testing.kserve.stand_in import KServeStandIn

__all__ = ["KServeStandIn"]
