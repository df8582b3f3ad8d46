"""The CNN of Federated Averaging (McMahan et al., AISTATS 2017, arXiv 1602.05629)."""

from __future__ import annotations

from torch import nn

from gibench.models.base import Model
from gibench.models.parts import need


class FedAvgCNN(Model):
    """Two 5x5 convolutions of 32 and 64 channels, each with ReLU and 2x2 max pooling, 512 ReLU neurons, linear.

    Padded so that convolutions keep the size: 1,663,370 parameters on MNIST, as the paper says. Any image from 4 px
    up; torch's default initial weights.
    """

    builds_on_meta = True

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        need("fedavg-cnn", image_shape, 4)
        channels, height, width = image_shape
        return nn.Sequential(
            *_stage(channels, 32),
            *_stage(32, 64),
            nn.Flatten(),
            nn.Linear(64 * (height // 4) * (width // 4), 512),
            nn.ReLU(),
            nn.Linear(512, num_classes),
        )


def _stage(channels: int, width: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, width, kernel_size=5, padding=2), nn.ReLU(), nn.MaxPool2d(2)
