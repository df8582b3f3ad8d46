"""How many images of each class a batch had, from the last layer's gradient and what the network says of such images.

With the mean cross-entropy, entry c of the bias gradient is the mean predicted probability of class c minus the share
of images labelled c. So the shares are those probabilities less the gradient. The server has the network, and
predicts: for images of a class that occurs, from the features that the class's row of the weight gradient shows (as
Ma et al., Instance-wise Batch Label Restoration via Gradients in Federated Learning, ICLR 2023); for the others, from
what is known of such images in general. Close to LLG*, the variant of Wainakh et al. that has the network.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gibench.observation import Observation

_LIKE = 0.5, 3.0  # features of a class are believed that are so like the general ones: least cosine, largest ratio
_PASSES = 50
_GENERAL = 512  # public images that are looked at, at most
_SHRUNK = 0.5  # factor by which a gradient may have been scaled down without being looked into
_CLEARER = 0.25  # of the distance from whole numbers that the factor must leave to be believed


@dataclass(frozen=True)
class Reference:
    """The last layer, and what it says of images in general."""

    weight: Tensor  # [C, F]
    bias: Tensor  # [C]
    features: Tensor  # [F], the layer's mean input
    probabilities: Tensor  # [C], the mean prediction
    scaled: bool  # whether the gradient's scale is known

    @classmethod
    def of(cls, observation: Observation, layer: str) -> Reference:
        """From granted surrogate images, else from the prior's mean image, else from mid-grey."""
        if observation.surrogate_data:
            public = observation.surrogate_data.images
            images = public[:: -(-len(public) // _GENERAL)]
        elif observation.prior:
            images = observation.prior.mean[None]
        else:
            images = observation.mean.new_full((1, *observation.image_shape), 0.5)
        model = copy.deepcopy(observation.model).eval()
        last = model.get_submodule(layer)
        assert isinstance(last, nn.Linear)
        seen: list[Tensor] = []
        last.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
        with torch.no_grad():
            logits = model(observation.normalize(images).to(last.weight.dtype))
        weight, bias = (parameter.detach().double() for parameter in (last.weight, last.bias))
        probabilities = logits.double().softmax(1).mean(0)
        return cls(weight, bias, seen[0].double().mean(0), probabilities, observation.scale_known)


def infer(weight: Tensor, bias: Tensor, reference: Reference, batch_size: int) -> Tensor:
    """The labels of a batch, `[batch_size]`, sorted.

    Entries that are exactly zero count as dropped: a class's entry of the bias gradient is then estimated from what is
    left of its row, as features in general would have made it. A gradient that was clipped is recognised by shares
    that are nowhere near whole images, and scaled so that the rarest class has none.

    Args:
        weight: the last layer's weight gradient `[C, F]`, in gradient sign.
        bias: its bias gradient `[C]`.
        reference: of that layer.
        batch_size: how many labels to find.
    """
    weight, bias = weight.double(), bias.double()
    features, general = reference.features, reference.probabilities
    kept = (weight != 0).double()
    fitted = weight @ features / (kept @ features.square()).clamp_min(torch.finfo(bias.dtype).tiny)
    errors = torch.where(bias == 0, fitted, bias)
    rows = torch.where(weight == 0, fitted[:, None] * features, weight)
    own = rows / torch.where(errors == 0, torch.inf, errors)[:, None]  # whatever the scale
    predicted = (own @ reference.weight.T + reference.bias).softmax(1)
    predicted = torch.where(_believed(own, errors, features)[:, None], predicted, general)
    errors = errors / _scale(errors, reference, batch_size)
    shares = _normalised(general - errors)
    for _ in range(_PASSES):
        shares = _normalised(shares @ predicted - errors)
    least = (-batch_size * errors).ceil().clamp(0, batch_size)  # a class with a negative entry occurs
    counts = _whole(batch_size * shares, least, batch_size)
    return torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts.long())


def _believed(own: Tensor, errors: Tensor, general: Tensor) -> Tensor:
    """Which classes occur and have features that are not those of other classes, magnified: `[C]` booleans."""
    least, most = _LIKE
    sizes = own.norm(dim=1) * general.norm()
    ratios = own.norm(dim=1) / general.norm()
    believed: Tensor = (errors < 0) & (own @ general > least * sizes) & (ratios < most) & (ratios > 1 / most)
    return believed


def _scale(errors: Tensor, reference: Reference, batch_size: int) -> Tensor | float:
    """What the gradient was multiplied by: such that the rarest class has no image, or 1."""
    rarest = (errors / reference.probabilities).max()
    if not bool(rarest > 0):
        return 1.0
    if not reference.scaled:
        return rarest

    def off(scale: Tensor | float) -> Tensor:
        counts = batch_size * (reference.probabilities - errors / scale)
        return (counts - counts.round()).square().sum()

    return rarest if bool(rarest < _SHRUNK) and bool(off(rarest) < _CLEARER * off(1.0)) else 1.0


def _normalised(shares: Tensor) -> Tensor:
    shares = shares.clamp_min(0)
    return shares / shares.sum().clamp_min(torch.finfo(shares.dtype).tiny)


def _whole(counts: Tensor, least: Tensor, total: int) -> Tensor:
    """Whole numbers near `counts`, not below `least` if that can be, that sum to the total."""
    whole = torch.maximum(counts.floor(), least)
    while (left := total - int(whole.sum())) != 0:
        rest = counts - whole
        if left > 0:
            whole[rest.argmax()] += 1
        else:
            free = whole > (least if bool((whole > least).any()) else 0)
            whole[torch.where(free, rest, torch.inf).argmin()] -= 1
    return whole
