"""LeNet-5 (LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 1998)."""

from __future__ import annotations

from torch import nn

from gibench.models.base import Model
from gibench.models.parts import need


class LeNet5(Model):
    """5x5 convolutions of 6 and 16 channels, each with 2x2 max pooling, then 120, 84 and linear, ReLU between them.

    As it is trained today: the paper has scaled tanh, trainable subsampling, a sparse second convolution and radial
    basis functions at the end. Images below 32 px are padded by 2, as the paper pads those of 28 px: 61,706 parameters
    on 1x28x28 and on 1x32x32. Any image from 12 px up; torch's default initial weights.
    """

    builds_on_meta = True

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        need("lenet5", image_shape, 12)
        channels, *sides = image_shape
        padding = 2 if min(sides) < 32 else 0
        height, width = (((side + 2 * padding - 4) // 2 - 4) // 2 for side in sides)
        return nn.Sequential(
            nn.Conv2d(channels, 6, kernel_size=5, padding=padding),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * height * width, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, num_classes),
        )
