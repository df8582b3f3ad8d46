"""ResNet-18 (He et al., CVPR 2016, arXiv 1512.03385) as torchvision builds it."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from gibench.errors import UsageError
from gibench.models import pretrained
from gibench.models.base import Model

_GROUPS = 32  # of Wu & He


class ResNet18(Model):
    """torchvision's ResNet-18 with its own initial weights, with BatchNorm or GroupNorm.

    GroupNorm (Wu & He, ECCV 2018, arXiv 1803.08494) has 32 groups and mixes no images, as federated learning often has
    it. Images smaller than 64 px get the usual CIFAR stem: a 3x3 convolution of stride 1 and no max pooling.
    """

    builds_on_meta = True
    later: ClassVar[frozenset[str]] = frozenset({"norm", "weights"})

    norm: Literal["batch", "group"] = Field("batch", description="normalisation: BatchNorm, or GroupNorm of 32 groups")
    weights: pretrained.Weights = Field(
        "none", description="random, or torchvision's of ImageNet but for the last layer: 64 px and up, BatchNorm"
    )

    def prepare(self) -> None:
        if self.weights == "imagenet":
            pretrained.fetch("resnet18")

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        from torchvision.models import resnet18

        channels, *sides = image_shape
        if self.weights == "imagenet" and (min(sides) < 64 or channels != 3 or self.norm != "batch"):
            raise UsageError(
                "resnet18 has ImageNet weights for 3 channels, 64 px and up and norm=batch alone: leave weights out"
            )
        norm = partial(nn.GroupNorm, _GROUPS) if self.norm == "group" else nn.BatchNorm2d
        model: nn.Module = resnet18(num_classes=num_classes, norm_layer=norm)
        if min(sides) < 64:
            stem = nn.Conv2d(channels, 64, kernel_size=3, padding=1, bias=False)
            model.maxpool = nn.Identity()
        else:
            stem = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's other layers
        model.conv1 = stem
        if self.weights == "imagenet":
            pretrained.fill(model, "resnet18")
        return model
