"""A benchmark of gradient-inversion attacks: which recovers a client's images, under which defense, at what cost."""

from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the packages are callable, which type checkers do not see
    from gibench.audit import audit as audit
    from gibench.leaderboard import leaderboard as leaderboard
else:
    from gibench import audit, leaderboard

__all__ = ["__version__", "audit", "leaderboard"]

__version__ = version("gibench")
