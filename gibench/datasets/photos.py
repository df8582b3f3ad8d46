"""Tiles of the photographs that ship inside scikit-image and scikit-learn: real images without a download."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gibench.datasets.base import Dataset, Images
from gibench.datasets.near import Indices, Pixels, clusters
from gibench.datasets.split import assemble

SIDE = 32  # px of a tile
MIN_STD = 0.12  # of a tile's pixels in [0, 1]; below it a tile is flat
PRIVATE, TUNING, PUBLIC = 104, 48, 104  # tiles of a photograph at most; what is over is for training


class Photos(Dataset):
    """1332 tiles, 32x32x3, of ten photographs; the label is the photograph.

    Splits: 520 private tiles of five photographs, 96 tuning tiles of two others, 224 public ones of the other three.
    Training: these and what is left of each photograph, 716 tiles, so it shares photographs with private, not tiles.
    """

    bundled = True

    def load(self) -> Images:
        tiles = [_tiles(read()) for read in _PHOTOGRAPHS.values()]
        labels = np.repeat(np.arange(len(tiles)), [len(some) for some in tiles])
        pixels = np.concatenate(tiles)
        kept = np.unique(clusters(pixels))  # of near-duplicates the first stays
        # RandomState, because NumPy promises that its stream never changes.
        kept = np.random.RandomState(0).permutation(kept)
        private, tuning, public = (_first(kept, labels, *rule) for rule in _SPLITS)
        training = kept[~np.isin(kept, np.concatenate([private, tuning]))]
        return assemble(pixels, labels, tuple(_PHOTOGRAPHS), private, tuning, public, training, "photographs")


def _tiles(photograph: npt.NDArray[np.uint8]) -> Pixels:
    """The tiles of one photograph that are not flat, `[N, 32, 32, 3]`, without overlap."""
    rows, columns = photograph.shape[0] // SIDE, photograph.shape[1] // SIDE
    tiles = photograph[: rows * SIDE, : columns * SIDE].reshape(rows, SIDE, columns, SIDE, 3)
    pixels = tiles.transpose(0, 2, 1, 3, 4).reshape(-1, SIDE, SIDE, 3)
    varied: Pixels = pixels[(pixels / 255).std(axis=(1, 2, 3)) >= MIN_STD]
    return varied


def _first(order: Indices, labels: Indices, photographs: tuple[str, ...], most: int) -> Indices:
    """The first tiles of each photograph, so many at most, in the order given."""
    wanted = [list(_PHOTOGRAPHS).index(name) for name in photographs]
    rank = np.zeros(len(order), dtype=np.int64)  # of a tile among those of its photograph
    for label in wanted:
        of_label = labels[order] == label
        rank[of_label] = np.arange(of_label.sum())
    return order[np.isin(labels[order], wanted) & (rank < most)]


def _skimage(name: str) -> Callable[[], Any]:
    def read() -> Any:
        from skimage import data

        return getattr(data, name)()

    return read


def _sklearn(name: str) -> Callable[[], Any]:
    def read() -> Any:
        from sklearn.datasets import load_sample_image

        return load_sample_image(name)

    return read


_PHOTOGRAPHS: dict[str, Callable[[], npt.NDArray[np.uint8]]] = {
    "astronaut": _skimage("astronaut"),
    "chelsea": _skimage("chelsea"),
    "coffee": _skimage("coffee"),
    "rocket": _skimage("rocket"),
    "immunohistochemistry": _skimage("immunohistochemistry"),
    "retina": _skimage("retina"),
    "china": _sklearn("china.jpg"),
    "flower": _sklearn("flower.jpg"),
    "motorcycle": lambda: _skimage("stereo_motorcycle")()[0],  # the left view
    "hubble": _skimage("hubble_deep_field"),
}
_SPLITS = (
    (("astronaut", "coffee", "immunohistochemistry", "motorcycle", "hubble"), PRIVATE),
    (("chelsea", "retina"), TUNING),
    (("china", "rocket", "flower"), PUBLIC),
)
