"""What the gradient of the second linear layer says of the images: each satisfies equations of its own.

That gradient is `H^T Z` with the activations `Z = relu(X W^T + b) [B, m]` of the first layer, so its row space holds
the activations of every image. Those of an image are `relu(F c)`, with F `[m, B]` known from the first layer's gradient
and c its B coordinates there. For a given activation pattern it is linear that they lie in the row space: m equations
in B unknowns. The c that fits best has a pattern of its own, and from most starts the two agree within a dozen steps,
at an image of the batch. Neither sparse columns nor the other images are needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..exact.chunks import chunks
from ..exact.linear_layer import first_of_each
from ..exact.stable import until_stable

_STEPS = 30
_SOLVES = 3  # of inverse iteration in a step
_SHIFT = 1e-15  # keeps the matrix of a perfect fit invertible; its largest eigenvalue is 1 at most
_SAMPLE = 8  # equations for each unknown: as good as all of them until the pattern is nearly right


@dataclass(frozen=True)
class Equations:
    """`relu(F c)` lies in the span of V."""

    features: Tensor  # F [m, B]
    activations: Tensor  # V [m, r], orthonormal
    ones: Tensor  # [B]: `ones . c` is 1 for an image, so it tells c from -c

    def fixed_points(self, points: Tensor) -> Tensor:
        """Unit points `[B, K]` whose activation patterns they fit best, from starts `[B, K]`; what has met is one."""
        m, rank = self.features.shape
        if m > 2 * _SAMPLE * rank:
            rows = torch.linspace(0, m - 1, _SAMPLE * rank, device=points.device).long()
            points = self.on(rows).settled(points)
        return self.settled(points)

    def settled(self, points: Tensor) -> Tensor:
        """The same with all equations from the start."""
        points, patterns = self._met(points)
        points = until_stable(self.solve, self.patterns, points, patterns, _STEPS)[0]
        return self._met(points)[0]

    def single(self) -> Equations:
        """The same in float32."""
        return Equations(self.features.float(), self.activations.float(), self.ones.float())

    def within(self, space: Tensor) -> Equations:
        """Those of the coordinates in a space with an orthonormal basis `[B, k]`."""
        return Equations(self.features @ space, self.activations, self.ones @ space)

    def on(self, rows: Tensor) -> Equations:
        """Those of some neurons."""
        return Equations(self.features[rows], torch.linalg.qr(self.activations[rows]).Q, self.ones)

    def outside(self, points: Tensor) -> Tensor:
        """The share of each point's activations, by energy, that lies outside the span of V: `[K]`."""
        seen = torch.relu(self.features @ points)
        rest = seen - self.activations @ (self.activations.T @ seen)
        share: Tensor = rest.square().sum(dim=0) / seen.square().sum(dim=0)
        return share

    def patterns(self, points: Tensor) -> Tensor:
        """The neurons that are active at each point, `[m, K]` booleans."""
        return self.features @ points > 0

    def solve(self, patterns: Tensor, points: Tensor) -> Tensor:
        """The unit points that fit the patterns `[m, K]` best, by inverse iteration from points `[B, K]`."""
        solved = torch.empty_like(points)
        eye = torch.eye(len(points), dtype=points.dtype, device=points.device)
        for part, normal in self.normals(patterns):
            factor = torch.linalg.cholesky_ex(normal + _SHIFT * eye)[0]
            block = points[:, part].T[:, :, None]
            for _ in range(_SOLVES):
                block = torch.cholesky_solve(block, factor)
                block = block / block.norm(dim=1, keepdim=True)
            solved[:, part] = block[:, :, 0].T
        return self.oriented(solved)

    def normals(self, patterns: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """`A^T A [k, B, B]` of the equations `A c = 0` of each pattern, in chunks that fit the memory."""
        width = max(int(patterns.sum(dim=0).max()), 1) if patterns.shape[1] else 1
        m, rank = self.features.shape
        rows = torch.cat([self.features, self.activations], dim=1)
        rows = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
        for part in chunks(patterns.shape[1], 8 * width * rows.shape[1], rows.device):
            chosen, index = patterns[:, part].T.to(torch.uint8).topk(width, dim=1)
            active = rows[torch.where(chosen.bool(), index, m)]
            products = active.mT @ active[:, :, :rank]
            inside = products[:, rank:]
            yield part, products[:, :rank] - inside.mT @ inside

    def oriented(self, points: Tensor) -> Tensor:
        """The points or their opposites, so that `ones . c` is positive."""
        return points * torch.where(self.ones @ points < 0, -1.0, 1.0)

    def _met(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """One point of each pattern, and the patterns."""
        points = self.oriented(points)
        patterns, first = first_of_each(self.patterns(points))
        return points[:, first], patterns
