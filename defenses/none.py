"""No defense: the client sends the mean gradient of its batch."""

from __future__ import annotations

from gibench.defense import Defense


class NoDefense(Defense):
    """Changes nothing, as FedSGD."""

    @classmethod
    def fault(cls) -> str | None:
        return None  # here that is meant
