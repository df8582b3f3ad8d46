"""From directions to what the attack returns: images, certificates, and what is said of them.

Where directions are missing or doubtful, the next layer's gradient gives the images. A found direction tells its
image's activation pattern, and the pattern alone the image, by the equations of `layer_pair/equations.py`; the images
of missing directions are looked for from random starts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gibench.attack import Context, Reconstruction
from gibench.observation import Observation

from ..exact.assemble import Batch, assemble, rescale
from ..exact.certify import confirmed
from ..exact.likelihood import Likely, polish
from ..exact.linear_layer import LayerGradient
from ..exact.recovery import Clock, Found, Recovery
from ..exact.scales import refine_scales
from ..exact.witness import read_second, unaccounted
from ..layer_pair.next_layer import Judged, NextLayer, certain
from ..layer_pair.rounds import find_images

_SURE = 1e-6  # of the pixel range
_PATIENCE, STARTS = 5, 2  # of the rounds that the next layer is asked
_FINE = 1e-2  # of the pixel range: an image this well known is better than one whose own pattern contradicts it
_SAME = 1e-2  # of the pixel range: closer images are one
_UNCONFIRMED = "no gradient of the linear layer after the first ReLU confirms the scales of these images"


def nothing(observation: Observation, finding: str, clock: Clock) -> Reconstruction:
    """No image, and why."""
    images = torch.zeros(0, *observation.image_shape, device=observation.mean.device)
    return Reconstruction(images, diagnostics={"finding": finding, "rank": 0, "seconds": clock.seconds})


def from_next_layer(
    observation: Observation, recovery: Recovery, found: Judged, errors: Tensor, certified: Tensor
) -> Reconstruction:
    """The images that the next layer's gradient gives and nothing else, certified ones first."""
    rank, solved = recovery.factors.rank, int(found.solved.sum())
    order = certified.to(torch.uint8).argsort(descending=True, stable=True)
    missing = f"{rank - solved} of {rank} images are not found" if solved < rank else ""
    images = observation.denormalize(found.images.view(-1, *observation.image_shape))
    return Reconstruction(
        images.nan_to_num(0.5, 1, 0)[order],
        certified=certified[order],
        diagnostics={
            "finding": "; ".join(filter(None, [_fewer(observation, rank), missing])),
            "rank": rank,
            "sigma": recovery.factors.sigma,
            "singular_value_gap": recovery.factors.gap,
            "images_from_next_layer": solved,
            "predicted_error_by_image": errors[order].tolist(),
            "rounds": 0,
            "starts": 0,
            "seconds": dict(recovery.clock.seconds),
        },
    )


def reconstruction(
    observation: Observation,
    gradient: LayerGradient,
    recovery: Recovery,
    found: Found,
    claims: Callable[..., Tensor] | None,
    following: NextLayer | None = None,
    known: Tensor | None = None,
) -> Reconstruction:
    """The images, certified ones first, then by lambda; completed by the next layer where they are not certified.

    Args:
        observation: what the server sees.
        gradient: of the first layer.
        recovery: in that gradient's row space.
        found: by it.
        claims: which images are certified; None certifies nothing.
        following: the next layer's equations, if it is asked.
        known: points that satisfy them, `[B, K]`.
    """
    with recovery.clock.stage("assemble"):
        batch = assemble(gradient, found.batch.directions)
    second, scales = None if following is None else following.second, None
    if claims is not None and not found.missing:
        with recovery.clock.stage("scales"):
            if second is None:
                second = read_second(observation, gradient, recovery.context.generator)
            confirmed_batch, scales = confirmed(gradient, second, batch)
            batch = _rescaled(observation, gradient, batch) if confirmed_batch is batch else confirmed_batch
    pixel_scale = observation.std.to(batch.inputs)
    certified = torch.zeros_like(found.pure)
    if scales is not None and claims is not None:
        with recovery.clock.stage("certify"):
            certified = claims(recovery.factors, batch, found.pure, pixel_scale) & scales.sharp
    inputs, error, solved = batch.inputs, batch.error, recovery.factors.rank - found.missing
    if following is not None and known is not None and not bool(certified.all()):
        with recovery.clock.stage("next layer"):
            inputs, error, certified, others = _known_better(
                following, known, batch, certified, not found.missing, pixel_scale, recovery.context
            )
            solved = max(solved, others)
    withheld = "" if claims is None or found.missing or scales is not None else _UNCONFIRMED
    if bool(certified.any()):
        withheld = unaccounted(observation, gradient, solved, second)
    if withheld:
        certified = torch.zeros_like(certified)
    from_next = int((inputs != batch.inputs).any(dim=1).sum())
    likely = Likely(inputs, error, certified, False)
    if claims is not None and not bool(certified.all()):
        with recovery.clock.stage("likelihood"):
            likely = polish(observation, gradient, inputs, error, certified, recovery.context)
    certified = likely.certified
    images = observation.denormalize(likely.inputs.view(-1, *observation.image_shape))
    order = (2.0 * certified + batch.matching).argsort(descending=True, stable=True)
    return Reconstruction(
        images.nan_to_num(0.5, 1, 0)[order],
        certified=certified[order],
        diagnostics=_diagnostics(recovery, found, batch, order)
        | {
            "finding": _finding(observation, recovery, found, from_next),
            "withheld": withheld,
            "images_from_next_layer": from_next,
            "predicted_error_by_image": likely.error[order].tolist(),
            "most_likely": likely.moved,
        },
    )


