"""The gradient of a fully connected ReLU network as a function of the batch, at fixed patterns, and its derivative.

Layer l shows `dL/dW_l = D_l^T A_l`, with activations `A_l` and backward signals `D_l`. Given which neurons each image
activates, all follows from the images X and from what the loss sends back, `E = D_L [B, C]`: A_l is affine in X, D_l
linear in E.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gibench.observation import Observation

_RIDGE = 1e-12  # of a matrix's mean diagonal
_TINY = torch.finfo(torch.float64).tiny

Vector = list[Tensor]  # X, E, then each ReLU's slopes, several of them along the first dimension


@dataclass(frozen=True)
class Layer:
    """A linear layer with its part of the gradient, in float64."""

    weight: Tensor  # [m, n]
    bias: Tensor  # [m]
    target: Tensor  # [m, n + 1], dL/dW beside dL/db
    rounding: float = 0.0  # of an entry of the gradient as it was sent


def read_layers(observation: Observation) -> list[Layer] | None:
    """The layers of a chain of linear layers with ReLUs between, or None where the model is none, or parts are frozen.

    Args:
        observation: the model and the gradient.
    """
    model, gradient = observation.model, observation.gradient()
    if type(model) is not nn.Sequential:
        return None
    kept = [
        (name, module) for name, module in model.named_children() if not isinstance(module, nn.Flatten | nn.Identity)
    ]
    linear = kept[::2]
    if len(kept) % 2 == 0 or not all(type(module) is nn.ReLU for _, module in kept[1::2]):
        return None
    if not all(type(module) is nn.Linear and f"{name}.bias" in gradient for name, module in linear):
        return None
    if not all(f"{name}.weight" in gradient for name, _ in linear):
        return None
    return [_layer(module, gradient[f"{name}.weight"], gradient[f"{name}.bias"]) for name, module in linear]


def _layer(module: nn.Module, weight: Tensor, bias: Tensor) -> Layer:
    assert isinstance(module, nn.Linear)
    target = torch.cat([weight, bias[:, None]], dim=1).double()
    rounding = torch.finfo(weight.dtype).eps * float(target.square().mean().sqrt())
    return Layer(module.weight.detach().double(), module.bias.detach().double(), target, rounding)


class Point:
    """A batch at fixed patterns: what each layer is fed and sent back, and how they move.

    Args:
        layers: of the network.
        inputs: X `[B, n]`.
        sent: E `[B, C]`.
        patterns: `[B, m]` of each ReLU, 1 where a neuron is active; by default those of the inputs.
    """

    def __init__(
        self, layers: Sequence[Layer], inputs: Tensor, sent: Tensor, patterns: Sequence[Tensor] | None = None
    ) -> None:
        self.layers, self.fed, self.before, self.patterns = layers, [inputs], list[Tensor](), list[Tensor]()
        for number, layer in enumerate(layers[:-1]):
            z = self.fed[-1] @ layer.weight.T + layer.bias
            self.before.append(z)
            self.patterns.append((z > 0).to(z) if patterns is None else patterns[number])
            self.fed.append(z * self.patterns[-1])
        self.sent, self.back = [sent], list[Tensor]()  # D_l; and D_l before the ReLU's slope
        for layer, pattern in zip(reversed(layers[1:]), reversed(self.patterns), strict=True):
            self.back.insert(0, self.sent[0] @ layer.weight)
            self.sent.insert(0, self.back[0] * pattern)

    def residuals(self) -> list[Tensor]:
        """What the batch leaves of each layer's gradient."""
        return [
            layer.target - sent.T @ with_one(fed)
            for layer, sent, fed in zip(self.layers, self.sent, self.fed, strict=True)
        ]

    def slope(self, residuals: Sequence[Tensor], weights: Sequence[float]) -> Vector:
        """The transposed derivative, applied to weighted residuals: half the misfit's descent."""
        sent = [w * with_one(fed) @ r.T for w, fed, r in zip(weights, self.fed, residuals, strict=True)]
        fed = [w * sent @ r[:, :-1] for w, sent, r in zip(weights, self.sent, residuals, strict=True)]
        return self._pulled([part[None] for part in sent], [part[None] for part in fed])

    def normal(self, step: Vector, weights: Sequence[float]) -> Vector:
        """The Gauss-Newton matrix applied to a step, without forming a gradient: Gram matrices of the batch suffice."""
        d_fed = [step[0]]
        for layer, pattern, z, slopes in zip(self.layers[:-1], self.patterns, self.before, step[2:], strict=True):
            d_fed.append((d_fed[-1] @ layer.weight.T) * pattern + z * slopes)
        d_sent = [step[1]]
        for number in range(len(self.layers) - 1, 0, -1):
            back = d_sent[0] @ self.layers[number].weight
            d_sent.insert(0, back * self.patterns[number - 1] + self.back[number - 1] * step[1 + number])
        sent, fed = [], []
        for w, a, d, da, dd in zip(weights, self.fed, self.sent, d_fed, d_sent, strict=True):
            sent.append(w * ((a @ a.T + 1) @ dd + (a @ da.mT) @ d))
            fed.append(w * ((d @ dd.mT) @ a + (d @ d.T) @ da))
        return self._pulled(sent, fed)

    def _pulled(self, sent: Sequence[Tensor], fed: Sequence[Tensor]) -> Vector:
        """What derivatives by every D_l and A_l are by X, E and the slopes."""
        slopes, total = [], sent[0]
        for number, layer in enumerate(self.layers[1:]):
            slopes.append(total * self.back[number])
            total = sent[number + 1] + (total * self.patterns[number]) @ layer.weight.T
        by_input = fed[-1]
        for number in range(len(self.layers) - 2, -1, -1):
            slopes[number] = slopes[number] + by_input * self.before[number]
            by_input = fed[number] + (by_input * self.patterns[number]) @ self.layers[number].weight
        return [by_input, total, *slopes]

    def sent_normal(self, weights: Sequence[float]) -> Tensor:
        """The Gauss-Newton matrix of E alone, `[B C, B C]`."""
        batch, classes = self.sent[-1].shape
        eye = torch.eye(classes, dtype=self.sent[-1].dtype, device=self.sent[-1].device)
        back = eye.expand(batch, classes, classes)
        total = eye.new_zeros(batch * classes, batch * classes)
        for number in range(len(self.layers) - 1, -1, -1):
            fed = self.fed[number] @ self.fed[number].T + 1
            flat = back.reshape(batch * classes, -1)
            total += weights[number] * (flat @ flat.T) * fed.repeat_interleave(classes, 0).repeat_interleave(classes, 1)
            if number:
                back = (back @ self.layers[number].weight) * self.patterns[number - 1][:, None]
        return total

    def odds(self, error: Tensor, generator: torch.Generator) -> list[Tensor]:
        """That each neuron is active, `[B, m]` of each ReLU; the images' numbers have gaussian errors of size `[B]`."""
        moved = (
            torch.randn(self.fed[0].shape, generator=generator, device=error.device, dtype=error.dtype) * error[:, None]
        )
        found = []
        for layer, z, pattern in zip(self.layers[:-1], self.before, self.patterns, strict=True):
            change = moved @ layer.weight.T
            found.append(torch.special.ndtr(z / change.square().mean(dim=1, keepdim=True).sqrt().clamp_min(_TINY)))
            moved = change * pattern
        return found

    def fitted(self, noise: Sequence[float]) -> Point:
        """With the E that fits best, by least squares over all layers of such noise."""
        weights = [each**-2 for each in noise]
        right = self.slope([layer.target for layer in self.layers], weights)[1]
        solved = torch.cholesky_solve(right.reshape(-1, 1), factor(self.sent_normal(weights)))
        return Point(self.layers, self.fed[0], solved.view_as(self.sent[-1]), self.patterns)


def factor(matrix: Tensor) -> Tensor:
    """The Cholesky factor, of a matrix that is singular but for rounding too."""
    ridge = _RIDGE * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    lower: Tensor = torch.linalg.cholesky_ex(matrix + ridge)[0]
    return lower


def with_one(values: Tensor) -> Tensor:
    """With a column of ones, which the bias is fed."""
    return torch.cat([values, torch.ones_like(values[:, :1])], dim=1)
