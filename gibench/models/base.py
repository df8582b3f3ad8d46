"""The contract of a model: a network from normalised images to logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn

from gibench.plugin import Plugin


class Model(Plugin, ABC):
    """Base of all models; the fields are the settings."""

    # Whether `build` works under torch's device "meta" and keeps nothing of it: then no memory is taken to find out
    # whether the network takes such images and fits.
    builds_on_meta: ClassVar[bool] = False

    def prepare(self) -> None:
        """Have at hand what `build` would download, so that what is not there is told before anything runs.

        Raises:
            UsageError: it cannot be had.
        """

    @abstractmethod
    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """A freshly initialised network from `[N, C, H, W]` to logits `[N, num_classes]`.

        Random weights come from torch's global generator, which the harness seeds for each cell.

        Raises:
            UsageError: the network cannot take images of this shape.
        """
