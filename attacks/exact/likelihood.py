"""Maximum likelihood of a whole batch under noise, over the gradients of all layers of a fully connected ReLU network.

At fixed activation patterns the gradient is a smooth function of the images X and of what the loss sends back, E, see
`relu_chain.py`. The misfit, each layer's squared residuals over its noise, is minimised by Gauss-Newton steps. E is
left free: that costs next to nothing, since a gradient has thousands of entries for each of its B C numbers, and
neither labels nor the loss, its scale or what was clipped from it need be known.

Where a pre-activation is within its error of zero, the pattern is unknown as well. There the ReLU's slope is a further
unknown, of which the pre-activation and its error tell the odds: a prior of their mean and variance, beside which the
gradient decides. After the step it is rounded to 0 or 1. A wrong pattern leaves a residual far above the noise. So the
misfit tells whether the batch that was reached can have made the gradient; if it cannot, nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gibench.attack import Context
from gibench.observation import Observation

from .linear_layer import EXACT, SAFETY, LayerGradient
from .relu_chain import Layer, Point, Vector, factor, read_layers, with_one

_PASSES = 20
_VAIN, _GAIN = 4, 1.0  # passes after which it ends, if none of them lowered the misfit by more than chance
_SOLVES, _PRECISION = 100, 1e-3  # of conjugate gradients: steps at most, and the residual that ends them, relatively
_ASKED = 5  # steps after which it is asked whether they may end: a device waits for the answer
_SURE = 1e-6  # of a slope's odds: with less against it, it is known
_DOUBTED = 6.0  # deviations of a layer's misfit that no noise explains, and
_SLACK = 0.01  # the share of it that the estimate of the noise leaves open
_PROBES, _UPPER = 16, 1.7  # draws of noise, and by how much these may understate a deviation (99 %, chi-square of 16)
_FREE = 10  # residuals for each neuron, with which a layer's own noise is read off
_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class Likely:
    """The most likely batch: inputs, their predicted errors and certificates; `moved` tells whether any changed."""

    inputs: Tensor  # [B, n]
    error: Tensor  # [B], root mean square over an image's numbers
    certified: Tensor  # [B]
    moved: bool


def polish(
    observation: Observation,
    gradient: LayerGradient,
    inputs: Tensor,
    error: Tensor,
    certified: Tensor,
    context: Context,
) -> Likely:
    """The most likely batch near the one found; the one found where there is no noise, or no such batch.

    An image that moves keeps its certificate, and one whose error would be too large for that does not move.

    Args:
        observation: the model and the gradient.
        gradient: of the first layer, whose noise it tells.
        inputs: `[B, n]`, all images of the batch.
        error: `[B]`, their predicted errors.
        certified: `[B]`.
        context: of the attack.
    """
    unchanged = Likely(inputs, error, certified, False)
    sigma = gradient.factors.sigma
    layers = read_layers(observation)
    if layers is None or not gradient.noisy:
        return unchanged
    if len(inputs) != gradient.factors.rank or not bool(torch.isfinite(inputs).all()):
        return unchanged
    context.progress("maximum likelihood over all layers", None)
    best = _climb(layers, inputs.double(), error.double(), sigma, context)
    if best is None:
        return unchanged
    point, noise = best
    first = _first_order(point, sigma)
    sure = certified
    if bool(certified.any()):
        first, worst = predicted_errors(point, noise, context)
        sure = certified & (SAFETY * worst * observation.std.to(worst).max() < EXACT)
    stays = certified & ~sure
    moved = torch.where(stays[:, None], inputs, point.fed[0].to(inputs))
    return Likely(moved, torch.where(stays, error, first.to(error)), certified, True)


def _climb(
    layers: Sequence[Layer], inputs: Tensor, error: Tensor, sigma: float, context: Context
) -> tuple[Point, list[float]] | None:
    """The likeliest point and each layer's noise, or None where that is no batch which can have made the gradient."""
    point = Point(layers, inputs, inputs.new_zeros(len(inputs), len(layers[-1].weight)))
    noise = _noise(point, sigma)
    point = point.fitted(noise)
    start, least = _energy(point), torch.inf
    likeliest, vain = point, 0
    error = torch.where(error.isfinite(), error, _first_order(point, sigma))
    for _ in range(_PASSES):
        error = torch.maximum(error, _first_order(point, sigma))
        after = _step(point, noise, error, True, context)
        if context.expired():
            return None
        error = (after.fed[0] - point.fed[0]).square().mean(dim=1).sqrt()
        settled = all(torch.equal(*pair) for pair in zip(point.patterns, after.patterns, strict=True))
        point, noise, energy = after, _noise(after, sigma), _energy(after)
        vain = 0 if energy < least - _GAIN else vain + 1
        if energy < least:
            likeliest, least = point, energy
        if settled or vain == _VAIN:
            break
    noise = _noise(likeliest, sigma)
    point = _step(likeliest, noise, error, False, context)
    reached = _energy(point) < start and _explained(point, noise) and not context.expired()
    return (point, noise) if reached else None


