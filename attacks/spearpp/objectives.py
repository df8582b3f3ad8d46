"""Objectives that are least where `z = L q` is sparse: the mean over the rows of a function of one entry.

L is whitened, so that the entries of `L q` have unit root mean square for every unit q. Sources: l1 and the comparison,
Bakarsky et al., "SPEAR++", 2025; l4, Zhai et al., "Complete Dictionary Learning via l4-Norm Maximization", 2020; Huber
and log-cosh as stand-ins for the absolute value, Sun, Qu and Wright, "Complete Dictionary Recovery over the Sphere",
2017.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..exact.sphere import tangent

Name = Literal["l1", "l4", "huber", "logcosh"]

WIDTH = 0.05  # of the root mean square of an entry: within it, huber and logcosh are parabolas


@dataclass(frozen=True)
class Objective:
    """A function of each entry with its derivatives, tensors of any shape to the same shape."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    curvature: Callable[[Tensor], Tensor] | None  # None where there is none


def _huber(z: Tensor) -> Tensor:
    size = z.abs()
    return torch.where(size <= WIDTH, z * z / (2 * WIDTH), size - WIDTH / 2)


def _logcosh(z: Tensor) -> Tensor:
    size = z.abs()  # log cosh(s) = s + log(1 + exp(-2 s)) - log 2, which cannot overflow
    return size + WIDTH * torch.log1p(torch.exp(size * (-2 / WIDTH))) - WIDTH * torch.log(z.new_tensor(2.0))


OBJECTIVES: dict[Name, Objective] = {
    "l1": Objective(torch.abs, torch.sign, None),
    "l4": Objective(lambda z: z**4 / -4, lambda z: -(z**3), lambda z: -3 * z * z),  # maximised
    "huber": Objective(_huber, lambda z: (z / WIDTH).clamp(-1, 1), lambda z: (z.abs() <= WIDTH).to(z.dtype) / WIDTH),
    "logcosh": Objective(
        _logcosh, lambda z: torch.tanh(z / WIDTH), lambda z: (1 - torch.tanh(z / WIDTH).square()) / WIDTH
    ),
}


@dataclass(frozen=True)
class Sphere:
    """An objective of `L q` on the unit sphere, for many points at once: the columns of `[B, N]`.

    The basis L `[m, B]` has the points' dtype and device; everything is one product with it or with its transpose.
    """

    basis: Tensor
    objective: Objective

    def value(self, points: Tensor) -> Tensor:
        """The mean over the rows, `[N]`."""
        return self.objective.value(self.basis @ points).mean(dim=0)

    def euclidean(self, points: Tensor) -> Tensor:
        """The gradient of the value in the whole space, `[B, N]`: `L^T slope(L q) / m`."""
        return self.basis.T @ self.objective.slope(self.basis @ points) / len(self.basis)

    def gradient(self, points: Tensor) -> Tensor:
        """The Riemannian gradient, `[B, N]`."""
        return tangent(points, self.euclidean(points))

    def hessian(self, points: Tensor) -> Callable[[Tensor], Tensor]:
        """The Riemannian Hessian at the points, as a function of tangent vectors `[B, N]`.

        It is the projection of `H v - (q . g) v`, with the Euclidean gradient g and Hessian H (Absil, Mahony and
        Sepulchre, "Optimization Algorithms on Matrix Manifolds", 2008, section 5.5).

        Raises:
            ValueError: the objective has no second derivative.
        """
        if self.objective.curvature is None:
            raise ValueError("the objective has no second derivative: use huber, logcosh or l4")
        entries = self.basis @ points
        curvature = self.objective.curvature(entries) / len(self.basis)
        lift = (entries * self.objective.slope(entries)).mean(dim=0)  # q . g

        def product(vectors: Tensor) -> Tensor:
            return tangent(points, self.basis.T @ (curvature * (self.basis @ vectors)) - lift * vectors)

        return product
