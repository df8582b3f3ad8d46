"""What a network with one hidden layer sends back to it: known for each image up to fewer numbers than classes.

For `logits = relu(Z) W2^T + b2` under mean cross-entropy, image i's column of `G^T = (dL/dZ)^T` is its activation
pattern times the signal `W2^T g_i`, with `g_i [C]` a multiple of `p_i - e_{y_i}`, whose entries sum to zero. At initial
weights the probabilities p_i hardly differ between images, so there is about one signal a class.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gibench.attack import lacking
from gibench.observation import Observation

from ..exact.layers import InputLayer, find_input_layer, head_after
from ..exact.linear_layer import LayerGradient

_GREYS = 64  # flat images, from black to white, that show what probabilities the model gives
_FEWEST = 4  # neurons for each class: with fewer, a signal can be fitted to any pattern
_RANK = 1e-6  # of the largest singular value of W2


@dataclass(frozen=True)
class Backward:
    """The signals that can reach the hidden layer, `V t`, and what is known of the classes; in float64."""

    basis: Tensor  # V [m, r], whitened: `V^T V = m I`; r is C - 1 but where classes share a row of W2
    coefficients: Tensor  # [C, r]: `g = coefficients @ t`
    signals: Tensor  # [m, C]: that of an image of each class with typical probabilities; root mean square 1
    weight: Tensor  # W2 [C, m]
    bias: Tensor  # b2 [C]
    counts: Tensor  # [C]: about how many images each class has, by the last bias gradient

    def classes(self, t: Tensor) -> Tensor:
        """The class of each image from its `t [r, K]`: where g is largest, since only there `p - e_y` is negative."""
        return (self.coefficients @ t).abs().argmax(dim=0)


def head_of(observation: Observation) -> tuple[str, nn.Linear] | str:
    """The linear layer that makes logits of the first layer's ReLU and its name, or why there is none.

    Args:
        observation: one that `unsupported` has nothing against.
    """
    model = observation.model
    layer = find_input_layer(model, observation.image_shape)
    assert isinstance(layer, InputLayer)  # else it is unsupported
    name = head_after(model, layer)
    head = None if name is None else model.get_submodule(name)
    if name is None or not isinstance(head, nn.Linear) or head.bias is None:
        return "two-valued columns need a network of one hidden layer: Linear, ReLU, Linear with a bias"
    classes, neurons = head.weight.shape
    if not 2 <= classes <= neurons / _FEWEST:
        return (
            f"two-valued columns need {_FEWEST} hidden neurons for each of at least 2 classes, and this network has "
            f"{neurons} neurons and {classes} classes: use a wider layer"
        )
    return lacking(observation, [f"{name}.bias"]) or (name, head)


def read_backward(observation: Observation, gradient: LayerGradient, name: str, head: nn.Linear) -> Backward:
    """The signals of a network of one hidden layer.

    Args:
        observation: the model and the gradient.
        gradient: of the first layer.
        name: of the head in the model.
        head: what `head_of` has found.
    """
    weight = head.weight.detach()[:, gradient.live].double()  # [C, m]
    centred = (weight - weight.mean(dim=0)).T  # the same on what sums to zero
    left, values, right = torch.linalg.svd(centred, full_matrices=False)
    rank = int((values > _RANK * values[0]).sum())
    scale = len(centred) ** 0.5
    probabilities = _typical(observation)
    typical = probabilities[:, None] - torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
    signals = weight.T @ typical
    counts = probabilities - observation.gradient()[f"{name}.bias"].double()
    return Backward(
        basis=scale * left[:, :rank],
        coefficients=scale * right[:rank].T / values[:rank],
        signals=signals / signals.square().mean(dim=0).sqrt(),
        weight=weight,
        bias=head.bias.detach().double(),
        counts=gradient.factors.rank * counts.clamp(0, 1),
    )


def _typical(observation: Observation) -> Tensor:
    """The model's mean probabilities over flat images, `[C]`."""
    parameter = next(observation.model.parameters())
    greys = torch.linspace(0, 1, _GREYS, device=parameter.device, dtype=parameter.dtype)
    with torch.no_grad():
        logits: Tensor = observation.model(
            observation.normalize(greys.view(-1, 1, 1, 1).expand(-1, *observation.image_shape))
        )
    return logits.double().softmax(dim=1).mean(dim=0)
