"""Near-duplicates: images so alike that one, in the hands of a server, gives the other away."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

NEAR_PSNR = 25.0  # dB; from here on two images are near-duplicates
NEAR_MSE = 255**2 * 10 ** (-NEAR_PSNR / 10)  # in grey levels
BLOCKS = 4  # a side, of the coarse images that are compared first
SLACK = 0.5  # above what float32 rounds
CHUNK, PAIRS = 1024, 1024  # images and pairs compared at once


def clusters(pixels: Pixels) -> Indices:
    """The cluster of each image, as the index of its first member: near-duplicates share one, and so do theirs.

    Args:
        pixels: `[N, H, W, C]`.
    """
    cluster = np.arange(len(pixels))
    for first, second in _candidates(pixels, pixels, upper=True):
        for start in range(0, len(first), PAIRS):
            left, right = first[start : start + PAIRS], second[start : start + PAIRS]
            apart = cluster[left] != cluster[right]  # whom others have joined already need no look
            left, right = left[apart], right[apart]
            near = _are_near(pixels[left], pixels[right])
            cluster = _joined(cluster, left[near], right[near])
    return cluster


def near_any(pixels: Pixels, others: Pixels) -> npt.NDArray[np.bool_]:
    """Which images have a near-duplicate among the others, `[N]`; both are `[N, H, W, C]`."""
    found = np.zeros(len(pixels), dtype=bool)
    for first, second in _candidates(others, pixels):
        for start in range(0, len(second), PAIRS):
            left, right = first[start : start + PAIRS], second[start : start + PAIRS]
            unknown = ~found[right]
            left, right = left[unknown], right[unknown]
            found[right[_are_near(others[left], pixels[right])]] = True
    return found


def _candidates(pixels: Pixels, others: Pixels, upper: bool = False) -> Iterator[tuple[Indices, Indices]]:
    """Pairs whose coarse images are near, some at a time; `upper` gives each pair of one set once.

    The mean squared difference of block means never exceeds that of the images, so no near-duplicate is missed.
    """
    left, right = _coarse(pixels), _coarse(others)
    centre = right.mean(0)
    left, right = left - centre, right - centre  # small numbers lose less to float32
    left, right = _augmented(left, -2.0), _augmented(right, 1.0)[:, [*range(right.shape[1]), -1, -2]]
    for start in range(0, len(left), CHUNK):
        for other in range(start if upper else 0, len(right), CHUNK):
            distances = left[start : start + CHUNK] @ right[other : other + CHUNK].T
            found = np.flatnonzero(distances <= NEAR_MSE + SLACK)
            first, second = np.divmod(found, distances.shape[1])
            first, second = first + start, second + other
            yield (first[second > first], second[second > first]) if upper else (first, second)


def _augmented(coarse: npt.NDArray[np.float32], scale: float) -> npt.NDArray[np.float32]:
    """`[scale x, |x|^2, 1]`, so that one product gives squared distances."""
    ones = np.ones((len(coarse), 1), dtype=np.float32)
    return np.hstack([scale * coarse, (coarse**2).sum(1, keepdims=True), ones])


def _coarse(pixels: Pixels) -> npt.NDArray[np.float32]:
    """Images of 4 x 4 blocks, `[N, features]`, scaled so that squared distances are mean squared differences."""
    height, width = pixels.shape[1:3]
    down, across = (_block_means(side) for side in (height, width))
    rows = np.einsum("nhwc,hb->nbwc", pixels, down, dtype=np.float32, casting="unsafe", optimize=True)
    blocks: npt.NDArray[np.float32] = np.einsum("nbwc,wd->nbdc", rows, across, optimize=True)
    return blocks.reshape(len(pixels), -1) / np.float32(np.sqrt(pixels[0].size))


def _block_means(side: int) -> npt.NDArray[np.float32]:
    """`[side, blocks]` with orthonormal columns: each sums one block over the square root of its length."""
    columns = np.zeros((side, min(side, BLOCKS)), dtype=np.float32)
    for block, members in enumerate(np.array_split(np.arange(side), columns.shape[1])):
        columns[members, block] = 1 / np.sqrt(len(members))
    return columns


def _are_near(first: Pixels, second: Pixels) -> npt.NDArray[np.bool_]:
    difference = first.astype(np.int32) - second
    near: npt.NDArray[np.bool_] = (difference**2).mean(axis=(1, 2, 3)) <= NEAR_MSE
    return near


def _joined(cluster: Indices, first: Indices, second: Indices) -> Indices:
    """The clusters after those of each pair became one."""
    if not len(first):
        return cluster
    from scipy.sparse import coo_array  # here, because naming a data set needs none of it
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(first), dtype=bool), (cluster[first], cluster[second])), shape=(len(cluster),) * 2)
    component = connected_components(edges, directed=False)[1][cluster]
    _, firsts, inverse = np.unique(component, return_index=True, return_inverse=True)
    return firsts[inverse]
