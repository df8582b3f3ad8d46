"""The problem that a gradient-matching attack solves: candidate images, and labels if unknown, against one gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .matching import Matching

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
        batch, *sides = self.shape
        return points[:, : batch * sides[0] * sides[1] * sides[2]].reshape(len(points), *self.shape)

    def logits(self, points: Tensor) -> Tensor:
        """The label logits in points `[R, D]`: `[R, B, classes]`."""
        batch = self.shape[0]
        return points[:, -batch * self.num_classes :].reshape(len(points), batch, self.num_classes)

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The value `[R]`, priors included, and its slope `[R, D]`."""
        points = points.detach().requires_grad_()
        images = self.images(points)
        labels = self.logits(points).softmax(2) if self.labels is None else self.labels.expand(len(points), -1)
        match = self.matching(images, labels)
        value, outputs, weights = match.value, list(match.outputs), list(match.weights)
        for weight, prior in self.priors:
            penalty = weight * prior(images, match.inputs)
            value = value + penalty.detach()
            outputs.append(penalty)
            weights.append(torch.ones_like(penalty))
        (slope,) = torch.autograd.grad(outputs, [points], weights)
        return value, slope
