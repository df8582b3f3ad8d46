"""From an attack on a network's head to images: its features, each inverted on its own, and what is claimed of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gibench.attack import Context, Reconstruction
from gibench.observation import Observation

from ..exact.chunks import chunks
from ..exact.layers import InputLayer, find_input_layer
from ..exact.linear_layer import EXACT, EXCESS, SAFETY
from .determined import predicted_errors
from .equations import FeatureEquations, read_features
from .least_squares import least_squares
from .network import Behind
from .prior import Shared, with_prior

_STEPS, _PRODUCTS = 60, 60
_END = 1e-12  # of a row of features, squared: about the rounding of single precision
_GREYS = 255
_EXPLAINED = 0.1  # what features leave of the gradient of the layer that they enter, if they are all
_MARGIN = 1e-2  # of the pixel range that an image may leave it by while it is looked for
_NOT_CLAIMED = "images are estimates: their features do not determine them"


@torch.no_grad()  # torch.func takes derivatives all the same, and no others are kept
def images_behind(
    behind: Behind,
    observation: Observation,
    attack: Callable[[Observation, Context], Reconstruction],
    context: Context,
) -> Reconstruction:
    """What an attack finds of the features, and the images that a trunk makes them of.

    Args:
        behind: the two parts of the network.
        observation: of the whole network.
        attack: on the head, which takes features for images.
        context: of the attack.
    """
    found = attack(behind.shown, context)
    images, certified, told = _inverted(behind, observation, found, context)
    order = certified.to(torch.uint8).argsort(descending=True, stable=True)
    sure = _certified(found)
    errors = found.diagnostics.get("predicted_error_by_image", [])
    diagnostics = dict(found.diagnostics) | {
        "layer": behind.head.layer,
        "features_found": len(found.images),
        "features_certified": int(sure.sum()),
        "feature_error_by_image": [errors[k] for k in order.tolist()] if len(errors) == len(order) else errors,
        **{name: value[order].tolist() if isinstance(value, Tensor) else value for name, value in told.items()},
    }
    return Reconstruction(images[order], certified=certified[order], diagnostics=diagnostics)


def _inverted(
    behind: Behind, observation: Observation, found: Reconstruction, context: Context
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Images `[N, C, H, W]` in pixels, which are certified, and what is said of them."""
    shape, count = observation.image_shape, len(found.images)
    like = next(behind.head.model.parameters())
    pixel_scale = float(observation.std.max())
    black, white = (
        observation.normalize(torch.full((1, *shape), level, device=like.device, dtype=like.dtype)).view(-1, 1)
        for level in (-_MARGIN, 1 + _MARGIN)
    )
    rows = found.images.flatten(1).to(like.dtype)
    told = found.diagnostics.get("predicted_error_by_image", [])
    error = torch.tensor(told if len(told) == count else [torch.inf] * count, device=like.device)
    box = (black, white) if context.clamp else None
    equations = read_features(behind.trunk, rows, error.nan_to_num(0, 0, 0), box)
    points = ((black + white) / 2).expand(-1, count)
    enough = equations.count >= len(points) + EXCESS
    context.progress("images of their features", None)
    points = _fitted(equations, points, enough, context)
    sure = enough & _certified(found) & (error < torch.inf)
    certified, errors = _claims(observation, equations, points, sure, pixel_scale, context)
    open_ = ~(enough & equations.hold(points))
    if bool(open_.any()):
        shared = _shared(behind, observation, equations)
        left = shared and shared.left(behind.trunk, behind.trunk.of_columns(points), open_)
        index = open_.nonzero()[:, 0]
        smooth = with_prior(equations.select(index), left, points[:, index], pixel_scale, context)
        points = points.index_copy(1, index, smooth)
    images = observation.denormalize(points.T.reshape(-1, *shape)).nan_to_num(0.5, 1, 0)
    told = {
        "inverted": int(count - open_.sum()),
        "predicted_error_by_image": errors,
        "withheld": _NOT_CLAIMED if count and bool(_certified(found).all()) and not bool(certified.any()) else "",
    }
    return images, certified, told


def _certified(found: Reconstruction) -> Tensor:
    none = torch.zeros(len(found.images), dtype=torch.bool, device=found.images.device)
    return none if found.certified is None else found.certified


def _fitted(equations: FeatureEquations, points: Tensor, which: Tensor, context: Context) -> Tensor:
    """Points moved to where the chosen ones suit their features best."""
    chosen, moved = which.nonzero()[:, 0], points.clone()
    for part in chunks(len(chosen), equations.trunk.bytes_each, points.device):
        index = chosen[part]
        system = equations.select(index)
        moved[:, index] = least_squares(system, points[:, index], _STEPS, _PRODUCTS, _END, context.expired)
    return moved


def _claims(
    observation: Observation,
    equations: FeatureEquations,
    points: Tensor,
    sure: Tensor,
    pixel_scale: float,
    context: Context,
) -> tuple[Tensor, Tensor]:
    """Which images round to the true 8-bit pixels, and the predicted errors of all, infinite where not asked.

    Beside being determined, an image must satisfy its equations when it is rounded, and a search from its negative must
    not end at another that satisfies them too: what derivatives tell holds near it alone.
    """
    errors = torch.full_like(equations.noise, torch.inf)
    if behind := equations.trunk.unknown:
        context.progress(f"nothing is certified: of {behind} it is not known where it has kinks", None)
        return torch.zeros_like(sure), errors
    pixels = observation.denormalize(equations.trunk.of_columns(points))
    grid = observation.normalize((pixels * _GREYS).round() / _GREYS).flatten(1).T
    index = (sure & equations.hold(grid)).nonzero()[:, 0]
    asked = equations.select(index)
    predicted = predicted_errors(asked, points[:, index], pixel_scale, context)
    errors[index] = predicted
    determined = SAFETY * predicted * pixel_scale < EXACT
    negative = observation.normalize(1 - pixels[index]).flatten(1).T
    other = _fitted(asked, negative, determined, context)
    apart = ((other - points[:, index]).abs().amax(dim=0) * pixel_scale > EXACT) & asked.hold(other)
    certified = torch.zeros_like(sure)
    certified[index] = determined & ~apart
    return certified & (not context.expired()), errors


def _shared(behind: Behind, observation: Observation, equations: FeatureEquations) -> Shared | None:
    """What the trunk's gradient says, where the features found are those of all images; else nothing."""
    gradient = {name: each for name, each in observation.gradient().items() if name in behind.trunk.parameters}
    layer = find_input_layer(behind.shown.model, behind.shown.image_shape)
    assert isinstance(layer, InputLayer)  # as `behind_trunk` has found
    weight, bias = layer.weight.double(), layer.bias.double()
    sent = observation.gradient()[f"{behind.head.layer}.weight"].double()
    wide = equations.features.double()
    if not gradient or not len(wide):
        return None
    columns = torch.linalg.lstsq(wide.T, sent.T).solution  # G [N, m]
    if layer.activation.sparse:
        columns = columns * (wide @ weight.T + bias > 0)
    left = (sent - columns.T @ wide).norm() / sent.norm()
    if not bool(left < _EXPLAINED):
        return None
    back = columns @ weight * equations.known  # the ReLU before stops the rest, which are zero within the noise alone
    dtype = equations.features.dtype
    return Shared(back.to(dtype), {name: each.to(dtype) for name, each in gradient.items()})
