"""A fully connected network with residual blocks (He et al., CVPR 2016, arXiv 1512.03385, without convolutions)."""

from __future__ import annotations

import math

from pydantic import Field
from torch import Tensor, nn

from gibench.models.base import Model


class ResMLP(Model):
    """Flatten, a hidden layer of `width` ReLU neurons, `blocks` of two layers that are added to what enters, linear.

    Any image; torch's default initial weights.
    """

    builds_on_meta = True

    width: int = Field(200, ge=1, le=1_000_000, description="neurons a layer")
    blocks: int = Field(2, ge=1, le=500, description="residual blocks of two layers")

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        entry = nn.Flatten(), nn.Linear(math.prod(image_shape), self.width), nn.ReLU()
        blocks = (Block(self.width) for _ in range(self.blocks))
        return nn.Sequential(*entry, *blocks, nn.Linear(self.width, num_classes))


class Block(nn.Module):
    """`relu(x + W2 relu(W1 x))`, with biases."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """`[N, width]` to the same."""
        added: Tensor = self.relu(x + self.inner(x))
        return added
