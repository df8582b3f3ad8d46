"""VGG-11 (Simonyan & Zisserman, ICLR 2015, arXiv 1409.1556), configuration A."""

from __future__ import annotations

from pydantic import Field
from torch import nn

from gibench.models import pretrained
from gibench.models.base import Model
from gibench.models.parts import need

_STAGES = (64,), (128,), (256, 256), (512, 512), (512, 512)  # channels of 3x3 convolutions, 2x2 max pooling after each
_DROPOUT = 0.5


class VGG11(Model):
    """Eight 3x3 convolutions with ReLU in five stages, then two layers of `width` ReLU neurons, linear.

    With dropout of one half after either layer of the head, as in the paper: in train mode its masks are the client's
    secret. The head takes the last feature maps as they are: 512 numbers at 32 px, 25,088 at 224 px, where `width=4096`
    makes it the paper's. Initial weights are torchvision's. Any image from 32 px up.
    """

    builds_on_meta = True

    batch_norm: bool = Field(False, description="BatchNorm after each convolution")
    width: int = Field(512, ge=1, le=100_000, description="neurons of either layer of the head; the paper has 4096")
    weights: pretrained.Weights = Field(
        "none", description="of the convolutions: random, or torchvision's of ImageNet; the head's are random"
    )

    @property
    def _architecture(self) -> str:
        return "vgg11_bn" if self.batch_norm else "vgg11"

    def prepare(self) -> None:
        if self.weights == "imagenet":
            pretrained.fetch(self._architecture)

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        need("vgg11", image_shape, 32)
        channels, *sides = image_shape
        features = nn.Sequential()
        for stage in _STAGES:
            for width in stage:
                features.append(nn.Conv2d(channels, width, kernel_size=3, padding=1))
                features.extend([nn.BatchNorm2d(width)] if self.batch_norm else [])
                features.append(nn.ReLU())
                channels = width
            features.append(nn.MaxPool2d(2))
        size = channels * (sides[0] // 32) * (sides[1] // 32)
        head = nn.Sequential(nn.Flatten(), *_layer(size, self.width), *_layer(self.width, self.width))
        head.append(nn.Linear(self.width, num_classes))
        for layer in (*features, *head):
            _initialise(layer)
        network = nn.Sequential()
        network.add_module("features", features)  # torchvision's name
        network.add_module("head", head)
        if self.weights == "imagenet":
            pretrained.fill(network, self._architecture, "features.")
        return network


def _layer(size: int, width: int) -> tuple[nn.Module, ...]:
    return nn.Linear(size, width), nn.ReLU(), nn.Dropout(_DROPOUT)


def _initialise(layer: nn.Module) -> None:
    """As torchvision does it."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, 0, 0.01)
    if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
        nn.init.zeros_(layer.bias)
