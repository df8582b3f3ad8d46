"""A benchmark of gradient-inversion attacks: which recovers a client's images, under which defense, at what cost.

`gibench.run`, `gibench.sweep`, `gibench.leaderboard` and `gibench.audit` are the commands of the same names.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from gibench.errors import GibenchError, UsageError

if TYPE_CHECKING:  # the packages are callable, and what is heavy comes when it is used, which type checkers do not see
    from gibench.api import Results as Results
    from gibench.api import run as run
    from gibench.api import sweep as sweep
    from gibench.audit import audit as audit
    from gibench.leaderboard import leaderboard as leaderboard
else:
    from gibench import audit, leaderboard, sweep

__all__ = ["GibenchError", "Results", "UsageError", "__version__", "audit", "leaderboard", "run", "sweep"]

__version__ = version("gibench")


def __getattr__(name: str) -> Any:
    if name not in ("Results", "run"):
        raise AttributeError(f"module 'gibench' has no attribute '{name}'")
    from gibench import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return __all__
