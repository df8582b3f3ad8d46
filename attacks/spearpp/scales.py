"""The scale of each image by maximum likelihood over every linear layer's gradient.

The bias gradient of the first layer alone fixes each scale, and under noise its error outweighs all others. But a
wrong scale of image i also bends its activations in every later linear layer, whose gradient `[dL/dW, dL/db] = G^T
[A, 1]` then is no combination of those activations: with G free, what they leave unexplained is minimised over the B
scales by Gauss-Newton steps, each layer weighted by its own noise. Neither labels nor the size of G are needed, so
clipping does not matter.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from gibench.observation import Observation

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
    model = copy.deepcopy(observation.model).double()
    gradient = observation.gradient()
    targets = {
        name: torch.cat([gradient[f"{name}.weight"], gradient[f"{name}.bias"][:, None]], dim=1).double()
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and {f"{name}.weight", f"{name}.bias"} <= gradient.keys()
        and module.in_features >= len(inputs)
    }
    shape = (-1, *observation.image_shape)
    factor = torch.ones_like(inputs[:, 0])
    lowest = torch.inf
    best: tuple[Tensor, Tensor] | None = None
    for _ in range(_STEPS):
        images = (inputs * factor[:, None]).view(shape)
        seen = _linear_inputs(model, images, targets)
        ahead, behind = (_linear_inputs(model, images * (1 + change), targets) for change in (_CHANGE, -_CHANGE))
        energy, normal, right = 0.0, 0.0, 0.0
        for name, target in targets.items():
            basis, triangle = torch.linalg.qr(_with_one(seen[name], 1.0).T)
            tangent = _with_one((ahead[name] - behind[name]) / (2 * _CHANGE), 0.0)
            tangent = tangent - (tangent @ basis) @ basis.T
            coefficients = torch.linalg.solve_triangular(triangle, (target @ basis).T, upper=True)  # G [B, m]
            residual = target - (target @ basis) @ basis.T
            free = len(target) * max(target.shape[1] - len(inputs), 1)
            floor = max(sigma**2, _EPS**2 * float(target.square().mean()))
            noise = (residual.square().sum() / free).clamp_min(floor)
            energy = energy + free * noise.log()
            normal = normal + (coefficients @ coefficients.T) * (tangent @ tangent.T) / noise
            right = right + ((coefficients @ residual) * tangent).sum(dim=1) / noise
        if not bool(energy < lowest):
            break
        lowest = energy
        best = factor, torch.linalg.inv_ex(normal).inverse.diagonal().clamp_min(0).sqrt()
        factor = factor * (1 + torch.linalg.solve_ex(normal, right)[0].clamp(-_LARGEST, _LARGEST))
    return best


def _with_one(values: Tensor, last: float) -> Tensor:
    return torch.cat([values, torch.full_like(values[:, :1], last)], dim=1)


def _linear_inputs(model: nn.Module, images: Tensor, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
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
