"""Levenberg-Marquardt steps for many small problems at once, by products with derivatives alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, Self

import torch
from torch import Tensor

from ..exact.conjugate import Products, conjugate_gradients

_DAMPING, _LEAST, _MOST = 1e-2, 1e-6, 1e6  # of the mean curvature along the slope: at first, at least, and the end
_EASED, _RAISED = 0.2, 5.0
_FORCED = 0.1  # of the slope: the residual that ends conjugate gradients, less where the misfit is small
_STILL = 0.999  # of the misfit: what is left of it by a step that brings nothing
_TINY = 1e-30


class System(Protocol):
    """Equations of K problems, one a column."""

    def at(self, points: Tensor) -> Callable[[Tensor], Tensor]:
        """Residuals `[m, K]` as a function of points `[n, K]`, near such points."""

    def select(self, index: Tensor) -> Self:
        """Those of some problems."""

    def within(self, points: Tensor) -> Tensor:
        """Points moved to where solutions may be."""


class Derivative:
    """The derivative J of a function at a point, by products; a product with J costs no more than one with `J^T`.

    `J^T u` is linear in u, so that its own transposed derivative is J.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], at: Tensor) -> None:
        value, pull, *_ = torch.func.vjp(function, at)
        self.value: Tensor = value
        self._pull = pull
        self._push = torch.func.vjp(lambda u: pull(u)[0], torch.zeros_like(value))[1]

    def push(self, vectors: Tensor) -> Tensor:
        """`J v`."""
        pushed: Tensor = self._push(vectors)[0]
        return pushed

    def pull(self, vectors: Tensor) -> Tensor:
        """`J^T u`."""
        pulled: Tensor = self._pull(vectors)[0]
        return pulled

    def normal(self, vectors: Tensor) -> Tensor:
        """`J^T J v`."""
        return self.pull(self.push(vectors))


def least_squares(
    system: System, points: Tensor, steps: int, products: int, end: float, expired: Callable[[], bool]
) -> Tensor:
    """Points `[n, K]` of least squared residuals, from points near them.

    Args:
        system: the equations.
        points: to start from.
        steps: at most.
        products: of conjugate gradients in a step at most.
        end: misfit below which a problem is solved as well as can be.
        expired: asked before every step; the points come back as they are by then.
    """
    points = points.clone()
    todo = torch.arange(points.shape[1], device=points.device)
    damping = torch.full_like(points[0], _DAMPING)
    for _ in range(steps):
        if expired() or not len(todo):
            break
        before = points[:, todo]
        problem = system.select(todo)
        residual = problem.at(before)
        derivative = Derivative(residual, before)
        misfit = derivative.value.square().sum(dim=0)
        move = _step(derivative, damping[todo], products, partial(_derivative, problem, before))
        trial = system.within(before + move)
        now = residual(trial).square().sum(dim=0)
        better = now < misfit
        points[:, todo] = torch.where(better, trial, before)
        damping[todo] = (damping[todo] * torch.where(better, _EASED, _RAISED)).clamp_min(_LEAST)
        still = better & (now > _STILL * misfit) & (damping[todo] <= _DAMPING)
        todo = todo[~still & (torch.minimum(now, misfit) > end) & (damping[todo] < _MOST)]
    return points


def _derivative(system: System, points: Tensor, index: Tensor) -> Derivative:
    """That of some problems."""
    some = points[:, index]
    return Derivative(system.select(index).at(some), some)


def _step(
    derivative: Derivative, damping: Tensor, products: int, derivative_of: Callable[[Tensor], Derivative]
) -> Tensor:
    """The step of each problem, damped by so much of the mean curvature along its slope."""
    slope = derivative.pull(derivative.value)
    size = slope.norm(dim=0)
    ridge = damping * (derivative.push(slope).norm(dim=0) / size.clamp_min(_TINY)).square()
    end = size * derivative.value.norm(dim=0).clamp(max=_FORCED)

    def damped(derivative: Derivative, ridge: Tensor) -> Products:
        return lambda v: derivative.normal(v) + ridge * v

    return conjugate_gradients(
        damped(derivative, ridge),
        -slope,
        products,
        end,
        flat=0.0,
        narrow=lambda index: damped(derivative_of(index), ridge[index]),
    )
