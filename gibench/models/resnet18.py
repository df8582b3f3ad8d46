"""ResNet-18 (He et al., CVPR 2016, arXiv 1512.03385) as torchvision builds it."""

from __future__ import annotations

from torch import nn

from gibench.models.base import Model


class ResNet18(Model):
    """torchvision's ResNet-18 with BatchNorm and its own initial weights.

    Images smaller than 64 px get the usual CIFAR stem: a 3x3 convolution of stride 1 and no max pooling.
    """

    builds_on_meta = True

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        from torchvision.models import resnet18

        channels, *sides = image_shape
        model: nn.Module = resnet18(num_classes=num_classes)
        if min(sides) < 64:
            stem = nn.Conv2d(channels, 64, kernel_size=3, padding=1, bias=False)
            model.maxpool = nn.Identity()
        else:
            stem = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's other layers
        model.conv1 = stem
        return model
