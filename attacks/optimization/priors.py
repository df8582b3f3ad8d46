"""What is known of images before any gradient is seen: penalties on a candidate batch, added to the objective.

Each returns one number a restart, `[R]`, for images `[R, B, C, H, W]` as the model takes them (normalised).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

TotalVariationForm = Literal["plain", "double-opponents"]

_EPS = 1e-8  # keeps the root in the isotropic form differentiable, as in breaching


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbours along x plus that along y (anisotropic, Geiping et al. 2020)."""
    value: Tensor = _TotalVariation.apply(images)
    return value


class _TotalVariation(torch.autograd.Function):
    """With its derivative written out, which takes a third of autograd's operations."""

    @staticmethod
    def forward(context: Any, images: Tensor) -> Tensor:
        context.shape = images.shape
        context.steps = [images.diff(dim=dimension) for dimension in (4, 3)]
        across, down = (step.abs().mean((1, 2, 3, 4)) for step in context.steps)
        value: Tensor = across + down
        return value

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> Tensor:
        total = slopes[0].new_zeros(context.shape)
        for step, dimension in zip(context.steps, (4, 3), strict=True):
            sign, count, share = step.sign(), step.shape[dimension], len(step) / step.numel()
            total.narrow(dimension, 1, count).add_(sign, alpha=share)
            total.narrow(dimension, 0, count).sub_(sign, alpha=share)
        return total.mul_(slopes[0].view(-1, 1, 1, 1, 1))


def color_total_variation(images: Tensor) -> Tensor:
    """Isotropic total variation of the channels and of their differences, the double opponents (Astroem and Schnoerr
    2016, as in breaching): the mean over pixels and these six of sqrt(dx^2 + dy^2). Grey images have one channel only.
    """
    if images.shape[2] == 3:
        red, green, blue = images.unbind(2)
        images = torch.cat([images, torch.stack([red - green, red - blue, green - blue], 2)], 2)
    across = images[..., :-1, 1:] - images[..., :-1, :-1]
    down = images[..., 1:, :-1] - images[..., :-1, :-1]
    return (across.square() + down.square() + 2 * _EPS).sqrt().mean((1, 2, 3, 4))


def squares(images: Tensor) -> Tensor:
    """Half the mean square of all entries."""
    return images.square().mean((1, 2, 3, 4)) / 2


def batch_statistics(inputs: Mapping[str, Tensor], granted: Mapping[str, Tensor], first: float = 10.0) -> Tensor:
    """Distances of each BatchNorm layer's input mean and variance from the granted ones (Yin et al., CVPR 2021).

    Args:
        inputs: what enters each BatchNorm layer, `[R, B, channels, ...]`, in the model's order.
        granted: `LAYER.mean` and `LAYER.var`, `[channels]`.
        first: the weight of the first layer; the others have 1.
    """
    total: Tensor | float = 0.0
    for position, (name, values) in enumerate(inputs.items()):
        flat = values.transpose(1, 2).flatten(2)  # [R, channels, B * ...]
        variance, mean = torch.var_mean(flat, dim=2, correction=0)
        distance = (mean - granted[f"{name}.mean"]).norm(dim=1) + (variance - granted[f"{name}.var"]).norm(dim=1)
        total = total + distance * (first if position == 0 else 1.0)
    assert isinstance(total, Tensor)  # the caller has made sure that there is such a layer
    return total


def features(values: Tensor, measured: Tensor) -> Tensor:
    """Mean squared distance of what enters the last linear layer from what its gradient says each label's images gave.

    Args:
        values: `[R, B, features]`.
        measured: `[B, features]`, see `measured_features`.
    """
    return (values - measured).square().mean((1, 2))


def measured_features(weight_gradient: Tensor, bias_gradient: Tensor, labels: Tensor) -> Tensor:
    """For each label, its row of the last layer's weight gradient over its entry of the bias gradient: `[B, features]`.

    That is the features' mean weighted by the images' errors at this class, which the images of the class dominate.
    """
    bias = bias_gradient[labels, None]
    return torch.where(bias == 0, torch.zeros_like(bias), weight_gradient[labels] / bias)
