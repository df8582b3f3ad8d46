"""What all linear-layer attacks share: the layer itself, the low rank of its gradient, and inputs from its factors.

For a linear layer `Z = X W^T + b` fed by the flattened images, the server sees `dL/dW = G^T X` and `dL/db = G^T 1`
with `G = dL/dZ [B, m]`. `dL/dW` has rank B, and every column of `G^T` is a combination `L q` of its left singular
vectors. Source: Dimitrov et al., "SPEAR: Exact Gradient Inversion of Batches in Federated Learning", NeurIPS 2024.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gibench.attack import lacking
from gibench.observation import Observation

from .layers import InputLayer, find_input_layer
from .low_rank import Factors, factorize
from .neurons import distinct_neurons
from .products import times

SAFETY = 5.0  # standard deviations of the predicted error that a certificate leaves room for
EXCESS = 10  # distinct neurons more than unknowns: with one or two, some pattern of very many agrees by chance
_SEEN = 16.0  # times the rounding of a gradient's entries: less is not noise
EXACT = 1 / 510  # of the pixel range: a pixel within it rounds to the true 8-bit value


def unsupported(observation: Observation) -> str | None:
    """Why attacks on the first linear layer's rank do not apply, or None when they do.

    Those that need zeros in its backward signals ask `without_zeros`.
    """
    layer = find_input_layer(observation.model, observation.image_shape)
    if isinstance(layer, str):
        return layer
    if reason := lacking(observation, [f"{layer.name}.weight", f"{layer.name}.bias"]):
        return reason
    limit = min(layer.weight.shape)
    if observation.batch_size is not None and observation.batch_size > limit:
        return (
            f"a batch of {observation.batch_size} is more than the {limit} that the rank of layer '{layer.name}' "
            f"({layer.weight.shape[0]} x {layer.weight.shape[1]}) can hold: use "
            + ("a wider layer" if limit == len(layer.weight) else "larger images or a smaller batch")
        )
    return None


def without_zeros(observation: Observation) -> str | None:
    """Why attacks on the zeros that a ReLU leaves in the first layer's gradient do not apply, or None."""
    if reason := unsupported(observation):
        return reason
    layer = find_input_layer(observation.model, observation.image_shape)
    assert isinstance(layer, InputLayer)  # else it is unsupported
    if layer.activation.sparse:
        return None
    return (
        f"needs a ReLU right after the first linear layer, for its zeros, and {layer.activation.name} has none: "
        "use layer-pair, which needs no zeros"
    )


@dataclass(frozen=True)
class LayerGradient:
    """The gradient of the neurons of the first linear layer that fired for some image; the others say nothing."""

    layer: InputLayer
    weight: Tensor  # dL/dW [m, n]
    bias: Tensor  # dL/db [m]
    factors: Factors
    live: Tensor  # which neurons of the whole layer these are, booleans

    @property
    def noisy(self) -> bool:
        """Whether there is noise beyond the rounding of its numbers."""
        entry = float(self.factors.singular_values.square().sum() / self.weight.numel()) ** 0.5
        return bool(self.factors.sigma >= _SEEN * torch.finfo(self.weight.dtype).eps * entry)

    def takes(self, weight: Tensor) -> Tensor:
        """The columns of the next layer's weight that the live neurons feed; no copy where these are all."""
        return weight if bool(self.live.all()) else weight[:, self.live]

    def in_row_space(self) -> LayerGradient:
        """The same with inputs in coordinates of the gradient's row space: B numbers an image instead of n."""
        factors = self.factors
        rows = len(factors.basis) ** 0.5 * factors.inputs / factors.singular_values[:, None]  # orthonormal, [B, n]
        layer = replace(self.layer, weight=times(self.layer.weight, rows.T), original=self.layer.weight)
        weight = times(self.weight, rows.T)
        return replace(self, layer=layer, weight=weight, factors=replace(factors, inputs=factors.inputs @ rows.T))


