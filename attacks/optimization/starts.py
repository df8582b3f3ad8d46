"""Where a descent starts from."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Start = Literal["normal", "small", "patterned", "zeros"]


def draw(start: Start, shape: tuple[int, int, int, int], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """First images `[B, C, H, W]` as the model takes them (normalised).

    `normal` draws every entry from the standard normal distribution, `small` a tenth of that, `patterned` a 4 x 4 tile
    that repeats over the image (Wei et al., ESORICS 2020), `zeros` is the mean colour.
    """
    batch, channels, height, width = shape
    if start == "zeros":
        return torch.zeros(shape, device=generator.device, dtype=dtype)
    tile = (4, 4) if start == "patterned" else (height, width)
    drawn = torch.randn(batch, channels, *tile, generator=generator, device=generator.device, dtype=dtype)
    images = drawn.tile(1, 1, -(-height // tile[0]), -(-width // tile[1]))[..., :height, :width]
    return images / 10 if start == "small" else images
