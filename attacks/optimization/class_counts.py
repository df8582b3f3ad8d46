"""How many images of each class a batch had, from the last layer's gradient and what the network says of such images.

With the mean cross-entropy, entry c of the bias gradient is the mean predicted probability of class c minus the share
of images labelled c. So the shares are those probabilities less the gradient. The server has the network, and
predicts: for images in general from what is known of them, and for each class's images from the weight gradient, which
shows the features they have beyond that, in one of two ways. All classes' at once, by least squares, for each row of
that gradient is a sum over the images of all classes; or one class's by its own row, which is that class's alone where
hardly any other occurs (as Ma et al., Instance-wise Batch Label Restoration via Gradients in Federated Learning, ICLR
2023). Close to LLG*, the variant of Wainakh et al. that has the network.

The constants were chosen by `tests/benchmarks/label_counts.py`, on images of the tuning splits.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gibench.observation import Observation

from .dropout import WithoutDropout

_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_LIKE = 0.5, 3.0  # features of a class are believed that are so like the general ones: least cosine, largest ratio
_PASSES = 20
_RIDGE = 0.1  # of the mean square of the equations: how near classes' features stay to the general ones
_GENERAL = 512  # public images that are looked at, at most
_SHRUNK = 0.5  # of the least distance from the predictions that whole images allow: what is nearer was scaled down
_CLEARER = 0.25  # of the distance from whole numbers that a class's own row must leave to be preferred


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
        """From granted surrogate images, else from the prior's mean image, else from mid-grey.

        BatchNorm is in the client's mode where there are several images, whose statistics are then near those of the
        client's batch; one image has none, and is normalised by the running ones. Dropout is off.
        """
        if observation.surrogate_data:
            public = observation.surrogate_data.images
            images = public[:: -(-len(public) // _GENERAL)]
        elif observation.prior:
            images = observation.prior.mean[None]
        else:
            images = observation.mean.new_full((1, *observation.image_shape), 0.5)
        model = copy.deepcopy(observation.model).eval()
        if len(images) > 1:
            for module, theirs in zip(model.modules(), observation.model.modules(), strict=True):
                module.train(theirs.training and isinstance(module, _BATCH_NORM))
        last = model.get_submodule(layer)
        assert isinstance(last, nn.Linear)
        seen: list[Tensor] = []
        last.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
        with torch.no_grad(), WithoutDropout():
            logits = model(observation.normalize(images).to(last.weight.dtype))
        weight, bias = (parameter.detach().double() for parameter in (last.weight, last.bias))
        probabilities = logits.double().softmax(1).mean(0).clamp_min(torch.finfo(weight.dtype).tiny)
        return cls(weight, bias, seen[0].double().mean(0), probabilities, observation.scale_known)

    def predict(self, features: Tensor) -> Tensor:
        """The probabilities of all classes `[N, C]` for the layer's inputs `[N, F]`."""
        return (features @ self.weight.T + self.bias).softmax(1)


def infer(weight: Tensor, bias: Tensor, reference: Reference, batch_size: int) -> Tensor:
    """The labels of a batch, `[batch_size]`, sorted.

    Entries that are exactly zero count as dropped: a class's entry of the bias gradient is then estimated from what is
    left of its row, as features in general would have made it. A gradient that was clipped is recognised by shares that
    are nearer to the predictions than whole images can bring them, and scaled so that the rarest class has none. Of two
    classes the shares are whole at some scale whatever they are, so there the scale is taken as it is.

    Args:
        weight: the last layer's weight gradient `[C, F]`, in gradient sign.
        bias: its bias gradient `[C]`.
        reference: of that layer.
        batch_size: how many labels to find.
    """
    weight, bias = weight.double(), bias.double()
    features = reference.features
    kept = (weight != 0).double()
    fitted = weight @ features / (kept @ features.square()).clamp_min(torch.finfo(bias.dtype).tiny)
    errors = torch.where(bias == 0, fitted, bias)
    rows = torch.where(weight == 0, fitted[:, None] * features, weight)
    scale = _scale(errors, reference, batch_size)
    errors, rows = errors / scale, rows / scale
    shares, alone = _all_at_once(rows, errors, reference), _row_by_row(rows, errors, reference)
    if _off(batch_size * alone) < _CLEARER * _off(batch_size * shares):
        shares = alone
    least = (-batch_size * errors).ceil().clamp(0, batch_size)  # a class with a negative entry occurs
    counts = _whole(batch_size * shares, least, batch_size)
    return torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts.long())


def _all_at_once(rows: Tensor, errors: Tensor, reference: Reference) -> Tensor:
    """The shares `[C]`, with predictions for each class's images from the features that explain all rows.

    Row c is the sum over classes k of share times features, times what is predicted of c for them less one if k is c.
    """
    general = reference.features
    predicted = reference.probabilities.expand(len(errors), -1)
    shares = _normalised(reference.probabilities - errors)
    for _ in range(_PASSES):
        system = predicted.T * shares - torch.diag(shares)
        products = system.T @ system
        products.diagonal().add_(_RIDGE * products.diagonal().mean() + torch.finfo(errors.dtype).eps)
        rest = system.T @ (rows - torch.outer(system.sum(1), general))
        features = general + torch.linalg.solve_ex(products, rest)[0].nan_to_num(0, 0, 0)
        predicted = reference.predict(features)
        shares = _normalised(shares @ predicted - errors)
    return shares


def _row_by_row(rows: Tensor, errors: Tensor, reference: Reference) -> Tensor:
    """The shares `[C]`, with predictions for each class's images from its own row, or general ones."""
    general = reference.probabilities
    own = rows / torch.where(errors == 0, torch.inf, errors)[:, None]
    predicted = torch.where(_believed(own, errors, reference.features)[:, None], reference.predict(own), general)
    shares = _normalised(general - errors)
    for _ in range(_PASSES):
        shares = _normalised(shares @ predicted - errors)
    return shares


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
    shrunk = len(errors) > 2 and bool(rarest < _SHRUNK * _nearest(reference.probabilities, batch_size))
    return rarest if shrunk else 1.0


def _nearest(probabilities: Tensor, batch_size: int) -> Tensor:
    """By what part of its prediction the class that falls short most does so at least, whatever the counts are."""
    counts = torch.zeros_like(probabilities)
    for _ in range(batch_size):
        counts[(counts / probabilities).argmin()] += 1
    return (1 - counts / (batch_size * probabilities)).max()


def _off(counts: Tensor) -> float:
    """How far counts are from whole numbers: the sum of squares."""
    return float((counts - counts.round()).square().sum())


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