def _step(point: Point, noise: Sequence[float], error: Tensor, relaxed: bool, context: Context) -> Point:
    """One Gauss-Newton step, patterns included where `relaxed`.

    Outside the rows of the first layer's weights and the images themselves, nothing but their least squares tells the
    images' numbers, so that the step is solved within.
    """
    basis = _basis(point)
    inner = _inside(point, basis)
    odds = inner.odds(error, context.generator) if relaxed else inner.patterns
    ahead = [of - slope for of, slope in zip(odds, inner.patterns, strict=True)]
    ahead = [torch.where(by.abs() > _SURE, by.clamp(_SURE - 1, 1 - _SURE), 0) for by in ahead]
    spread = [(by.abs() * (1 - by.abs())).sqrt() for by in ahead]
    weights = [each**-2 for each in noise]
    right = inner.slope(inner.residuals(), weights)
    right[2:] = [
        part * width + by / width.clamp_min(_TINY) for part, width, by in zip(right[2:], spread, ahead, strict=True)
    ]
    step = [part[0] for part in solve(inner, right, weights, spread, context.expired)]
    patterns = [
        (old + by * width > 0.5).to(old) for old, by, width in zip(point.patterns, step[2:], spread, strict=True)
    ]
    images = (inner.fed[0] + step[0]) @ basis.T
    sent, target = point.sent[0], point.layers[0].target[:, :-1]
    outside = sent @ target
    outside = outside - (outside @ basis) @ basis.T
    images = images + torch.cholesky_solve(outside, factor(sent @ sent.T))
    return Point(point.layers, images, point.sent[-1], patterns).fitted(noise)


def _basis(point: Point) -> Tensor:
    """Orthonormal columns `[n, r]` whose span holds the first layer's weights and the images."""
    weight, images = point.layers[0].weight, point.fed[0]
    if len(weight) + len(images) >= images.shape[1]:
        return torch.eye(images.shape[1], dtype=images.dtype, device=images.device)
    basis: Tensor = torch.linalg.qr(torch.cat([weight, images]).T).Q
    return basis


def _inside(point: Point, basis: Tensor) -> Point:
    """The same in the coordinates of the basis."""
    layer = point.layers[0]
    target = torch.cat([layer.target[:, :-1] @ basis, layer.target[:, -1:]], dim=1)
    layers = [replace(layer, weight=layer.weight @ basis, target=target), *point.layers[1:]]
    return Point(layers, point.fed[0] @ basis, point.sent[-1], point.patterns)


def _first_order(point: Point, sigma: float) -> Tensor:
    """Standard deviation of each image's numbers, backward signals taken as known: `[B]`."""
    sent = point.sent[0]
    return sigma * torch.cholesky_inverse(factor(sent @ sent.T)).diagonal().sqrt()


def predicted_errors(point: Point, noise: Sequence[float], context: Context) -> tuple[Tensor, Tensor]:
    """Standard deviations of each image's numbers, of their mean square and of the largest: `[B]`, `[B]`.

    They are the Cramer-Rao bound at the point: noise is drawn and the error that it makes solved for. An error of the
    scale moves the extremes most, and few draws may understate it.

    Args:
        point: a batch at its patterns.
        noise: of an entry of each layer's gradient.
        context: for the draws, and for how long.
    """
    images = point.fed[0]
    basis = _basis(point)
    inner = _inside(point, basis)
    weights = [each**-2 for each in noise]
    draws = []
    for _ in range(_PROBES):
        drawn = [
            each
            * torch.randn(layer.target.shape, generator=context.generator, device=images.device, dtype=images.dtype)
            for each, layer in zip(noise, inner.layers, strict=True)
        ]
        draws.append(inner.slope(drawn, weights))
    right = [torch.cat(parts) for parts in zip(*draws, strict=True)]
    frozen = [z * 0 for z in inner.before]
    right[2:] = [part * 0 for part in right[2:]]
    moved = solve(inner, right, weights, frozen, context.expired)[0]
    size, inside = images.shape[1], basis.shape[1]
    outside = (size - inside) * _first_order(point, noise[0]).square()
    square = (moved.square().sum(dim=2).mean(dim=0) + outside) / size
    scale = (moved * inner.fed[0]).sum(dim=2) / images.square().sum(dim=1)
    scale_square = _UPPER**2 * scale.square().mean(dim=0)
    extra = images.abs().amax(dim=1).square() - images.square().mean(dim=1)
    return square.sqrt(), (square + extra * scale_square).sqrt()


