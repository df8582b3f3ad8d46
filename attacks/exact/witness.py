"""What the next linear layer's gradient says of recovered images: a witness that the first layer's scales are right.

Each image's scale is read off the first layer's bias gradient against its weight gradient. A client that scales these
two differently (clipping each tensor, a learning rate of its own for biases) shifts every scale, and nothing in the
first layer shows it: dL/db stays a combination of the columns, and activation patterns hardly change. But the next
layer's weight gradient is `H^T A` with `A = phi(s X W^T + b)`, phi the activation, whatever its own scale: its rows are
combinations of the images' activations, which the biases b bend away from those of wrong scales s. So one scale an
image is fitted to it, and the fit must leave over no more than noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gibench.observation import Observation

from .layers import next_linear
from .linear_layer import LayerGradient
from .low_rank import Factors, factorize
from .products import times

_STEPS = 12
_LARGEST = 0.3  # change of a scale in one step
_CONVERGED = 1e-9  # change of a scale that is none
_WITHIN = 4.0  # times what noise explains: a residual that counts as none
_CONTRADICTS = 4.0  # standard deviations
BLUNT = 1e-2  # standard deviation of a scale from which on nothing is confirmed
_EDGE = 10.0  # times the largest singular value of noise: below it a direction is half noise


@dataclass(frozen=True)
class Scales:
    """What each image's inputs have to be multiplied by to suit the next layer's gradient."""

    factor: Tensor  # [B]
    error: Tensor  # [B], its standard deviation; infinite where the gradient says nothing of the scale

    @property
    def sharp(self) -> Tensor:
        """The images of whose scale the next layer says enough to confirm or refuse it, `[B]` booleans."""
        return self.error < BLUNT

    def contradict(self, scale_error: Tensor) -> bool:
        """Whether a scale, or all by one factor, differ from the first layer's by more than the noise of both.

        Args:
            scale_error: `[B]`, standard deviation of the first layer's.
        """
        noise = (self.error.square() + scale_error.square()).sqrt()
        deviations = ((self.factor - 1) / noise).nan_to_num(0, 0, 0)
        together = (deviations / noise).sum() / noise.pow(-2).sum().sqrt()
        return bool((torch.cat([deviations, together[None]]).abs() > _CONTRADICTS).any())


def unaccounted(observation: Observation, gradient: LayerGradient, solved: int, second: Factors | None) -> str:
    """Why no image is certified: part of the batch may be hidden in the mean of several images. Else an empty text.

    Args:
        observation: of which the batch size counts, where it is granted.
        gradient: of the first layer.
        solved: how many images stand on their own evidence.
        second: of the next layer's gradient, which counts where it has room for the rank of the first.
    """
    factors, size = gradient.factors, observation.batch_size
    wanted = factors.rank if size is None else size
    if factors.rank < wanted:
        return f"the rank is {factors.rank} and the batch {size}: an image may be the mean of several"
    if second is not None and second.rank < wanted < min(len(second.basis), len(gradient.bias)):
        return f"the next layer's gradient has rank {second.rank} for {wanted} images: one may be the mean of several"
    if solved < wanted:
        return f"{solved} of {wanted} images are found: one may be the mean of several"
    edge = factors.sigma * sum(length**0.5 for length in gradient.weight.shape)
    if float(factors.singular_values[-1]) < _EDGE * edge:
        return "the last singular value is hardly above the noise: an image may be the mean of several"
    return ""


@dataclass(frozen=True)
class NextGradient:
    """The weight gradient of the linear layer that the first one's activation feeds."""

    name: str  # of the layer
    weight: Tensor  # [k, m], of the neurons that the first layer's gradient tells of
    factors: Factors | None  # None where it shows no rank


def read_next(observation: Observation, gradient: LayerGradient, generator: torch.Generator) -> NextGradient | None:
    """The next linear layer's weight gradient and its factors; None where none is seen."""
    name = next_linear(observation.model, gradient.layer)
    if name is None or f"{name}.weight" not in observation.update.tensors:
        return None
    weight = gradient.takes(observation.gradient()[f"{name}.weight"])
    return NextGradient(name, weight, factorize(weight, weight[:, 0], generator))  # of its bias nothing is asked


def read_second(observation: Observation, gradient: LayerGradient, generator: torch.Generator) -> Factors | None:
    """The factors of the next linear layer's weight gradient; None where none is seen.

    Where it shows no rank, they are of full rank, with the noise of the first layer's gradient.
    """
    following = read_next(observation, gradient, generator)
    if following is None or following.factors is not None or not bool(following.weight.any()):
        return None if following is None else following.factors
    weight = following.weight
    scale = len(weight) ** 0.5
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    neurons = torch.arange(len(weight), device=weight.device)
    inputs = values[:, None] * right / scale
    return Factors(scale * left, inputs, inputs[:, 0], values, gradient.factors.sigma, 1.0, 0.0, neurons)


def fit_scales(gradient: LayerGradient, second: Factors, inputs: Tensor, error: Tensor) -> Scales | None:
    """The scales that the next layer's weight gradient asks for; None where it is not that of these images.

    Args:
        gradient: of the first layer.
        second: of the next one.
        inputs: all images of the batch, `[B, n]` float64, each right up to its scale.
        error: `[B]`, standard deviation of an entry of each image's inputs beside its scale.
    """
    rows = len(second.basis) ** 0.5 * second.inputs  # [r, m], each with the noise of an entry
    layer, bias = gradient.layer, gradient.layer.bias.double()[:, None]
    linear = times(layer.weight, inputs.T)
    factor = torch.ones_like(error)
    for _ in range(_STEPS):
        seen, slopes = layer.activation.with_slopes(factor * linear + bias)
        span = torch.linalg.qr(seen)
        outside = rows - (rows @ span.Q) @ span.Q.T
        shares = torch.linalg.solve_triangular(span.R, (rows @ span.Q).T, upper=True)  # of each image, [B, r]
        bend = linear * slopes
        bend = bend - span.Q @ (span.Q.T @ bend)
        normal = (shares @ shares.T) * (bend.T @ bend)
        step = torch.linalg.solve_ex(normal, ((shares @ outside) * bend.T).sum(dim=1))[0].nan_to_num(0, 0, 0)
        if bool((step.abs() < _CONVERGED).all()):
            break
        factor = factor + step.clamp(-_LARGEST, _LARGEST)
    free = max(outside.shape[1] - len(inputs), 1)
    arithmetic = layer.eps * inputs.norm(dim=1)
    blur = (layer.norms.square() @ slopes.double().square()) * (error.square() + arithmetic.square())
    noise = (second.sigma**2 + (shares.square().sum(dim=1) @ blur) / (len(rows) * free)) ** 0.5
    left = outside.square().sum().div(len(rows) * free).sqrt()
    if not bool(left <= _WITHIN * noise):
        return None
    copies = len(bias) / gradient.factors.distinct_neurons  # repeat one another's errors
    variance = torch.linalg.inv_ex(normal).inverse.diagonal()
    deviation = torch.maximum(left, noise) * (copies * variance).sqrt()
    return Scales(factor, deviation.nan_to_num(torch.inf, torch.inf, torch.inf))
