"""The equations that a convolution's input satisfies: of its weights, and of their gradient.

Unrolled, a convolution takes the input's patches `U [c k k, P]` to `W U [o, P]`, and its weights' gradient is `K U^T`,
with K `[o, P]` the loss's derivatives by its outputs. Both are linear in the input.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..exact.chunks import chunks
from ..exact.conjugate import conjugate_gradients

_DENSE = 3200  # unknowns up to which the equations' singular values are computed
_STEPS = 2000  # of conjugate gradients beyond
_END, _FLAT = 1e-12, 1e-14  # of their residual, and of the curvature
_SEEN = 10.0  # times the rounding of the gradient's numbers: smaller singular values tell nothing
_GRAM = 1e-7  # what a singular value must be, relatively, to show in the square of the equations
_REFINED = 3


@dataclass(frozen=True)
class Solution:
    """The input, and how many of its numbers the equations leave open."""

    values: Tensor  # of the input's shape
    equations: int
    deficiency: int  # unknowns less the rank; less the equations, where there are too many for their rank


@dataclass(frozen=True)
class Equations:
    """Those of one convolution and one image, in float64."""

    module: nn.Conv2d
    shape: tuple[int, ...]  # of the input
    weight: Tensor  # [o, c k k]
    known: Tensor  # [o, P], of which outputs it is known what they are
    slopes: Tensor  # K [o, P], times the weight that the gradient's equations are given

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Both sides' left ones, `[N, o, P]` and `[N, o, c k k]`, of inputs `[N, n]`."""
        patches = F.unfold(inputs.view(-1, *self.shape), **self._windows())
        return (self.weight @ patches) * self.known, self.slopes @ patches.transpose(1, 2)

    def adjoint(self, outputs: Tensor, gradients: Tensor) -> Tensor:
        """What the transpose makes of right-hand sides: `[N, n]`."""
        patches = self.weight.T @ (outputs * self.known) + gradients.transpose(1, 2) @ self.slopes
        return F.fold(patches, self.shape[1:], **self._windows()).flatten(1)

    def solve(self, outputs: Tensor, gradient: Tensor, eps: float) -> Solution:
        """The least-squares input of least norm.

        Args:
            outputs: `[o, P]` less the bias; those that are not known are of no account.
            gradient: of the weights, `[o, c k k]`, weighted as the slopes are.
            eps: the rounding error of its numbers.
        """
        size = self.shape[0] * self.shape[1] * self.shape[2]
        wanted = (outputs * self.known)[None], gradient[None]
        right = self.adjoint(*wanted)[0]
        count = int(self.known.sum()) + int(self.slopes.any(dim=1).sum()) * self.weight.shape[1]
        if size > _DENSE:
            end = _END * float(right.norm())
            found = conjugate_gradients(self._normal, right[:, None], _STEPS, end, flat=_FLAT)[:, 0]
            return Solution(found.view(self.shape), count, max(0, size - count))
        values, vectors = torch.linalg.eigh(self._gram(size))
        kept = values > max(_SEEN * eps, _GRAM) ** 2 * values[-1]
        inverse = torch.where(kept, 1 / values.where(kept, 1.0), 0.0)
        found = vectors @ (inverse * (vectors.T @ right))
        for _ in range(_REFINED):  # the square of the equations has lost half the digits
            left = [want - have for want, have in zip(wanted, self.forward(found[None]), strict=True)]
            found = found + vectors @ (inverse * (vectors.T @ self.adjoint(*left)[0]))
        return Solution(found.view(self.shape), count, size - int(kept.sum()))

    def _normal(self, columns: Tensor) -> Tensor:
        return self.adjoint(*self.forward(columns.T)).T

    def _gram(self, size: int) -> Tensor:
        basis = torch.eye(size, dtype=torch.float64, device=self.weight.device)
        each = 8 * (self.weight.shape[1] + len(self.weight)) * self.known.shape[1]
        return torch.cat([self._normal(basis[:, part]) for part in chunks(size, each, basis.device)], dim=1)

    def _windows(self) -> dict[str, tuple[int, int]]:
        module = self.module
        assert isinstance(module.padding, tuple)  # words for it are refused
        windows = {"kernel_size": module.kernel_size, "stride": module.stride, "padding": module.padding}
        return {**windows, "dilation": module.dilation}  # type: ignore[dict-item]
