"""A plain convolutional ReLU network without normalisation."""

from __future__ import annotations

from itertools import pairwise

from pydantic import Field
from torch import nn

from gibench.errors import UsageError
from gibench.models.base import Model


class ConvNet(Model):
    """Three stages of two 3x3 convolutions with ReLU, 2x2 max pooling between them, the mean of each quadrant, linear.

    Stages have `width`, twice and four times as many channels. The shape of the ConvNet of Inverting Gradients
    (Geiping et al., NeurIPS 2020, arXiv 2003.14053), smaller and without its BatchNorm, so that no statistics of the
    batch mix its images and per-example gradients exist. Any image from 4 px up; torch's default initial weights.
    """

    builds_on_meta = True

    width: int = Field(32, ge=1, le=10_000, description="channels of the first stage")

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        channels, *sides = image_shape
        if min(sides) < 4:
            raise UsageError(f"convnet takes images from 4 px up, not {sides[0]}x{sides[1]}: use mlp or linear")
        widths = [channels, self.width, 2 * self.width, 4 * self.width]
        first, *later = [_stage(*pair) for pair in pairwise(widths)]
        stages = [*first, *(layer for stage in later for layer in (nn.MaxPool2d(2), *stage))]
        return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * widths[-1], num_classes))


def _stage(channels: int, width: int) -> list[nn.Module]:
    convolutions = (nn.Conv2d(size, width, kernel_size=3, padding=1) for size in (channels, width))
    return [layer for convolution in convolutions for layer in (convolution, nn.ReLU())]
