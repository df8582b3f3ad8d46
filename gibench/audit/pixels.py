"""Whether recovered inputs are the pixels that mean, std and shape make of them. A certificate is of inputs alone.

Images are stored in 256 grey levels. What was recovered exactly lies on that grid if mean and std are right, and is
spread evenly between its levels if they are not; a wrong std or mean by whole grey levels shows where pixels leave
[0, 1]. A shape in another order than the image's shows in neighbours that are less alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_LEVELS = 255
_ON_GRID = 0.1  # mean distance from the nearest level, in levels; numbers on no grid have 0.25
_OUTSIDE = 0.01  # how far pixels may leave [0, 1]
_FEWEST = 16  # distinct levels that tell a grid from chance
_APART = 0.02  # levels, less than which two numbers are one
_SMOOTHER = 0.6  # how much less neighbours differ in the order that is the image's


@dataclass(frozen=True)
class PixelCheck:
    """Whether inputs may be called pixels, and what would make them so."""

    passed: bool
    distance: float  # mean, in grey levels, from the nearest level
    reason: str
    on_grid: bool = False  # and within [0, 1], in whatever order
    judged: bool = True  # whether there are enough levels to tell
    mean: tuple[float, ...] | None = None  # proposed, where the inputs lie on a grid of their own
    std: tuple[float, ...] | None = None


def check_pixels(inputs: Tensor, mean: Tensor, std: Tensor) -> PixelCheck:
    """Judge recovered inputs `[N, C, H, W]` by the mean and std `[C]` that were stated."""
    values = inputs.double().cpu()
    shape = (1, -1, 1, 1)
    pixels = values * std.double().cpu().view(shape) + mean.double().cpu().view(shape)
    levels = [_distinct(channel * _LEVELS) for channel in pixels.transpose(0, 1)]
    distance = max(float((each - each.round()).abs().mean()) for each in levels)
    outside = float(torch.maximum(-pixels, pixels - 1).amax())
    if min(map(len, levels)) < _FEWEST:
        reason = "too few distinct values to tell whether they lie on the 8-bit grid"
        return PixelCheck(False, distance, reason, judged=False)
    if distance < _ON_GRID and outside < _OUTSIDE:
        if _order_is_another(pixels):
            height, width = pixels.shape[2:]
            order = f"H,W,C of {height}x{width}"
            return PixelCheck(
                False,
                distance,
                f"neighbouring pixels are more alike in the order {order}: the model takes"
                " images in another order than the shape says",
                on_grid=True,
            )
        reason = f"the recovered inputs lie on the 8-bit grid of the stated mean and std{_open(levels)}"
        return PixelCheck(True, distance, reason, True)
    why = f"mean distance {distance:.2g} grey levels" if distance >= _ON_GRID else "pixels outside [0, 1]"
    found = [_grid(channel) for channel in values.transpose(0, 1)]
    if any(each is None for each in found):
        return PixelCheck(
            False, distance, f"the recovered inputs are no 8-bit pixels by the stated mean and std: {why}"
        )
    proposed = [each for each in found if each is not None]
    means, stds = (tuple(float(f"{each[part]:.4g}") for each in proposed) for part in (0, 1))
    reason = (
        f"the recovered inputs are no 8-bit pixels by the stated mean and std ({why}): their own grid says otherwise"
    )
    return PixelCheck(False, distance, reason, mean=means, std=stds)


def _open(levels: list[Tensor]) -> str:
    """What the grid leaves open of the mean: a shift by whole grey levels, as long as pixels stay within the range."""
    ends = [(round(float(each[0])), round(float(each[-1]))) for each in levels]
    if all(end == (0, _LEVELS) for end in ends):
        return ""
    dark, bright = min(end[0] for end in ends), max(end[1] for end in ends)
    return f", from {dark} to {bright}: it does not tell a mean that is off by whole grey levels"


def on_grid(inputs: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Which of the images `[N, C, H, W]` lie on the 8-bit grid, `[N]`: chance or a mixture of images does not.

    Beside certificates and the residual it is a third witness, which asks for no weights.
    """
    found = [check_pixels(image[None], mean, std).on_grid for image in inputs]
    return torch.tensor(found, dtype=torch.bool)


def as_pixels(inputs: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Which of the images `[N, C, H, W]`, together on the grid, are not off it by themselves, `[N]`.

    An image of few levels tells nothing by itself, and counts by the others.
    """
    found = [check_pixels(image[None], mean, std) for image in inputs]
    return torch.tensor([each.on_grid or not each.judged for each in found], dtype=torch.bool)


def _distinct(values: Tensor) -> Tensor:
    """Sorted, those that are as good as equal once."""
    ordered = values.flatten().sort().values
    apart = torch.cat([ordered.new_ones(1, dtype=torch.bool), ordered.diff() > _APART])
    return ordered[apart]


def _grid(inputs: Tensor) -> tuple[float, float] | None:
    """The mean and std whose grid one channel's inputs lie on, the darkest taken for black; None if on no grid."""
    ordered = inputs.flatten().sort().values
    span = float(ordered[-1] - ordered[0])
    gaps = ordered.diff()
    gaps = gaps[gaps > _APART * span / _LEVELS]  # two levels are at least span / 255 apart
    if len(gaps) < _FEWEST:
        return None
    offsets = ordered - ordered[0]
    step = float(gaps.min())
    for reach in (4, 16, 64, 256):  # near numbers first: an error of the step grows with the distance
        near = offsets[offsets < (reach + 0.5) * step]
        counts = (near / step).round()
        if not bool(counts.any()):
            continue
        step = float((near * counts).sum() / counts.square().sum())
    counts = (offsets / step).round()
    if float((offsets / step - counts).abs().mean()) > _ON_GRID or float(counts.max()) > _LEVELS:
        return None
    std = 1 / (_LEVELS * step)
    return float(-ordered[0] * std) + 0.0, std


def _order_is_another(pixels: Tensor) -> bool:
    """Whether the same numbers read as rows of H, W, C have neighbours that differ much less."""
    count, channels, height, width = pixels.shape
    if channels == 1:
        return False
    other = pixels.reshape(count, height, width, channels).permute(0, 3, 1, 2)
    return _roughness(other) < _SMOOTHER * _roughness(pixels)


def _roughness(pixels: Tensor) -> float:
    return float(pixels.diff(dim=2).abs().mean() + pixels.diff(dim=3).abs().mean())
