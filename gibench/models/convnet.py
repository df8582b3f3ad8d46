"""A plain convolutional ReLU network, with BatchNorm or without."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from gibench.errors import UsageError
from gibench.models.base import Model


class ConvNet(Model):
    """Three stages of two 3x3 convolutions with ReLU, 2x2 max pooling between them, the mean of each quadrant, linear.

    Stages have `width`, twice and four times as many channels. The shape of the ConvNet of Inverting Gradients
    (Geiping et al., NeurIPS 2020, arXiv 2003.14053), smaller and without its BatchNorm, so that no statistics of the
    batch mix its images and per-example gradients exist; `norm=batch` puts it after each convolution. Any image from
    4 px up; torch's default initial weights.
    """

    builds_on_meta = True
    later: ClassVar[frozenset[str]] = frozenset({"norm"})

    width: int = Field(32, ge=1, le=10_000, description="channels of the first stage")
    norm: Literal["none", "batch"] = Field("none", description="normalisation after each convolution")

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        channels, *sides = image_shape
        if min(sides) < 4:
            raise UsageError(f"convnet takes images from 4 px up, not {sides[0]}x{sides[1]}: use mlp or linear")
        widths = [channels, self.width, 2 * self.width, 4 * self.width]
        first, *rest = [self._stage(*pair) for pair in pairwise(widths)]
        stages = [*first, *(layer for stage in rest for layer in (nn.MaxPool2d(2), *stage))]
        return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * widths[-1], num_classes))

    def _stage(self, channels: int, width: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for size in (channels, width):
            norm = [nn.BatchNorm2d(width)] if self.norm == "batch" else []
            layers += [nn.Conv2d(size, width, kernel_size=3, padding=1), *norm, nn.ReLU()]
        return layers