def _rescaled(observation: Observation, gradient: LayerGradient, batch: Batch) -> Batch:
    """With the scales that all layers agree on best, within what the first layer's bias gradient leaves open."""
    if bool((batch.scale_error * batch.inputs.abs().amax(dim=1) * observation.std.max() < _SURE).all()):
        return batch  # no pixel can change
    refined = refine_scales(observation, batch.inputs, gradient.factors.sigma)
    if refined is None:
        return batch
    open_to = 4 * batch.scale_error
    factor = torch.maximum(torch.minimum(refined[0], 1 + open_to), 1 - open_to)
    apart = (refined[0] - factor).abs() + open_to  # where they contradict each other, neither is sure
    error = torch.where(factor == refined[0], refined[1], apart)
    return rescale(gradient, batch, factor, error)


def _diagnostics(recovery: Recovery, found: Found, batch: Batch, order: Tensor) -> dict[str, Any]:
    return {
        "rank": recovery.factors.rank,
        "sigma": recovery.factors.sigma,
        "singular_value_gap": recovery.factors.gap,
        "directions_found": recovery.factors.rank - found.missing,
        "directions_pure": int(found.pure.sum()),
        "sparsity_matching": float(batch.agree.sum() / batch.votes.sum().clamp_min(1)),
        "sparsity_matching_by_image": batch.matching[order].tolist(),
        "rounds": recovery.rounds,
        "starts": recovery.starts,
        "seconds": dict(recovery.clock.seconds),
    }


def _finding(observation: Observation, recovery: Recovery, found: Found, from_next: int) -> str:
    """What is known beside the images, in words."""
    rank, missing = recovery.factors.rank, found.missing
    findings = [fewer] if (fewer := _fewer(observation, rank)) else []
    if missing and from_next:
        others = f", the other {rank - from_next} are estimates" if from_next < rank else ""
        findings.append(
            f"{missing} of {rank} directions are not found: {from_next} images come from the next layer's gradient"
            f"{others}"
        )
    elif missing:
        findings.append(
            f"{missing} of {rank} directions are not found: the missing images lie in the space of dimension {missing} "
            "that is orthogonal to the directions found, and all images are estimates that miss a part of it"
        )
    return "; ".join(findings)


def _fewer(observation: Observation, rank: int) -> str:
    """That the gradient shows fewer images than the batch is said to have, or nothing."""
    if observation.batch_size is None or rank >= observation.batch_size:
        return ""
    return (
        f"the gradient has rank {rank}, less than the batch of {observation.batch_size}: images are repeated, or "
        "their part is below the noise; the others can be recovered"
    )


def _known_better(
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
    sure = certain(following, found, errors, pixel_scale)
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
