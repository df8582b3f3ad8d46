"""The loop: evaluate, keep the best, step, until the budget or the clock is out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gibench.attack import Context

from .optimizers import Optimizer

_LOOK = 20  # iterations between looks at the values, each of which waits for the device


@dataclass(frozen=True)
class Outcome:
    """What a descent of R restarts found."""

    points: Tensor  # [R, D], each restart's best
    values: Tensor  # [R], the objective there; infinite for a restart that left the finite numbers
    iterations: int  # evaluations done
    complete: bool  # whether the clock left time for all of them


def descend(
    problem: Callable[[Tensor], tuple[Tensor, Tensor]],
    points: Tensor,
    optimizer: Optimizer,
    iterations: int,
    size: Callable[[int], float],
    slope_form: Callable[[Tensor, int], Tensor],
    box: tuple[Tensor, Tensor] | None,
    context: Context,
) -> Outcome:
    """Minimise a problem from R starts at once.

    Args:
        problem: from points `[R, D]` to values `[R]` and slopes `[R, D]`.
        points: the starts.
        optimizer: made for these points.
        iterations: how many evaluations at most.
        size: the step size at an iteration.
        slope_form: what the optimizer is given for a slope at an iteration.
        box: the lowest and highest point allowed, `[D]` each, if there is one.
        context: for the clock and the progress.

    Returns:
        Each restart's best point by its own value. A restart whose value stops being finite is given up.
    """
    best = points.clone()
    lowest = points.new_full((len(points),), torch.inf)
    alive = torch.ones_like(lowest, dtype=torch.bool)
    done = 0
    for iteration in range(iterations):
        value, slope = problem(points)
        alive &= (value + slope.sum(1)).isfinite()
        better = alive & (value < lowest)
        lowest = torch.where(better, value, lowest)
        best = torch.where(better[:, None], points, best)
        done = iteration + 1
        if iteration % _LOOK == 0:
            _report(iteration, iterations, lowest, context)
            if not bool(alive.any()):
                break
        if context.expired():
            break
        points = optimizer.step(points, slope_form(slope, iteration), size(iteration))
        if box is not None:
            points = points.clamp(*box)
    values = torch.where(alive, lowest, torch.inf)
    return Outcome(best, values, done, done == iterations or not bool(alive.any()))


def _report(iteration: int, iterations: int, lowest: Tensor, context: Context) -> None:
    context.progress(f"objective {float(lowest.min()):.3g}", iteration / iterations)
