"""Points and their patterns in turn: each pattern determines a point, whose own pattern it is to be in the end."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def until_stable(
    fit: Callable[[Tensor, Tensor], Tensor],
    read: Callable[[Tensor], Tensor],
    points: Tensor,
    patterns: Tensor,
    passes: int,
    *,
    least: int = 0,
    expired: Callable[[], bool] = lambda: False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Fit each point to its pattern and read its pattern again, until that changes no more.

    Args:
        fit: the points `[B, k]` of patterns `[m, k]`, from points near them.
        read: the patterns of points.
        points: to start from, `[B, K]`.
        patterns: theirs, `[m, K]` booleans.
        passes: at most.
        least: entries of a pattern; with fewer it determines no point, and is left as it is.
        expired: asked before every pass; points and patterns come back as they are by then.

    Returns:
        The points, their patterns, and the indices of those that may still change.
    """
    points, patterns = points.clone(), patterns.clone()
    todo = torch.arange(points.shape[1], device=points.device)
    for _ in range(passes):
        if expired():
            break
        points[:, todo] = fit(patterns[:, todo], points[:, todo])
        new = read(points[:, todo])
        changed = (new != patterns[:, todo]).any(dim=0)
        patterns[:, todo] = new
        todo = todo[changed & (new.sum(dim=0) >= least)]
        if not len(todo):
            break
    return points, patterns, todo
