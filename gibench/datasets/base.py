"""The contract of a data set: labelled images on the 8-bit grid, split by what they are for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from gibench.plugin import Plugin


@dataclass(frozen=True)
class Split:
    """Labelled images: float32 `[N, C, H, W]` in [0, 1], every pixel k/255, and int64 labels `[N]`."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Images:
    """A loaded data set. Its splits are fixed: they do not depend on any cell's seed (rule E18).

    Private, tuning and public images are disjoint, and none is a near-duplicate of another split's. No training image
    is private or tuning.
    """

    private: Split  # the batches to attack
    tuning: Split  # hyperparameters, and the accuracy of the attacked model
    public: Split  # what a server may be granted: surrogate data and image statistics
    training: Split  # what a network is trained on: the public images, and what else a federation's clients hold
    classes: tuple[str, ...]
    mean: Tensor  # [C], of the public split
    std: Tensor  # [C]
    training_shares: str = "nothing"  # what training images have in common with private ones, in a word

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.private.images.shape[1:]
        return channels, height, width

    def normalize(self, pixels: Tensor) -> Tensor:
        """Pixels `[N, C, H, W]` in [0, 1] to what a model takes."""
        mean, std = (values.to(pixels).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std


class Dataset(Plugin, ABC):
    """Base of all data sets; the fields are the settings."""

    bundled: ClassVar[bool] = False  # whether the images come with a package, so that a plan may read them

    def check(self) -> None:
        """Find out what is wrong with the settings here, without reading an image or downloading one.

        Raises:
            UsageError: something is; the message says how to mend it.
        """

    @abstractmethod
    def load(self) -> Images:
        """Read the images.

        Raises:
            UsageError: they cannot be had (no folder, no network, ...); the message says how to mend it.
        """
