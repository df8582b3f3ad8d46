"""Many cells, from a suite file or the command line. The package is callable: see `gibench.api.sweep`."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gibench.api import Results


class _CallablePackage(ModuleType):
    """Python makes a submodule an attribute of its package, so the name `gibench.sweep` must serve as both."""

    def __call__(self, suite: Any, **options: Any) -> Results:
        """Run the cells of a suite; see `gibench.api.sweep`."""
        from gibench.api import sweep

        return sweep(suite, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        """That of the function, for those who look it up."""
        from gibench.api import sweep

        return inspect.signature(sweep)


sys.modules[__name__].__class__ = _CallablePackage