def read_gradient(observation: Observation, generator: torch.Generator) -> LayerGradient | None:
    """The first linear layer's gradient and its factors, or None when they show no rank gap.

    Args:
        observation: one that `unsupported` has nothing against.
        generator: for the randomised SVD, on the observation's device.
    """
    layer = find_input_layer(observation.model, observation.image_shape)
    assert isinstance(layer, InputLayer)  # else it is unsupported
    weight, bias = layer.of(observation.gradient())
    live = (weight != 0).any(dim=1)  # exact zeros tell who never fired, unless noise hides them: then the factors do
    parts = _some(live, weight, bias, layer.weight, layer.bias)
    factors = factorize(parts[0], parts[1], generator)
    if factors is not None and not bool((fired := factors.live()).all()):
        live[live.clone()] = fired
        parts = _some(fired, *parts)
        factors = factorize(parts[0], parts[1], generator)
    if factors is None:
        return None
    layer = replace(layer, weight=parts[2], bias=parts[3])
    factors = replace(factors, neurons=distinct_neurons(layer.weight, layer.bias))
    return LayerGradient(layer, parts[0], parts[1], factors, live)


def _some(chosen: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The chosen rows of each, `[m]` booleans; no copies where these are all."""
    return tensors if bool(chosen.all()) else tuple(rows[chosen] for rows in tensors)


def features(factors: Factors, layer: InputLayer) -> Tensor:
    """F `[m, B]`: image i's pre-activations are `F c_i`, with `c_i` the i-th row of `Q^-1`; the bias is included."""
    return times(layer.weight, factors.inputs.T) + torch.outer(layer.bias.double(), factors.ones)


def solve_inputs(columns: Tensor, *gradients: Tensor) -> tuple[Tensor, ...]:
    """Least-squares X `[B, n]` of `G^T X = dL/dW`, a fit over all m rows, for each of several gradients.

    Args:
        columns: `G^T [m, B]` in float64, its zeros set exactly.
        gradients: `dL/dW [m, n]`, or `dL/db [m, 1]` for what the images' ones are.
    """
    basis, triangle = torch.linalg.qr(columns)
    return tuple(
        torch.linalg.solve_triangular(triangle, times(gradient.T, basis).T, upper=True) for gradient in gradients
    )


def match_patterns(
    inputs: Tensor, support: Tensor, layer: InputLayer, error: Tensor, scale_error: Tensor
) -> tuple[Tensor, Tensor]:
    """Whether each neuron's activation for each image agrees with the support of the image's column of `G^T`.

    The share of votes that agree is the sparsity-matching coefficient lambda (SPEAR, section 4). Neurons whose
    pre-activation is within the error bound of the arithmetic and the noise do not vote.

    Args:
        inputs: X `[B, n]` in float64.
        support: `[m, B]` booleans, where `G^T` is not zero.
        layer: the linear layer.
        error: `[B]`, standard deviation of an entry of each image's inputs.
        scale_error: `[B]`, relative standard deviation of each image's scale.

    Returns:
        `agree` and `votes`, `[m, B]` booleans; what does not vote does not agree.
    """
    linear = times(layer.weight, inputs.T)
    activation = linear + layer.bias.double()[:, None]
    norms = layer.norms[:, None]
    rounding = 8 * layer.eps * norms * inputs.norm(dim=1)
    votes = activation.abs() > rounding + 4 * (norms * error + linear.abs() * scale_error)
    return ((activation > 0) == support) & votes, votes


def first_of_each(patterns: Tensor) -> tuple[Tensor, Tensor]:
    """The different columns of `[m, K]` booleans, and where each stands first, `[D]`."""
    different, group = torch.unique(patterns, dim=1, return_inverse=True)
    number = torch.arange(len(group), device=patterns.device)
    first = torch.full_like(number, len(number))[: different.shape[1]].scatter_reduce(0, group, number, "amin")
    return different, first