def _noise(point: Point, sigma: float) -> list[float]:
    """Standard deviation of an entry of each layer's gradient: what its activations cannot explain.

    The first layer's is known from its singular values, and a layer that is fed too little has the same.
    """
    found = [sigma]
    for layer, fed in zip(point.layers[1:], point.fed[1:], strict=True):
        free = layer.target.shape[1] - len(fed)
        if free < _FREE:
            found.append(sigma)
            continue
        basis = torch.linalg.qr(with_one(fed).T).Q
        rest = layer.target - (layer.target @ basis) @ basis.T
        found.append(max((float(rest.square().sum()) / (len(rest) * free)) ** 0.5, layer.rounding))
    return found


def _energy(point: Point) -> float:
    """Twice the negative log-likelihood, but for a constant, whatever each layer's noise."""
    return sum(r.numel() * float(r.square().mean().clamp_min(_TINY).log()) for r in point.residuals())


def _explained(point: Point, noise: Sequence[float]) -> bool:
    """Whether noise explains what the batch leaves of every layer's gradient."""
    for number, (each, rest) in enumerate(zip(noise, point.residuals(), strict=True)):
        rows, columns = rest.shape
        free = (rows - len(point.fed[0])) * columns if number == 0 else rows * columns
        if float(rest.square().sum()) > free * each**2 * (1 + _SLACK + _DOUBTED * (2 / free) ** 0.5):
            return False
    return True


def solve(
    point: Point, right: Vector, weights: Sequence[float], spread: Sequence[Tensor], expired: Callable[[], bool]
) -> Vector:
    """Solve the Gauss-Newton equations by conjugate gradients, for several right-hand sides at once.

    Slopes are in units of the deviations that their odds leave them, so that their prior is the identity.

    Args:
        point: where.
        right: the right-hand sides, `[K, ...]` each.
        weights: one over the noise's variance, of each layer.
        spread: `[B, m]` of each ReLU, the deviations of its slopes; 0 where they are known.
        expired: ends it early.
    """
    images = factor(weights[0] * point.sent[0] @ point.sent[0].T)
    sent = factor(point.sent_normal(weights))
    own = [
        w * back.square() * (fed.square().sum(dim=1, keepdim=True) + 1)
        for w, back, fed in zip(weights, point.back, point.fed, strict=False)
    ]
    slopes = [1 / (width.square() * values + 1) for width, values in zip(spread, own, strict=True)]

    def conditioned(v: Vector) -> Vector:
        by_sent = torch.cholesky_solve(v[1].flatten(1).T, sent).T.view_as(v[1])
        return [torch.cholesky_solve(v[0], images), by_sent, *(a * b for a, b in zip(slopes, v[2:], strict=True))]

    found = [torch.zeros_like(part) for part in right]
    rest, direction = right, conditioned(right)
    size = first = _dot(rest, direction)
    for count in range(_SOLVES):
        if expired() or (count % _ASKED == 0 and bool((size <= _PRECISION**2 * first).all())):
            break
        inside = [*direction[:2], *(part * width for part, width in zip(direction[2:], spread, strict=True))]
        moved = point.normal(inside, weights)
        moved[2:] = [m * width + part for m, width, part in zip(moved[2:], spread, direction[2:], strict=True)]
        length = size / _dot(direction, moved).clamp_min(torch.finfo(size.dtype).tiny)
        found = _plus(found, length, direction)
        rest = _plus(rest, -length, moved)
        across = conditioned(rest)
        size, last = _dot(rest, across), size
        direction = _plus(across, size / last.clamp_min(torch.finfo(size.dtype).tiny), direction)
    return found


def _dot(one: Vector, other: Vector) -> Tensor:
    return torch.stack([(a * b).flatten(1).sum(dim=1) for a, b in zip(one, other, strict=True)]).sum(dim=0)


def _plus(one: Vector, by: Tensor, other: Vector) -> Vector:
    return [a + by[:, None, None] * b for a, b in zip(one, other, strict=True)]
