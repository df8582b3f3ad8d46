"""How every data set is split: once and for all, by a permutation that no seed of a cell changes (rule E18)."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import torch

from gibench.datasets.base import Images, Split
from gibench.datasets.near import NEAR_PSNR, Indices, Pixels, clusters, near_any
from gibench.errors import UsageError

TUNING_SHARE, PUBLIC_SHARE = 40 / 631, 231 / 631  # 57% are left to the private split


def split(pixels: Pixels, labels: Any, classes: Sequence[str], public_from: int | None = None) -> Images:
    """The splits of a data set, none of which holds a near-duplicate of another's image; training is public.

    Repeated images are left out: each one's first occurrence stays.

    Args:
        pixels: `[N, H, W, C]`.
        labels: `[N]` integers.
        classes: their names.
        public_from: the images from this index on are public, but for near-duplicates of those before it, of which
            the tuning split is a share; None takes all three as shares of the whole.

    Raises:
        UsageError: there are fewer than three images that are no near-duplicates, or none is left to be public.
    """
    kept = _first_occurrences(pixels)
    if public_from is None:
        private, tuning, public = _shared_out(pixels, kept, (TUNING_SHARE, PUBLIC_SHARE))
    else:
        known, held = kept[kept >= public_from], kept[kept < public_from]
        private, tuning = _shared_out(pixels, held, (TUNING_SHARE,))
        public = np.random.RandomState(0).permutation(known[~near_any(pixels[known], pixels[held])])
        if not len(public):
            raise UsageError(f"each public image is within {NEAR_PSNR:g} dB of a private one: the splits are one set")
    return assemble(pixels, labels, classes, private, tuning, public, public)


def assemble(
    pixels: Pixels,
    labels: Any,
    classes: Sequence[str],
    private: Indices,
    tuning: Indices,
    public: Indices,
    training: Indices,
    training_shares: str = "nothing",
) -> Images:
    """A data set from the indices of its splits; see `Images`."""
    targets = np.asarray(labels, dtype=np.int64)
    known = _take(pixels, targets, public)
    std, mean = torch.std_mean(known.images, dim=(0, 2, 3), correction=0)
    return Images(
        private=_take(pixels, targets, private),
        tuning=_take(pixels, targets, tuning),
        public=known,
        training=known if training is public else _take(pixels, targets, training),
        classes=tuple(classes),
        mean=mean,
        std=std.clamp(min=1 / 255),  # flat images have no std
        training_shares=training_shares,
    )


def _shared_out(pixels: Pixels, kept: Indices, shares: Sequence[float]) -> list[Indices]:
    """The kept images in `1 + len(shares)` parts, whole clusters of near-duplicates each, in random order.

    All parts but the first are filled up to their share of the images, one after the other. A cluster that would
    overfill a part is passed over, unless the part would stay empty: then the smallest is taken. So the largest
    clusters come to the first part, which holds what is left.
    """
    # RandomState, because NumPy promises that its stream never changes.
    order = np.random.RandomState(0).permutation(len(kept))
    cluster = clusters(pixels[kept])[order]
    sizes = np.bincount(cluster, minlength=len(kept))
    waiting = list(dict.fromkeys(cluster.tolist()))
    if len(waiting) <= len(shares):
        raise UsageError(
            f"the data set holds {len(waiting)} different images, near-duplicates (within {NEAR_PSNR:g} dB) counted "
            f"once: at least {len(shares) + 1} are needed, one a split"
        )
    part = np.zeros(len(kept), dtype=np.int64)  # of each cluster
    for number, share in enumerate(shares, start=1):
        room = max(1, round(share * len(kept)))
        chosen = []
        for each in waiting:
            if sizes[each] <= room:
                chosen.append(each)
                room -= sizes[each]
        chosen = chosen or [min(waiting, key=sizes.__getitem__)]
        part[chosen] = number
        waiting = [each for each in waiting if part[each] == 0]
    return [kept[order][part[cluster] == number] for number in range(len(shares) + 1)]


def _take(pixels: Pixels, labels: Indices, chosen: Indices) -> Split:
    images = torch.from_numpy(pixels[chosen]).permute(0, 3, 1, 2).contiguous()
    return Split(images.float().div_(255), torch.from_numpy(labels[chosen]))


def _first_occurrences(pixels: Pixels) -> Indices:
    """Where each different image stands first, ascending."""
    first: dict[bytes, int] = {}
    for index, image in enumerate(pixels):
        first.setdefault(sha256(image.tobytes()).digest(), index)
    return np.array(list(first.values()), dtype=np.int64)
