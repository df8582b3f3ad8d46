"""What features say of an image: an equation each, and of those that a ReLU made zero that they were no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .network import Trunk

_ZERO = 4.0  # standard deviations within which a feature counts as zero
_ROUNDING = 8.0  # times the rounding of the features' arithmetic
_WITHIN = 4.0  # times what noise explains: a misfit that counts as none


@dataclass(frozen=True)
class FeatureEquations:
    """The features of K images, each a problem of its own; a column of points is an image as the model takes it."""

    trunk: Trunk
    features: Tensor  # [K, d]
    known: Tensor  # [K, d] booleans: what the trunk makes of the image is the feature; else that or less
    noise: Tensor  # [K], standard deviation of a feature
    box: tuple[Tensor, Tensor] | None = None  # least and largest numbers `[n, 1]` of an image

    @property
    def lengths(self) -> Tensor:
        """Of each row of features, `[K, 1]`, one where all are zero."""
        lengths: Tensor = self.features.norm(dim=1, keepdim=True)
        return lengths.where(lengths > 0, 1.0)

    @property
    def count(self) -> Tensor:
        """How many equations each image has, `[K]`."""
        return self.known.sum(dim=1)

    def at(self, points: Tensor) -> Callable[[Tensor], Tensor]:
        """Residuals `[d, K]`, as shares of the length of an image's features."""
        return lambda points: (self.left(points) / self.lengths).T

    def left(self, points: Tensor) -> Tensor:
        """What images leave of their features, `[K, d]`."""
        return self.missed(self.trunk.before(self.trunk.of_columns(points)))

    def missed(self, made: Tensor) -> Tensor:
        """By how much what the trunk made misses the features, `[K, d]`; no more than zero is right where they are."""
        return torch.where(self.known, made - self.features, made.relu())

    def hold(self, points: Tensor) -> Tensor:
        """Whether the images satisfy their equations within the noise, `[K]`."""
        return self.left(points).square().mean(dim=1).sqrt() <= _WITHIN * self.noise

    def select(self, index: Tensor) -> FeatureEquations:
        """Those of some images."""
        return replace(self, features=self.features[index], known=self.known[index], noise=self.noise[index])

    def within(self, points: Tensor) -> Tensor:
        """Images of no pixel brighter than white or darker than black."""
        return points if self.box is None else torch.minimum(torch.maximum(points, self.box[0]), self.box[1])


def read_features(trunk: Trunk, features: Tensor, error: Tensor, box: tuple[Tensor, Tensor] | None) -> FeatureEquations:
    """The equations of recovered features.

    Args:
        trunk: that made them.
        features: `[K, d]`.
        error: `[K]`, their predicted standard deviation.
        box: see `FeatureEquations`.
    """
    size = features.square().mean(dim=1).sqrt()
    noise = (error.to(features).square() + (_ROUNDING * torch.finfo(features.dtype).eps * size).square()).sqrt()
    known = features > _ZERO * noise[:, None] if trunk.rectified else torch.ones_like(features, dtype=torch.bool)
    return FeatureEquations(trunk, features, known, noise, box)
