"""Images whose features do not determine them: with the trunk's own gradient, and smooth where nothing else tells.

Each image's backward signal at its features is known once features are: `dL/dphi_i = W^T g_i`. So the gradient of the
trunk's parameters, the sum over images of `J_i^T dL/dphi_i`, is a function of the images alone, and one equation that
all of them share. What it leaves open total variation decides, by reweighted least squares, less and less weight of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gibench.attack import Context

from .equations import FeatureEquations
from .least_squares import least_squares

# The weights of total variation, one after the other, and by how much the trunk's kinks are rounded off meanwhile: the
# gradient jumps where another of a window's numbers becomes its largest, and no step finds its way over many jumps.
_STAGES = (3e-2, 0.3), (1e-2, 0.2), (3e-3, 0.1), (1e-3, 0.05), (1e-4, 0.01)
_STEPS, _PRODUCTS = 20, 24
_EDGE = 0.02  # of the pixel range: differences well above it cost by their size, and below it by their square


@dataclass(frozen=True)
class Shared:
    """What all images together say: the trunk's gradient."""

    sent_back: Tensor  # dL/dphi [B, d], zero where the ReLU before stops it
    gradient: Mapping[str, Tensor]  # of the trunk's parameters

    @property
    def length(self) -> float:
        return float(sum(each.square().sum() for each in self.gradient.values()) ** 0.5)


@dataclass(frozen=True)
class Joint:
    """One problem: all images, their features, the gradient that they share if it is known, and total variation."""

    features: FeatureEquations
    shared: Shared | None
    weight: float  # of total variation, beside misfits that are shares of the features' and the gradient's lengths
    edge: float  # in units of model input

    def at(self, points: Tensor) -> Callable[[Tensor], Tensor]:
        """Residuals `[m, 1]`, the weights of total variation being those of these points."""
        slopes = self._slopes(points)
        bend = (self.weight / len(points) / (slopes.square().sum(dim=0) + self.edge**2).sqrt() / self.edge).sqrt()

        def residual(points: Tensor) -> Tensor:
            images = self._columns(points)
            own = self.features.left(images) / self.features.lengths
            parts = [own.flatten(), (self._slopes(points) * bend).flatten()]
            if self.shared is not None:
                parts.append(self._share(images, self.shared))
            return torch.cat(parts)[:, None]

        return residual

    def select(self, index: Tensor) -> Joint:
        """The same: there is one problem."""
        return self

    def within(self, points: Tensor) -> Tensor:
        """Images of no pixel brighter than white or darker than black."""
        return self.features.within(self._columns(points)).T.reshape(-1, 1)

    def _columns(self, points: Tensor) -> Tensor:
        return points.view(len(self.features.features), -1).T

    def _slopes(self, points: Tensor) -> Tensor:
        """Of all images, down and across, `[2, B, C, H, W]`."""
        images = self.features.trunk.of_columns(self._columns(points))
        down = images.diff(dim=2, append=images[:, :, -1:])
        return torch.stack([down, images.diff(dim=3, append=images[..., -1:])])

    def _share(self, points: Tensor, shared: Shared) -> Tensor:
        """What the images leave of the trunk's gradient, as a share of its length."""
        trunk = self.features.trunk
        images = trunk.of_columns(points)

        def sent(parameters: dict[str, Tensor]) -> Tensor:
            return (trunk.before(images, parameters) * shared.sent_back).sum()

        made = torch.func.grad(sent)({name: trunk.parameters[name] for name in shared.gradient})
        left = [(made[name] - each).flatten() for name, each in shared.gradient.items()]
        return torch.cat(left) / shared.length


def with_prior(
    features: FeatureEquations, shared: Shared | None, points: Tensor, pixel_scale: float, context: Context
) -> Tensor:
    """The images `[n, B]` that suit all equations and are smooth otherwise, from images near them.

    Args:
        features: what is known of each image.
        shared: the trunk's gradient, where it is that of these images.
        points: to start from.
        pixel_scale: pixels in [0, 1] per unit of model input.
        context: of the attack.
    """
    column = points.T.reshape(-1, 1)
    for weight, softness in _STAGES:
        context.progress("images of their features, the trunk's gradient and total variation", None)
        soft = replace(features, trunk=replace(features.trunk, softness=softness))
        system = Joint(soft, shared, weight, _EDGE / pixel_scale)
        column = least_squares(system, column, _STEPS, _PRODUCTS, 0.0, context.expired)
    return column.view(points.shape[1], -1).T
