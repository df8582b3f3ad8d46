"""The scale of each image by maximum likelihood over every linear layer's gradient.

The bias gradient of the first layer alone fixes each scale, and under noise its error outweighs all others. But a
wrong scale of image i also bends its activations in every later linear layer, whose gradient `[dL/dW, dL/db] = G^T
[A, 1]` then is no combination of those activations: with G free, what they leave unexplained is minimised over the B
scales by Gauss-Newton steps, each layer weighted by its own noise. Neither labels nor the size of G are needed, so
clipping does not matter.
"""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from torch import Tensor, nn

from gibench.observation import Observation

from .products import energy, energy_outside, times

_STEPS = 6
_EPS = torch.finfo(torch.float64).eps
_LARGEST = 0.3  # change of a scale in one step
_CHANGE = 1e-5  # of the scales, for the derivative by central differences: a ReLU net is linear between its kinks


def refine_scales(observation: Observation, inputs: Tensor, sigma: float) -> tuple[Tensor, Tensor] | None:
    """What to multiply each image's inputs by, and the relative standard deviation of that: `[B]`, `[B]`.

    Args:
        observation: the model and the gradient. The noise of each layer is what its activations leave unexplained:
            rounding is of the size of a layer's own gradient, which in trained networks differs by orders.
        inputs: `[B, n]`, in float64.
        sigma: noise of one entry of the gradient, at least.

    Returns:
        None where the images of a batch disturb each other in the model (BatchNorm, dropout).
    """
    if any(isinstance(module, nn.modules.batchnorm._NormBase | nn.Dropout) for module in observation.model.modules()):
        return None
    model = _in_double(observation.model)
    gradient = observation.gradient()
    targets = {
        name: (gradient[f"{name}.weight"], gradient[f"{name}.bias"][:, None])
        for name, module in observation.model.named_modules()
        if isinstance(module, nn.Linear)
        and {f"{name}.weight", f"{name}.bias"} <= gradient.keys()
        and module.in_features >= len(inputs)
    }
    shape = (-1, *observation.image_shape)
    factor = torch.ones_like(inputs[:, 0])
    lowest = torch.full_like(factor[0], torch.inf)
    best: tuple[Tensor, Tensor] | None = None
    for _ in range(_STEPS):
        images = (inputs * factor[:, None]).view(shape)
        seen = _linear_inputs(model, images, targets)
        ahead, behind = (_linear_inputs(model, images * (1 + change), targets) for change in (_CHANGE, -_CHANGE))
        likelihood, normal, right = (
            torch.zeros_like(factor[0]),
            0.0,
            0.0,
        )  # its negative logarithm, the matrix and the right side of a step
        for name, (weight, bias) in targets.items():
            basis, triangle = torch.linalg.qr(_with_one(seen[name], 1.0).T)
            tangent = _with_one((ahead[name] - behind[name]) / (2 * _CHANGE), 0.0)
            tangent = tangent - (tangent @ basis) @ basis.T
            explained = times(weight, basis[:-1]) + times(bias, basis[-1:])
            coefficients = torch.linalg.solve_triangular(triangle, explained.T, upper=True)  # G [B, m]
            free = len(weight) * max(len(basis) - len(inputs), 1)
            outside = energy_outside(weight, explained, basis[:-1].T) + energy_outside(bias, explained, basis[-1:].T)
            rounding = _EPS**2 * (energy(weight) + energy(bias)) / (len(weight) * len(basis))
            noise = (outside / free).clamp_min(sigma**2).maximum(rounding)
            likelihood = likelihood + free * noise.log()
            normal = normal + (coefficients @ coefficients.T) * (tangent @ tangent.T) / noise
            along = torch.cat([times(part.T, coefficients.T).T for part in (weight, bias)], dim=1)
            right = right + (along * tangent).sum(dim=1) / noise  # what is explained has no part along the tangents
        if not bool(likelihood < lowest):
            break
        lowest = likelihood
        best = factor, torch.linalg.inv_ex(normal).inverse.diagonal().clamp_min(0).sqrt()
        factor = factor * (1 + torch.linalg.solve_ex(normal, right)[0].clamp(-_LARGEST, _LARGEST))
    return best


def _in_double(model: nn.Module) -> nn.Module:
    """The model in float64, but for the weights of its linear layers, of which it makes no copy."""
    linear = {id(module): _Linear(module) for module in model.modules() if type(module) is nn.Linear}
    return copy.deepcopy(model, dict(linear)).double()


class _Linear(nn.Module):
    """A linear layer with float64 in and out."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self._layer = (layer,)  # in a tuple, so that it is no part of this module, which is converted

    def forward(self, inputs: Tensor) -> Tensor:
        layer = self._layer[0]
        values = times(layer.weight, inputs.flatten(0, -2).T).T.reshape(*inputs.shape[:-1], layer.out_features)
        return values if layer.bias is None else values + layer.bias.double()


def _with_one(values: Tensor, last: float) -> Tensor:
    return torch.cat([values, torch.full_like(values[:, :1], last)], dim=1)


def _linear_inputs(model: nn.Module, images: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
    """What enters each of the linear layers in `wanted`, `[B, n_l]`."""
    found: dict[str, Tensor] = {}
    handles = [
        module.register_forward_pre_hook(lambda _, arguments, name=name: found.__setitem__(name, arguments[0]))
        for name, module in model.named_modules()
        if name in wanted
    ]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return found
