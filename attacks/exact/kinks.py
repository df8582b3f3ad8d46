"""How far an image may move under its equations, whichever of the slopes that its neurons may have are the true ones.

A neuron whose pre-activation is zero within the noise may be active or not, and the equations of one pattern may be
stiff where those of the other are not. On the line through two images of one pattern every point satisfies the
equations; beyond where a further neuron changes sides none does, so that the point where it does is the only solution
of the pattern on the far side, and a fixed point. It is no image. So the activations of such neurons are left free:
what the equations of all others determine, every pattern does. So are those of a smooth activation where an error is so
large that the slope changes along it.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from .activation import Activation

_OPEN = 4.0  # standard deviations of a pre-activation within which a neuron may be on either side
_PASSES = 6  # each neuron that is left free may blur others


class LinearEquations(Protocol):
    """`phi(F c)` lies in the span of V."""

    @property
    def features(self) -> Tensor:
        """F `[m, B]`."""

    @property
    def activations(self) -> Tensor:
        """V `[m, r]`, orthonormal."""

    @property
    def ones(self) -> Tensor:
        """`[B]`: `ones . c = 1` for an image."""

    @property
    def activation(self) -> Activation:
        """phi."""

    def still(self, points: Tensor) -> Tensor:
        """The unit vectors `[B, K]` along which points do not move."""


def determined_moves(
    equations: LinearEquations, shaky: Tensor, normal: Tensor, point: Tensor, noise: Tensor, blur: Tensor
) -> Tensor | None:
    """Independent moves of one point, `[B, B - 1]`, one a column, each as long as one standard deviation.

    Args:
        equations: of all images.
        shaky: `[m, s]`, how far noise may have turned the directions V, each times the uncertainty of its own angle;
            those whose angle is sure may be left out. What such a turn could explain is no stiffness.
        normal: `A^T A [B, B]` of the equations of the point's own slopes.
        point: `[B]`, with `ones . c = 1`.
        noise: of one equation.
        blur: `[m]`, of each pre-activation, for a point that is exact.

    Returns:
        None where so many neurons are open that nothing is determined.
    """
    features = equations.features
    values = features @ point
    lengths = features.norm(dim=1)
    others = torch.linalg.qr(equations.still(point[:, None]), mode="complete").Q[:, 1:]
    slopes, left_open = equations.activation.slopes(values).to(values), torch.zeros_like(values, dtype=torch.bool)
    for _ in range(_PASSES):
        sloped = slopes.nonzero()[:, 0]
        turned = shaky[sloped].T @ (features[sloped] * slopes[sloped, None])
        moves = others @ _inverse_root(others.T @ (normal - turned.T @ turned) @ others)
        moves = noise * (moves - torch.outer(point, equations.ones @ moves))  # of an image one number is 1
        near = equations.activation.turns(values, _OPEN * (blur + lengths * moves.norm()))  # at most
        deviation = (blur[near].square() + (features[near] @ moves).square().sum(dim=1)).sqrt()
        now_open = left_open.clone()
        now_open[near] |= equations.activation.turns(values[near], _OPEN * deviation)
        if torch.equal(now_open, left_open):
            settled: Tensor = moves
            return settled
        left_open = now_open
        slopes = slopes.masked_fill(left_open, 0.0)
        relaxed = _without(equations, slopes, left_open)
        if relaxed is None:
            return None
        normal = relaxed
    return None


def _inverse_root(stiffness: Tensor) -> Tensor:
    """X with `X X^T` the inverse of a stiffness `[k, k]`, whose eigenvalues count as rounding at least."""
    least = torch.finfo(stiffness.dtype).eps
    eye = torch.eye(len(stiffness), dtype=stiffness.dtype, device=stiffness.device)
    lower, failed = torch.linalg.cholesky_ex(stiffness + least * eye)
    if bool(failed):
        values, vectors = torch.linalg.eigh(stiffness)
        root: Tensor = vectors / values.clamp_min(least).sqrt()
    else:
        root = torch.linalg.solve_triangular(lower, eye, upper=False).T
    return root


def _without(equations: LinearEquations, slopes: Tensor, left_open: Tensor) -> Tensor | None:
    """`A^T A [B, B]` of neurons with slopes, the activations of open ones being whatever suits the equations best."""
    free = equations.activations[left_open]  # [o, r]
    if len(free) >= len(slopes) - free.shape[1] - equations.features.shape[1]:
        return None
    sloped = slopes.nonzero()[:, 0]
    rows = equations.features[sloped] * slopes[sloped, None]
    inside = equations.activations[sloped].T @ rows
    normal = rows.T @ rows - inside.T @ inside
    held = torch.eye(len(free), dtype=free.dtype, device=free.device) - free @ free.T
    taken = free @ inside
    answer, failed = torch.linalg.solve_ex(held, taken)
    return None if bool(failed) else normal - taken.T @ answer
