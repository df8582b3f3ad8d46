"""Tiles of the photographs that ship inside scikit-image and scikit-learn: real images without a download."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gibench.datasets.base import Dataset, Images
from gibench.datasets.split import Pixels, split

TILE, SIDE = 48, 32  # px in the photograph, px of the image
MIN_STD = 0.12  # of an image's pixels in [0, 1]; below it a tile is flat
MAX_TILES = 80  # a photograph


class Photos(Dataset):
    """631 tiles, 32x32x3, of ten photographs; the label is the photograph. Splits: 360, 40 and 231 images."""

    def load(self) -> Images:
        tiles = [_tiles(read()) for read in _PHOTOGRAPHS.values()]
        labels = np.repeat(np.arange(len(tiles)), [len(some) for some in tiles])
        return split(np.concatenate(tiles), labels, tuple(_PHOTOGRAPHS))


def _tiles(photograph: npt.NDArray[np.uint8]) -> Pixels:
    """The tiles of one photograph that are not flat, `[N, 32, 32, 3]`, at most 80 evenly spread ones."""
    rows, columns = photograph.shape[0] // TILE, photograph.shape[1] // TILE
    tiles = photograph[: rows * TILE, : columns * TILE].reshape(rows, TILE, columns, TILE, 3)
    reduce = _reduction()
    channels = tiles.transpose(0, 2, 4, 1, 3).reshape(-1, 3, TILE, TILE).astype(np.float64)
    pixels: Pixels = np.rint(reduce @ channels @ reduce.T).astype(np.uint8).transpose(0, 2, 3, 1)
    pixels = pixels[(pixels / 255).std(axis=(1, 2, 3)) >= MIN_STD]
    if len(pixels) > MAX_TILES:
        pixels = pixels[np.linspace(0, len(pixels) - 1, MAX_TILES).round().astype(int)]
    return pixels


def _reduction() -> npt.NDArray[np.float64]:
    """scikit-image's anti-aliased `resize` of one axis as a matrix `[32, 48]`: it is linear and separable.

    All tiles at once take a third of the time of one call a tile.
    """
    from skimage.transform import resize

    matrix: npt.NDArray[np.float64] = resize(np.eye(TILE), (SIDE, TILE), anti_aliasing=True)
    return matrix


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
