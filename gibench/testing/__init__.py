"""The conformance kit: what every plugin keeps to, as tests for its author and as `gibench check`."""

from gibench.testing.kit import Finding, conformance, findings

__all__ = ["Finding", "conformance", "findings"]
