"""The problem that a gradient-matching attack solves: candidate images, and labels if unknown, against one gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .matching import Match, Matching

Prior = Callable[[Tensor, dict[str, Tensor]], Tensor]  # images [R, B, C, H, W] and layers' inputs to a penalty [R]


@dataclass(frozen=True)
class Problem:
    """A value for each of R candidates, `[R, D]`: all pixels of B normalised images, then all label logits if any."""

    matching: Matching
    shape: tuple[int, int, int, int]  # B, C, H, W
    labels: Tensor | None  # [B], or None where they are sought as well
    num_classes: int
    priors: list[tuple[float, Prior]] = field(default_factory=list)  # with their weights

    def images(self, points: Tensor) -> Tensor:
        """The images in points `[R, D]`: `[R, B, C, H, W]`."""
        return points[:, : math.prod(self.shape)].reshape(len(points), *self.shape)

    def logits(self, points: Tensor) -> Tensor:
        """The label logits in points `[R, D]`: `[R, B, classes]`."""
        logits = points[:, math.prod(self.shape) :][:, : self.shape[0] * self.num_classes]
        return logits.reshape(len(points), self.shape[0], self.num_classes)

    def match(self, points: Tensor, images: Tensor, labels: Tensor) -> Match:
        """How well the images and labels in the points match."""
        return self.matching(images, labels)

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The value `[R]`, priors included, and its slope `[R, D]`."""
        points = points.detach().requires_grad_()
        images = self.images(points)
        labels = self.logits(points).softmax(2) if self.labels is None else self.labels.expand(len(points), -1)
        match = self.match(points, images, labels)
        value, outputs, weights = match.value, list(match.outputs), list(match.weights)
        for weight, prior in self.priors:
            penalty = weight * prior(images, match.inputs)
            value = value + penalty.detach()
            outputs.append(penalty)
            weights.append(torch.ones_like(penalty))
        (slope,) = torch.autograd.grad(outputs, [points], weights)
        return value, slope
