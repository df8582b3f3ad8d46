"""Group consistency: restarts are drawn to the mean of what all of them see, each registered to it (Yin et al. 2021).

Registration is by translation alone: the highest correlation of the phases of two images' spectra (Kuglin and Hines,
ICCS 1975), by whole pixels and around the borders.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FARTHEST = 8  # a shift is at most one such part of a side: candidates differ in small translations
_EPS = 1e-8  # keeps the root differentiable where a candidate is the consensus


def group_consistency(images: Tensor) -> Tensor:
    """The root mean square distance of each restart's images from the consensus, which is held constant.

    The images of one place in the batch are of one label, and are taken for one image.

    Args:
        images: `[R, B, C, H, W]`.

    Returns:
        `[R]`; of one restart alone there is no consensus but itself, and nothing is asked.
    """
    distance = images - consensus(images.detach())
    return (distance.square().mean((1, 2, 3, 4)) + _EPS).sqrt()


def consensus(images: Tensor) -> Tensor:
    """The mean over restarts of their images, after each is registered to the mean of all as they are: `[B, C, H, W]`.

    Restarts that hold no finite numbers have no part in it.
    """
    finite = images.isfinite().flatten(1).all(1).view(-1, 1, 1, 1, 1)
    images, count = torch.where(finite, images, 0), finite.sum().clamp_min(1)
    return torch.where(finite, registered(images, images.sum(0) / count), 0).sum(0) / count


def registered(images: Tensor, target: Tensor) -> Tensor:
    """Images `[R, B, C, H, W]`, each rolled to where it fits the target `[B, C, H, W]` best."""
    down, across = _shifts(images, target)
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) - down[..., None]) % height
    columns = (torch.arange(width, device=images.device) - across[..., None]) % width
    images = images.gather(3, rows[:, :, None, :, None].expand(images.shape))
    return images.gather(4, columns[:, :, None, None, :].expand(images.shape))


def _shifts(images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """How far down and across each image is to be rolled, `[R, B]` each; none where no shift is better than none."""
    height, width = images.shape[-2:]
    cross = torch.fft.rfft2(target) * torch.fft.rfft2(images).conj_physical()
    phases = (cross / cross.abs().clamp_min(torch.finfo(images.dtype).tiny)).sum(2)  # over channels
    found = torch.fft.irfft2(phases, s=(height, width))
    most_down, most_across = height // _FARTHEST, width // _FARTHEST
    near = torch.roll(found, (most_down, most_across), (2, 3))[..., : 2 * most_down + 1, : 2 * most_across + 1]
    size = near.shape[-1]
    places = near.flatten(2)
    stay = most_down * size + most_across
    best = torch.where(places.amax(2) > places[..., stay], places.argmax(2), stay)
    return best // size - most_down, best % size - most_across
