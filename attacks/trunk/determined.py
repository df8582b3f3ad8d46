"""How far an image may be from the true one when its features are known: the certificate of an inversion.

To first order, features move with the image, and with the ReLUs and poolings in the trunk that are within their error
of a kink, which may go on either way: what leaves such a place is left free, as an unknown more. An image is determined
if its equations tell every image beside it, whatever these do. Random images are put through the equations and solved
for: what is not found again is what the equations do not tell, with what noise adds.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gibench.attack import Context

from ..exact.chunks import chunks
from ..exact.conjugate import conjugate_gradients
from ..exact.linear_layer import EXACT, SAFETY
from .equations import FeatureEquations
from .least_squares import Derivative
from .network import windows

_PROBES, _UPPER = 4, 3.7  # draws, and by how much these may understate a deviation (99 %, chi-square of 4)
_SIZE = 0.1  # of a random image, in units of its numbers: in a flat direction of thousands it still shows
_TIMES, _PRODUCTS = 6, 100  # of solves, each for what the ones before have left: single precision tells no more
_END = 1e-3  # of the right-hand side: what ends a solve
_ENOUGH = 0.2  # of what makes a pixel certain: nothing is gained by telling what is below
_OPEN = 4.0  # standard deviations

Masks = Mapping[str, Tensor]


def predicted_errors(equations: FeatureEquations, points: Tensor, pixel_scale: float, context: Context) -> Tensor:
    """An upper bound of the standard deviation of the least certain number of each image, `[K]`, to first order.

    It holds if it is no more than what makes a pixel certain: so far a neuron may be from its kink and still count as
    near it. Where time does not suffice it is infinite.

    Args:
        equations: of the features.
        points: the images that satisfy them, `[n, K]`.
        pixel_scale: pixels in [0, 1] per unit of model input.
        context: of the attack.
    """
    errors = torch.full_like(equations.noise, torch.inf)
    if not points.shape[1]:
        return errors
    room = EXACT / SAFETY / pixel_scale
    for part in chunks(points.shape[1], _PROBES * equations.trunk.bytes_each, points.device):
        index = torch.arange(part.start, part.stop, device=points.device)
        probes = index.repeat_interleave(_PROBES)
        if context.expired():
            break
        apart = _not_found_again(equations.select(probes), points[:, probes], room, context)
        deviation = apart.view(len(points), -1, _PROBES).square().mean(dim=2).sqrt().amax(dim=0)
        errors[part] = _UPPER * deviation.nan_to_num(torch.inf)
    return errors


def _not_found_again(equations: FeatureEquations, points: Tensor, room: float, context: Context) -> Tensor:
    """What is missing of random images, `[n, K]`, when they are looked for by their features, with noise in these."""
    free = near_kinks(equations, points, room, context.generator)
    sizes = [len(points), *(mask[0].numel() for mask in free.values())]

    def features(unknown: Tensor) -> Tensor:
        moved, *others = torch.split(unknown, sizes)
        free_moves = {
            name: other.T.reshape(mask.shape) * mask for (name, mask), other in zip(free.items(), others, strict=True)
        }

        def moved_on(name: str, entered: Tensor, left: Tensor, module: nn.Module | None) -> Tensor:
            return left + free_moves[name]

        made = equations.trunk.bent(equations.trunk.of_columns(points + moved), moved_on)
        told: Tensor = (made * equations.known / equations.lengths).T
        return told

    at = torch.zeros(sum(sizes), points.shape[1], dtype=points.dtype, device=points.device)
    derivative = Derivative(features, at)

    def drawn(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=context.generator, dtype=like.dtype, device=like.device)

    left = torch.zeros_like(at)
    left[: len(points)] = _SIZE * drawn(points)
    noise = (equations.noise[:, None] / equations.lengths * drawn(equations.features) * equations.known).T
    for _ in range(_TIMES):
        if context.expired():
            return torch.full_like(points, torch.inf)
        if bool((left[: len(points)].abs() < _ENOUGH * room / _UPPER).all()):
            break
        right = derivative.pull(derivative.push(left) + noise)
        end = _END * right.norm(dim=0)
        left = left - conjugate_gradients(derivative.normal, right, _PRODUCTS, end, flat=0.0)
    return left[: len(points)]


def near_kinks(
    equations: FeatureEquations, points: Tensor, room: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """Which outputs of each ReLU and pooling may go on another way, if images are off by such a deviation: 0 or 1."""
    moved = room * torch.randn(points.shape, generator=generator, dtype=points.dtype, device=points.device)
    entered: dict[str, list[Tensor]] = {}
    gaps: dict[str, Tensor] = {}

    def watch(name: str, fed: Tensor, left: Tensor, module: nn.Module | None) -> Tensor:
        entered.setdefault(name, []).append(fed)
        if name not in gaps:
            gaps[name] = _gap(fed, module) if isinstance(module, nn.MaxPool2d) else fed.abs()
        return left

    with torch.no_grad():
        for images in (points, points + moved):
            equations.trunk.bent(equations.trunk.of_columns(images), watch)
    masks = {}
    for name, (before, after) in entered.items():
        change = (after - before).reshape(*before.shape[:2], -1).square().mean(dim=2).sqrt()  # of a channel
        rounding = torch.finfo(before.dtype).eps * before.flatten(1).abs().amax(dim=1)
        limit = _OPEN * (change.amax(dim=1) + _OPEN * rounding)
        gap = gaps[name]
        masks[name] = (gap <= limit.view(-1, *[1] * (gap.ndim - 1))).to(points)
    return masks


def _gap(fed: Tensor, pool: nn.MaxPool2d) -> Tensor:
    """By how much the largest number of each window is larger than the next."""
    first, second = windows(fed, pool).topk(2, dim=0).values.unbind()
    return first - second
