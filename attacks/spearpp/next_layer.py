"""Where directions are missing or doubtful, the next layer's gradient gives the images.

A found direction tells its image's activation pattern, and the pattern alone the image, by the equations of
`layer_pair/equations.py`; the images of missing directions are looked for from random starts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gibench.attack import Context

from ..exact.assemble import Batch
from ..layer_pair.equations import NextLayer, certain
from ..layer_pair.rounds import find_images

_PATIENCE, STARTS = 5, 2
_FINE = 1e-2  # of the pixel range: an image this well known is better than one whose own pattern contradicts it
_SAME = 1e-2  # of the pixel range: closer images are one


def complete(
    following: NextLayer,
    known: Tensor,
    batch: Batch,
    certified: Tensor,
    whole: bool,
    pixel_scale: Tensor,
    context: Context,
) -> tuple[Tensor, Tensor, Tensor, int]:
    """The batch's images with those that the next layer knows better in their place.

    Args:
        following: the next layer's equations.
        known: points found already, `[B, K]`.
        batch: of the directions found, and filled up.
        certified: `[B]`, the images that stay.
        whole: whether no direction is missing. Then predicted errors tell which of two images is better, where the old
            one agrees with its own pattern. Else every image misses a part, and any that solves its equations is taken.
        pixel_scale: `[C]`, pixels in [0, 1] per unit of model input.
        context: of the attack.

    Returns:
        Inputs `[B, n]`, their predicted errors and certificates `[B]`, and how many images solve their equations.
    """
    patterns = 1.0 - 2.0 * batch.directions.zeros.to(batch.inputs.dtype)
    points = following.equations.fixed_points(following.equations.features.T @ patterns)
    found = find_images(following, torch.cat([known, points], dim=1), _PATIENCE, STARTS, context)
    errors = following.errors(found, context.expired)
    sure = certain(found, errors, pixel_scale)
    inputs, error, certified = batch.inputs.clone(), batch.error.clone(), certified.clone()
    free = ~certified
    for k in found.solved.nonzero()[:, 0].tolist():
        distance = (inputs - found.images[k]).abs().mean(dim=1) * pixel_scale.mean()
        if bool((distance[~free] < _SAME).any()) or not bool(free.any()):
            continue
        place = int(torch.where(free, distance, torch.inf).argmin())
        doubtful = batch.matching[place] < 1 and errors[k] * pixel_scale.max() < _FINE
        if whole and not (sure[k] or doubtful or errors[k] < error[place]):
            continue
        inputs[place], error[place], certified[place] = found.images[k], errors[k], sure[k]
        free[place] = False
    return inputs, error, certified, int(found.solved.sum())
