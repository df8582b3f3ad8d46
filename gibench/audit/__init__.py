"""What a server can read out of a user's own update. The package is callable: `gibench.audit(...)` is the report."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gibench.audit.report import AuditReport


def audit(
    model: Any, update: Any, image_shape: tuple[int, int, int], mean: Any = 0.0, std: Any = 1.0, **options: Any
) -> AuditReport:
    """Attack an update without knowing the truth; see `gibench.audit.run.audit` for all options.

    Args:
        model: an `nn.Module` with the weights that the client received, or a text as of `--model`.
        update: a file, a mapping from names to tensors or arrays, or an ordered list of them.
        image_shape: C, H, W.
        mean, std: what the client's pixels in [0, 1] are normalised by, a channel or all.
        **options: the others of `gibench.audit.run.audit`.

    Raises:
        UsageError: what was given is no update of this model; the message says why in one line.
    """
    from gibench.audit.run import audit as run

    return run(model, update, image_shape, mean, std, **options)


class _CallablePackage(ModuleType):
    """Python makes a submodule an attribute of its package, so the name `gibench.audit` must serve as both."""

    def __call__(self, *arguments: Any, **options: Any) -> AuditReport:
        return audit(*arguments, **options)


sys.modules[__name__].__class__ = _CallablePackage
