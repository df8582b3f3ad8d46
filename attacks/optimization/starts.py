"""Where a descent starts from."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Start = Literal["normal", "small", "patterned", "zeros"]


def draw(
    start: Start, restarts: int, shape: tuple[int, int, int, int], generator: torch.Generator, dtype: torch.dtype
) -> Tensor:
    """First candidates `[R, B, C, H, W]` as the model takes them (normalised).

    `normal` draws every entry from the standard normal distribution, `small` a tenth of that, `patterned` a 4 x 4 tile
    that repeats over the image (Wei et al., ESORICS 2020), `zeros` is the mean colour.

    Restarts are drawn one after the other, so that the first of many is the same as the only one.
    """
    batch, channels, height, width = shape
    if start == "zeros":
        return torch.zeros(restarts, *shape, device=generator.device, dtype=dtype)
    tile = (4, 4) if start == "patterned" else (height, width)
    drawn = [
        torch.randn(batch, channels, *tile, generator=generator, device=generator.device, dtype=dtype)
        for _ in range(restarts)
    ]
    repeats = (1, 1, 1, -(-height // tile[0]), -(-width // tile[1]))
    images = torch.stack(drawn).tile(repeats)[..., :height, :width].contiguous()
    return images / 10 if start == "small" else images
