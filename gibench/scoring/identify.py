"""Whether an image finds its original among all that it may be of."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 2**22  # pixels of candidates that are held in float64 at once


def reidentified(truth: Tensor, images: Tensor, candidates: Tensor) -> list[bool]:
    """For each pair whether the candidate that the image is most like, by MSE, has the pixels of the truth.

    Of an exact image that is so; of one that says nothing of its original about once in N.

    Args:
        truth, images: `[K, C, H, W]`, pair by pair.
        candidates: `[N, C, H, W]`, those that the true images were drawn from.
    """
    wanted = images.flatten(1).double()  # a grey level in one of 150,000 pixels is lost to float32
    best = torch.full((len(wanted),), torch.inf, dtype=torch.float64)
    nearest = torch.zeros(len(wanted), dtype=torch.int64)
    size = max(1, _CHUNK // max(1, candidates[0].numel()))
    for start, some in zip(range(0, len(candidates), size), torch.split(candidates, size), strict=True):
        pixels = some.flatten(1).double()
        # |image - candidate|^2 without the image's own part, which is the same for all
        least, place = (pixels.square().sum(1) - 2 * wanted @ pixels.T).min(1)
        nearest = torch.where(least < best, place + start, nearest)
        best = torch.minimum(least, best)
    return [torch.equal(true, candidates[each]) for true, each in zip(truth, nearest.tolist(), strict=True)]
