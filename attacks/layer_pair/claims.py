"""Which of the images that the next layer's equations gave are certified."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gibench.observation import Observation

from ..exact.linear_layer import LayerGradient
from ..exact.witness import fit_scales, unaccounted
from .next_layer import Judged, NextLayer, certain

CONTRADICTED = "the next layer's gradient contradicts the scales of the first one's bias gradient"


def claims(
    observation: Observation,
    gradient: LayerGradient,
    following: NextLayer,
    found: Judged,
    expired: Callable[[], bool],
) -> tuple[Tensor, Tensor, str]:
    """Which images that the next layer's equations gave are certified, their predicted errors, why none is.

    Args:
        observation: of which the batch size counts, where it is granted.
        gradient: of the first layer.
        following: the equations.
        found: the images.
        expired: asked now and then; the images that are left by then are not certified.

    Returns:
        Certificates and predicted errors `[K]`, and a reason where all are withheld.
    """
    second, solved = following.second, found.solved
    errors = following.errors(found, expired)
    certified = certain(following, found, errors, observation.std.to(found.images))
    stand = int(solved.sum())
    if stand == _of_first_step(observation) and gradient.factors.rank == observation.batch_size:
        stand = gradient.factors.rank  # the others are none that these equations could hold
    withheld = unaccounted(observation, gradient, stand, second)
    scales = fit_scales(gradient, second, found.images[solved], errors[solved])
    if scales is not None and scales.contradict(torch.zeros_like(scales.error)):
        withheld = CONTRADICTED
    return torch.zeros_like(certified) if withheld else certified, errors, withheld


def _of_first_step(observation: Observation) -> int | None:
    """How many images the client's first local step has, where no other step sees them; None where that is not known.

    Theirs alone are the activations that the weights received give. Later steps have weights of their own, and where
    the rank is the batch size each of their images has a place of its own in both layers' row spaces.
    """
    local, size = observation.local_hyperparameters, observation.batch_size
    if local is None or size is None or local.epochs * local.clients != 1 or local.local_batch_size >= size:
        return None
    return local.local_batch_size
