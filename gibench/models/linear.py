"""Softmax regression."""

from __future__ import annotations

import math

from torch import nn

from gibench.models.base import Model


class Linear(Model):
    """Flatten and one linear layer with bias; torch's default initial weights."""

    builds_on_meta = True

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(image_shape), num_classes))
