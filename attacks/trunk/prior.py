"""Images whose features do not determine them: with the trunk's own gradient, and smooth where nothing else tells.

Each image's backward signal at its features is known once features are: `dL/dphi_i = W^T g_i`. So the gradient of the
trunk's parameters, the sum over images of `J_i^T dL/dphi_i`, is a function of the images alone, and one equation that
all of them share. What it leaves open total variation decides, by reweighted least squares, less and less weight of it.

Least squares end at the first image that suits the equations better than all near it, and of a texture there are many.
Steps of Adam, which are large and do not settle, go past these: they come first, and least squares settle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gibench.attack import Context

from .equations import FeatureEquations
from .least_squares import least_squares
from .network import Trunk

_FIRST_STEPS, _RATE = 1000, 0.25  # of Adam; what a pixel moves by at first, which falls to zero
_SHARED = 10.0  # weight of the trunk's gradient there
_STEPS, _PRODUCTS = 25, 24  # of least squares, for each softness
_SOFT = (12.0, 4.0, 1.5)  # by how much kinks are rounded off, of the root of the share that is missed
_SOFTEST, _LEAST = 0.3, 1e-4
_MOST, _SMOOTH = 1e-2, 0.3  # weight of total variation, of the share that is missed
_EDGE = 0.02  # of the pixel range: differences well above it cost by their size, and below it by their square
_TINY = 1e-30


@dataclass(frozen=True)
class Shared:
    """What all images together say: the trunk's gradient."""

    sent_back: Tensor  # dL/dphi [B, d], zero where the ReLU before stops it
    gradient: Mapping[str, Tensor]  # of the trunk's parameters

    @property
    def length(self) -> float:
        return float(sum(each.square().sum() for each in self.gradient.values()) ** 0.5)

    def made(self, trunk: Trunk, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The gradient that these images would send, and their features before the last ReLU."""

        def sent(parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            features = trunk.before(images, parameters)
            return (features * self.sent_back).sum(), features

        result: tuple[dict[str, Tensor], Tensor] = torch.func.grad(sent, has_aux=True)(
            {name: trunk.parameters[name] for name in self.gradient}
        )
        return result

    def left(self, trunk: Trunk, images: Tensor, which: Tensor) -> Shared:
        """What is left for some of these images to say when the others are known."""
        known = replace(self, sent_back=self.sent_back[~which])
        sums, _ = known.made(trunk, images[~which])
        return Shared(self.sent_back[which], {name: each - sums[name] for name, each in self.gradient.items()})


class _Joined(torch.autograd.Function):
    """As `torch.cat`, whose derivative's own derivative fills a vector of the whole length with zeros for each part."""

    @staticmethod
    def forward(*parts: Tensor) -> Tensor:
        return torch.cat(parts)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.sizes = [len(each) for each in inputs]

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, ...]:
        return torch.split_with_sizes(given, ctx.sizes)


def _joined(*parts: Tensor) -> Tensor:
    joined: Tensor = _Joined.apply(*(each.flatten() for each in parts))
    return joined


@dataclass(frozen=True)
class Joint:
    """One problem: all images, their features, the gradient that they share if it is known, and total variation."""

    features: FeatureEquations
    shared: Shared | None
    edge: float  # in units of model input
    soft: float = _SOFT[0]

    def at(self, points: Tensor) -> Callable[[Tensor], Tensor]:
        """Residuals `[m, 1]`: the true ones at these points, which change from there as if kinks were rounded off.

        The equations jump wherever another number of a window becomes its largest, and no step finds its way over many
        jumps. Where kinks are rounded off it does, but to other images than the true ones. The less of an image is
        missed, the less is rounded off and the less total variation weighs, for each image by itself.
        """
        images = self._columns(points)
        own, shared = self._missed(images, self.features.trunk)
        each = own.square().sum(dim=1)
        missed = each * (1 + shared.square().sum() / each.sum().clamp_min(_TINY))
        softness = (self.soft * missed.sqrt()).clamp(_LEAST, _SOFTEST)
        weight = (_SMOOTH * missed).clamp(max=_MOST).view(-1, 1, 1, 1) / len(images)  # of a pixel
        bend = (weight / (self._slopes(points).square().sum(dim=0) + self.edge**2).sqrt() / self.edge).sqrt()
        trunk = replace(self.features.trunk, softness=softness)
        soft_own, soft_shared = self._missed(images, trunk)
        beyond = _joined(own - soft_own, shared - soft_shared)

        def residual(points: Tensor) -> Tensor:
            soft_own, soft_shared = self._missed(self._columns(points), trunk)
            return _joined(_joined(soft_own, soft_shared) + beyond, self._slopes(points) * bend)[:, None]

        return residual

    def misfit(self, images: Tensor) -> Tensor:
        """One number of images `[n, B]`, zero if they suit all equations."""
        own, shared = self._missed(images, self.features.trunk)
        misfit: Tensor = own.square().sum() + _SHARED * shared.square().sum()
        return misfit

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

    def _missed(self, points: Tensor, trunk: Trunk) -> tuple[Tensor, Tensor]:
        """What images leave of their features, `[B, d]`, and of the trunk's gradient, as shares of their lengths."""
        images, shared = trunk.of_columns(points), self.shared
        if shared is None:
            made, left = trunk.before(images), points[:0, 0]
        else:
            sums, made = shared.made(trunk, images)
            left = _joined(*(sums[name] - each for name, each in shared.gradient.items())) / shared.length
        return self.features.missed(made) / self.features.lengths, left


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
    context.progress("images of their features, the trunk's gradient and total variation", None)
    system = Joint(features, shared, _EDGE / pixel_scale)
    column = _descended(system, points, _RATE / pixel_scale, context).T.reshape(-1, 1)
    for soft in _SOFT:
        column = least_squares(replace(system, soft=soft), column, _STEPS, _PRODUCTS, 0.0, context.expired)
    return column.view(points.shape[1], -1).T


def _descended(system: Joint, points: Tensor, rate: float, context: Context) -> Tensor:
    """Images `[n, B]` after Adam's steps from images."""
    found = points.clone().requires_grad_()
    optimizer = torch.optim.Adam([found], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _FIRST_STEPS)
    for _ in range(_FIRST_STEPS):
        if context.expired():
            break
        with torch.enable_grad():
            (found.grad,) = torch.autograd.grad(system.misfit(found), found)
        optimizer.step()
        schedule.step()
        found.data = system.features.within(found.data)
    return found.detach()
