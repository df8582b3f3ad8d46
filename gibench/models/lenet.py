"""The smooth LeNet of Deep Leakage from Gradients (Zhu et al., NeurIPS 2019, arXiv 1906.08935)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn

from gibench.models.base import Model


class LeNet(Model):
    """Three 5x5 convolutions of 12 channels, strides 2, 2, 1, each with a sigmoid, and a linear layer.

    As in the paper's code, for any image size: 768 features at 32x32.
    """

    builds_on_meta = True

    init: Literal["uniform", "default"] = Field(
        "uniform", description="initial weights and biases: uniform(-0.5, 0.5), as DLG needs, or torch's default"
    )

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        channels, height, width = image_shape
        features = 12 * _quarter(height) * _quarter(width)
        model = nn.Sequential(
            *_layer(channels, stride=2), *_layer(12, 2), *_layer(12, 1), nn.Flatten(), nn.Linear(features, num_classes)
        )
        if self.init == "uniform":
            for parameter in model.parameters():
                nn.init.uniform_(parameter, -0.5, 0.5)
        return model


def _layer(channels: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(channels, 12, kernel_size=5, stride=stride, padding=2), nn.Sigmoid()


def _quarter(pixels: int) -> int:
    """What two strides of 2 leave."""
    return -(-pixels // 4)
