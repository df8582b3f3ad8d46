"""The tokens that enter the MLP of a block, one by one, from the gradients of its two linear layers.

Those gradients' row spaces hold every token u and its activations `phi(W u + b)`. With u in coordinates c of the first
space, `W u + b` is `F c`, so each token satisfies `(I - V V^T) phi(F c) = 0` with V the second space: more equations
than unknowns, as in `layer_pair/`, where ReLU makes them linear once its pattern is known. Here phi is smooth, and
little but a line and a parabola over the range of `F c`: then the equations are linear in c and its products `c c^T`,
and the solutions of that linear system are the span of the tokens' own `(c, c c^T)`. In this span each c belongs to a
matrix `M(c) = sum_j a_j c_j c_j^T` where `c = sum_j a_j c_j`, so of two such matrices the pencil's eigenvectors give
every token at once. What phi has beyond the parabola is put right by Newton's method on the equations as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .block import Activation

_GRID = 2001  # points of the normal distribution that phi is fitted over
_PENCILS = 4  # of matrices a round
_TRIED = 2  # candidates of a round, for each token
_STEPS = 40
_LONGEST = 0.5  # of a step of Newton's method, as a share of the point
_RIDGE = 1e-15  # of the trace: keeps the normal equations of a poor start solvable
_STILL = 1e-11  # a step that is none
_OUTSIDE = 1e-2  # share of a solution's activations that may lie outside their span; a line alone leaves a fifth there
_NORM = 0.1  # how far a token's length may be off what the normalisation makes it
_MET = 1e-4  # relative distance of points that are one
_PATIENCE = 8  # rounds without a new token


@dataclass(frozen=True)
class TokenEquations:
    """`phi(F c)` lies in the span of V, for the coordinates c of a token; R tokens solve it."""

    features: Tensor  # F [m, R]
    activations: Tensor  # V [m, R], orthonormal
    ones: Tensor  # [R]: `ones . c` is 1 for a token
    activation: Activation
    spread: float  # standard deviation of `F c`

    def outside(self, values: Tensor) -> Tensor:
        """What of `[..., m, k]` lies outside the span of V."""
        return values - self.activations @ (self.activations.T @ values)

    def products(self) -> Tensor:
        """The matrices M `[R, R, R]`: `M @ c` is that of c."""
        rank = len(self.ones)
        one, other = torch.triu_indices(rank, rank, device=self.features.device)
        twice = torch.where(one == other, 1.0, 2.0).to(self.features)
        line, parabola = self._fitted()
        squares = self.features[:, one] * self.features[:, other] * twice
        system = torch.cat([self.outside(line * self.features), self.outside(parabola * squares)], dim=1)
        scale = system.norm(dim=0).clamp_min(torch.finfo(system.dtype).tiny)
        space = torch.linalg.svd(system / scale, full_matrices=True).Vh[-rank:].T / scale[:, None]
        of_points = space[rank:] @ torch.linalg.pinv(space[:rank])
        matrices = self.features.new_zeros(rank, rank, rank)
        matrices[one, other] = matrices[other, one] = of_points
        return matrices

    def _fitted(self) -> tuple[float, float]:
        """The line and parabola through zero that are nearest to phi over the spread."""
        steps = (torch.arange(_GRID, dtype=torch.float64) + 0.5) / _GRID
        z = self.spread * torch.special.ndtri(steps)
        line, parabola = torch.linalg.lstsq(torch.stack([z, z.square()], 1), self.activation(z)[:, None]).solution
        return float(line), float(parabola)

    def newton(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Where Gauss-Newton steps lead from points `[K, R]`, and the share of the activations outside V there."""
        eye = torch.eye(points.shape[1], dtype=points.dtype, device=points.device)
        for _ in range(_STEPS):
            left, jacobian = self._linearized(points)
            normal, pull = jacobian.mT @ jacobian, jacobian.mT @ left[:, :, None]
            ridge = _RIDGE * normal.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None]
            step = torch.linalg.solve_ex(normal + ridge * eye, pull).result[:, :, 0]
            length = step.norm(dim=1, keepdim=True) / points.norm(dim=1, keepdim=True)
            points = points - step * (_LONGEST / length).clamp_max(1.0)
            if not bool((length > _STILL).any()):
                break
        values, _ = self._activated(points)
        return points, self.outside(values.T).norm(dim=0) / values.norm(dim=1)

    def weakest(self, points: Tensor, count: int) -> Tensor:
        """The directions `[K, R, count]` in which the equations hold the points least."""
        _, jacobian = self._linearized(points)
        directions: Tensor = torch.linalg.eigh(jacobian.mT @ jacobian).eigenvectors[:, :, :count]
        return directions

    def _linearized(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The equations' left sides `[K, m + 1]` at the points, and their derivatives `[K, m + 1, R]`."""
        values, slopes = self._activated(points)
        left = torch.cat([self.outside(values.T).T, (points @ self.ones - 1)[:, None]], dim=1)
        jacobian = self.outside(slopes[:, :, None] * self.features)
        return left, torch.cat([jacobian, self.ones.expand(len(points), 1, -1)], dim=1)

    def _activated(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """`phi(F c)` and `phi'(F c)`, `[K, m]`."""
        z = points @ self.features.T
        made: Any = torch.func.jvp(self.activation, (z,), (torch.ones_like(z),))
        values, slopes = made
        return values, slopes


def determined(rank: int, neurons: int) -> bool:
    """Whether the linear system of so many tokens has no more unknowns than such a layer gives equations."""
    return rank * (rank + 3) // 2 <= neurons


def separate(
    equations: TokenEquations,
    length: Callable[[Tensor], Tensor],
    generator: torch.Generator,
    expired: Callable[[], bool],
) -> Tensor:
    """The tokens' coordinates `[K, R]`, K up to R.

    Args:
        equations: whose linear system is determined.
        length: of points `[K, R]`, `[K]`, that of a token being 1 before the normalisation's weights.
        generator: of the pencils.
        expired: asked every round.
    """
    matrices, rank = equations.products(), len(equations.ones)
    found = equations.features.new_zeros(0, rank)
    idle = 0
    while len(found) < rank and idle < _PATIENCE and not expired():
        points, outside = equations.newton(_candidates(matrices, found, equations.ones, generator))
        right = (outside < _OUTSIDE) & ((length(points) - 1).abs() < _NORM)
        before = len(found)
        for point in points[right]:
            if not bool(((found - point).norm(dim=1) < _MET * point.norm()).any()):
                found = torch.cat([found, point[None]])
        idle = 0 if len(found) > before else idle + 1
    return found[:rank]


def _candidates(matrices: Tensor, found: Tensor, ones: Tensor, generator: torch.Generator) -> Tensor:
    """Points `[K, R]` with `M(c)` near `c c^T`, from the eigenvectors of random pencils.

    Across the tokens found, `N^T M(c) N` holds the others alone. Where y is an eigenvector of a pencil of two such
    matrices, `N y` is orthogonal to all tokens but one, which is `M(c) N y` for any c, but for its length.
    """
    rank = len(matrices)
    across = torch.linalg.qr(found.T, mode="complete").Q[:, len(found) :]
    drawn = torch.randn(2, rank, _PENCILS, generator=generator, device=matrices.device, dtype=matrices.dtype)
    one, other = ((matrices @ each).permute(2, 0, 1) for each in drawn)
    pencil = torch.linalg.solve_ex(across.T @ other @ across, across.T @ one @ across).result.nan_to_num(0, 0, 0)
    points = (one @ across @ torch.linalg.eig(pencil).eigenvectors.real).mT.flatten(0, 1)
    points = points / points.norm(dim=1, keepdim=True).clamp_min(torch.finfo(points.dtype).tiny)
    seen = (matrices @ points.T).permute(2, 0, 1)
    sizes = (points[:, None] @ seen @ points[:, :, None])[:, 0, 0]
    misfit = (seen - sizes[:, None, None] * points[:, :, None] * points[:, None]).norm(dim=(1, 2))
    best = (misfit / seen.norm(dim=(1, 2))).argsort()[: _TRIED * across.shape[1]]
    chosen: Tensor = points[best] / (points[best] @ ones)[:, None]
    return chosen
