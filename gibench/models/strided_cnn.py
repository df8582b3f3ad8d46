"""Convolutions with strides in place of pooling, and a head of ReLU neurons."""

from __future__ import annotations

from pydantic import Field
from torch import nn

from gibench.models.base import Model


class StridedCNN(Model):
    """A 3x3 convolution of 32 channels, `stages` of stride 2 with twice as many each, `width` ReLU neurons, linear.

    ReLU after each. Like AlexNet (Krizhevsky et al., NeurIPS 2012), whose strides shrink the image and whose head is
    fully connected, but without its pooling, as the all convolutional net (Springenberg et al., ICLR 2015 workshop,
    arXiv 1412.6806): nothing chooses among positions, so that the features of an image tell it apart. Any image;
    torch's default initial weights.
    """

    builds_on_meta = True

    stages: int = Field(1, ge=1, le=8, description="convolutions of stride 2")
    width: int = Field(1000, ge=1, le=1_000_000, description="ReLU neurons of the head")

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        channels, height, width = image_shape
        layers: list[nn.Module] = [nn.Conv2d(channels, 32, kernel_size=3, padding=1), nn.ReLU()]
        for stage in range(self.stages):
            layers += [nn.Conv2d(32 << stage, 64 << stage, kernel_size=3, stride=2, padding=1), nn.ReLU()]
            height, width = -(-height // 2), -(-width // 2)
        size = (32 << self.stages) * height * width
        head = nn.Linear(size, self.width), nn.ReLU(), nn.Linear(self.width, num_classes)
        return nn.Sequential(*layers, nn.Flatten(), *head)
