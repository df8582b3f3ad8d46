"""What the gradient of the second linear layer says of the images: each satisfies equations of its own.

That gradient is `H^T Z` with the activations `Z = phi(X W^T + b) [B, m]` of the first layer, so its row space holds the
activations of every image. Those of an image are `phi(F c)`, with F `[m, B]` known from the first layer's gradient and
c its B coordinates there. Neither sparse columns nor the other images are needed.

Where phi is a ReLU or a leaky one, it is linear for a given pattern of neurons above zero that they lie in the row
space: m equations in B unknowns. The c that fits best has a pattern of its own, and from most starts the two agree
within a dozen steps, at an image of the batch. Points stand for all their multiples, of which phi makes multiples. A
smooth phi makes of each multiple something else: there a point stands for the one of `ones . c = 1`, as an image is,
and Gauss-Newton steps, damped where they are too long, take the place of patterns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..exact.activation import RELU, Activation
from ..exact.chunks import chunks
from ..exact.linear_layer import first_of_each
from ..exact.sphere import normalized
from ..exact.stable import until_stable
from ..trunk.least_squares import least_squares

_STEPS = 30
_SOLVES = 3  # of inverse iteration in a step
_SHIFT = 1e-15  # keeps the matrix of a perfect fit invertible; its largest eigenvalue is 1 at most
_NEWTON, _PRODUCTS = 60, 100  # steps of a smooth activation, and of conjugate gradients in each
_SAMPLE = 8  # equations for each unknown: as good as all of them until the pattern is nearly right


@dataclass(frozen=True)
class Equations:
    """`phi(F c)` lies in the span of V."""

    features: Tensor  # F [m, B]
    activations: Tensor  # V [m, r], orthonormal
    ones: Tensor  # [B]: `ones . c` is 1 for an image, so it tells c from -c
    activation: Activation = RELU  # phi

    def fixed_points(self, points: Tensor) -> Tensor:
        """Unit points `[B, K]` whose activation patterns they fit best, from starts `[B, K]`; what has met is one."""
        m, rank = self.features.shape
        if m > 2 * _SAMPLE * rank:
            rows = torch.linspace(0, m - 1, _SAMPLE * rank, device=points.device).long()
            points = self.on(rows).settled(points)
        return self.settled(points)

    def settled(self, points: Tensor) -> Tensor:
        """The same with all equations from the start."""
        if self.activation.smooth:
            return self.newton(points, _NEWTON, _PRODUCTS)
        points, slopes = self._met(points)
        points = until_stable(self.solve, self.slopes, points, slopes, _STEPS)[0]
        return self._met(points)[0]

    def newton(self, points: Tensor, steps: int, products: int, expired: Callable[[], bool] = lambda: False) -> Tensor:
        """Unit points `[B, K]` of a smooth activation that suit the equations best, from points near them."""
        points = least_squares(_Shares(self), self.oriented(normalized(points)), steps, products, 0.0, expired)
        return self.oriented(points)

    def single(self) -> Equations:
        """The same in float32."""
        return Equations(self.features.float(), self.activations.float(), self.ones.float(), self.activation)

    def within(self, space: Tensor) -> Equations:
        """Those of the coordinates in a space with a basis `[B, k]`."""
        return replace(self, features=self.features @ space, ones=self.ones @ space)

    def on(self, rows: Tensor) -> Equations:
        """Those of some neurons."""
        return replace(self, features=self.features[rows], activations=torch.linalg.qr(self.activations[rows]).Q)

    def placed(self, points: Tensor) -> Tensor:
        """The multiples of points `[B, K]` that the activation is applied to."""
        return points / (self.ones @ points) if self.activation.smooth else points

    def left(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The activations of each point, and what of them lies outside the span of V: `[m, K]` each."""
        seen = self.activation.function(self.features @ self.placed(points))
        return seen, seen - self.activations @ (self.activations.T @ seen)

    def outside(self, points: Tensor) -> Tensor:
        """The share of each point's activations, by energy, that lies outside the span of V: `[K]`."""
        seen, rest = self.left(points)
        share: Tensor = rest.square().sum(dim=0) / seen.square().sum(dim=0)
        return share

    def slopes(self, points: Tensor) -> Tensor:
        """The activation's slopes at each point, `[m, K]`: of a ReLU the pattern of active neurons, booleans."""
        return self.activation.slopes(self.features @ self.placed(points))

    def still(self, points: Tensor) -> Tensor:
        """The unit vectors `[B, K]` along which points do not move: a multiple of one is the same, or not allowed."""
        held = self.ones[:, None].expand_as(points) if self.activation.smooth else points
        return normalized(held)

    def solve(self, slopes: Tensor, points: Tensor) -> Tensor:
        """The unit points that fit the slopes `[m, K]` best, by inverse iteration from points `[B, K]`."""
        solved = torch.empty_like(points)
        eye = torch.eye(len(points), dtype=points.dtype, device=points.device)
        for part, normal in self.normals(slopes):
            factor = torch.linalg.cholesky_ex(normal + _SHIFT * eye)[0]
            block = points[:, part].T[:, :, None]
            for _ in range(_SOLVES):
                block = torch.cholesky_solve(block, factor)
                block = block / block.norm(dim=1, keepdim=True)
            solved[:, part] = block[:, :, 0].T
        return self.oriented(solved)

    def normals(self, slopes: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """`A^T A [k, B, B]` of the equations `A c = 0` of slopes `[m, K]` each, in chunks that fit the memory."""
        sloped = slopes != 0
        width = max(int(sloped.sum(dim=0).max()), 1) if slopes.shape[1] else 1
        m, rank = self.features.shape
        rows = torch.cat([self.features, self.activations], dim=1)
        rows = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
        for part in chunks(slopes.shape[1], 8 * width * rows.shape[1], rows.device):
            chosen, index = sloped[:, part].T.to(torch.uint8).topk(width, dim=1)
            active = rows[torch.where(chosen.bool(), index, m)]
            if not self.activation.sparse:
                active[:, :, :rank] *= slopes[:, part].T.gather(1, index)[:, :, None]
            products = active.mT @ active[:, :, :rank]
            inside = products[:, rank:]
            yield part, products[:, :rank] - inside.mT @ inside

    def oriented(self, points: Tensor) -> Tensor:
        """The points or their opposites, so that `ones . c` is positive."""
        return points * torch.where(self.ones @ points < 0, -1.0, 1.0)

    def _met(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """One point of each pattern, and the patterns' slopes."""
        points = self.oriented(points)
        slopes, first = first_of_each(self.slopes(points))
        return points[:, first], slopes


@dataclass(frozen=True)
class _Shares:
    """The equations as least squares: how much of a point's activations lies outside, as a share of their length."""

    equations: Equations

    def at(self, points: Tensor) -> Callable[[Tensor], Tensor]:
        def share(points: Tensor) -> Tensor:
            seen, rest = self.equations.left(points)
            shares: Tensor = rest / seen.norm(dim=0)
            return shares

        return share

    def select(self, index: Tensor) -> _Shares:
        return self

    def within(self, points: Tensor) -> Tensor:
        return normalized(points)
