"""How every data set is split: once and for all, by a permutation that no seed of a cell changes (rule E18)."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gibench.datasets.base import Images, Split
from gibench.errors import UsageError

Indices = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

TUNING_SHARE, PUBLIC_SHARE = 40 / 631, 231 / 631  # `photos` has 360 private, 40 tuning and 231 public images


def split(pixels: Pixels, labels: Any, classes: Sequence[str], public_from: int | None = None) -> Images:
    """The three splits of a data set, without repeated images: each image's first occurrence stays.

    Args:
        pixels: `[N, H, W, C]`.
        labels: `[N]` integers.
        classes: their names.
        public_from: the images from this index on are public, and the tuning split is a share of the rest; None
            takes all three as shares of the whole.

    Raises:
        UsageError: there are fewer than three different images.
    """
    kept = _first_occurrences(pixels)
    if len(kept) < 3:
        raise UsageError(f"the data set holds {len(kept)} different images: at least 3 are needed, one a split")
    public = kept[kept >= public_from] if public_from is not None else None
    # RandomState, because NumPy promises that its stream never changes.
    rest = np.random.RandomState(0).permutation(kept if public_from is None else kept[kept < public_from])
    tuning, rest = np.split(rest, [_count(TUNING_SHARE, len(rest))])
    if public is None:
        public, rest = np.split(rest, [_count(PUBLIC_SHARE, len(kept))])
    targets = np.asarray(labels, dtype=np.int64)
    private, held_out, known = (_take(pixels, targets, chosen) for chosen in (rest, tuning, public))
    std, mean = torch.std_mean(known.images, dim=(0, 2, 3), correction=0)
    return Images(private, held_out, known, tuple(classes), mean, std.clamp(min=1 / 255))  # flat images have no std


def _count(share: float, total: int) -> int:
    return max(1, round(share * total))


def _take(pixels: Pixels, labels: Indices, chosen: Indices) -> Split:
    images = torch.from_numpy(pixels[chosen]).permute(0, 3, 1, 2).contiguous()
    return Split(images.float().div_(255), torch.from_numpy(labels[chosen]))


def _first_occurrences(pixels: Pixels) -> Indices:
    """Where each different image stands first, ascending."""
    first: dict[bytes, int] = {}
    for index, image in enumerate(pixels):
        first.setdefault(sha256(image.tobytes()).digest(), index)
    return np.array(list(first.values()), dtype=np.int64)
