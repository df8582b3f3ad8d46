"""Negative controls: what chance and the average image score. An attack below them found nothing (rule E15)."""

from __future__ import annotations

from typing import ClassVar

import torch

from gibench.attack import Attack, Context, Reconstruction
from gibench.observation import Observation


class RandomImages(Attack):
    """Pixels drawn uniformly from [0, 1]: what an attack scores that learns nothing from the update.

    As many images as the batch has when the batch size is known, else one.
    """

    control: ClassVar[bool] = True

    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        shape = (observation.batch_size or 1, *observation.image_shape)
        return Reconstruction(torch.rand(shape, generator=context.generator, device=context.device))


class MeanImage(Attack):
    """The mean image of the public split: the best guess, in squared error, of a server that ignores the update.

    As many copies as the batch has images when the batch size is known, else one.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"prior"})
    control: ClassVar[bool] = True

    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        assert observation.prior is not None  # granted: it is in `requires`
        return Reconstruction(observation.prior.mean.expand(observation.batch_size or 1, -1, -1, -1))
