"""The fully connected network: with ReLU the setting of SPEAR and SPEAR++."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar

from pydantic import Field
from torch import nn

from gibench.models import parts
from gibench.models.base import Model


class MLP(Model):
    """Flatten, `depth` hidden layers of `width` neurons, ReLU unless `activation` says otherwise, a linear layer.

    torch's default initial weights.
    """

    builds_on_meta = True
    later: ClassVar[frozenset[str]] = frozenset({"activation"})

    width: int = Field(200, ge=1, le=1_000_000, description="neurons a hidden layer")
    depth: int = Field(5, ge=1, le=1000, description="hidden layers")
    activation: parts.Activation = Field("relu", description="after each hidden layer")

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        sizes = [math.prod(image_shape), *[self.width] * self.depth]
        hidden = [layer for size in pairwise(sizes) for layer in (nn.Linear(*size), parts.activation(self.activation))]
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(self.width, num_classes))
