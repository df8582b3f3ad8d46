"""The image grid: each true image over its reconstruction, as a PNG."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from gibench.scoring.evaluate import Score

_WIDE = 64  # images from which on the grid is wide and the tiles small, so that all fit on a page
_COLUMNS, _COLUMNS_WIDE = 16, 32  # at most
_TILE, _TILE_WIDE = 64, 32  # pixels that a small image's longer side is enlarged to, at least half of it
_LARGEST, _LARGEST_WIDE = 256, 64  # pixels that a large image's longer side is reduced to
_GAP = 4  # pixels between tiles
_FRAME = 2  # pixels of green around a certified image
_BAND = 8  # pixels between one pair of rows and the next
_WHITE, _GREEN = (255, 255, 255), (0, 160, 60)

Picture = npt.NDArray[np.uint8]


def grid_png(truth: Tensor, score: Score) -> bytes:
    """The PNG of up to 16 pairs a row, 32 from 64 images on; certified ones in a green frame.

    Small images are enlarged by whole pixels, large ones reduced. The rows are as even as they can be.

    Args:
        truth: `[B, C, H, W]` in [0, 1], C 1 or 3, as it was scored.
        score: what `score` gave for it.
    """
    few = len(truth) < _WIDE
    most, *sides = (_COLUMNS, _TILE, _LARGEST) if few else (_COLUMNS_WIDE, _TILE_WIDE, _LARGEST_WIDE)
    originals, found = _tiles(truth, *sides), _tiles(score.matched, *sides)
    height, width = originals.shape[1:3]
    step_x, step_y = width + _GAP, 2 * (height + _GAP) + _BAND
    rows = -(-len(originals) // most)
    columns = -(-len(originals) // rows)
    canvas = np.full((rows * step_y - _BAND + _GAP, columns * step_x + _GAP, 3), _WHITE, np.uint8)
    for index, certified in enumerate(score.images["certified"]):
        row, column = divmod(index, columns)
        y, x = row * step_y + _GAP, column * step_x + _GAP
        below = y + height + _GAP
        canvas[y : y + height, x : x + width] = originals[index]
        if certified:
            canvas[below - _FRAME : below + height + _FRAME, x - _FRAME : x + width + _FRAME] = _GREEN
        canvas[below : below + height, x : x + width] = found[index]
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "PNG")
    return buffer.getvalue()


def strips(png: bytes) -> tuple[Picture, Picture]:
    """The originals, and the images over which they stand, with their frames: two strips `[H, W, 3]` of one size.

    Args:
        png: a grid of one row of pairs.
    """
    canvas = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    half = len(canvas) // 2
    return canvas[:half], canvas[half:]


def _tiles(images: Tensor, tile: int, largest: int) -> Picture:
    """`[B, C, H, W]` in [0, 1] to 8-bit colour `[B, H', W', 3]` of a size to be looked at."""
    images = images.detach().cpu()
    if (longer := max(images.shape[2:])) > largest:
        size = [max(1, round(side * largest / longer)) for side in images.shape[2:]]
        images = interpolate(images, size, mode="bilinear", antialias=True)
    pixels = (images.clamp(0, 1) * 255).round().byte().expand(-1, 3, -1, -1)
    scale = max(1, tile // max(pixels.shape[2:]))
    return pixels.permute(0, 2, 3, 1).repeat_interleave(scale, 1).repeat_interleave(scale, 2).numpy()
