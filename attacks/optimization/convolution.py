"""A convolution whose weights stay fixed, and whose gradient of the gradient costs no more than it must.

torch's own second derivative of a convolution also computes a derivative by the weights that nobody asked for, as a
convolution with kernels the size of the image: a fifth of the time of a whole step.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import grad as adjoint

Geometry = tuple[Any, Any, Any]  # stride, padding, dilation, two numbers each


def geometry(module: nn.Conv2d) -> Geometry:
    """Stride, padding and dilation of a convolution."""
    return module.stride, module.padding, module.dilation


class _Forward(torch.autograd.Function):
    """`conv2d(x, weight)` as a function of x."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        context.save_for_backward(weight)
        context.shape, context.geometry = x.shape, geometry
        return F.conv2d(x, weight, None, *geometry)

    @staticmethod
    def backward(context: Any, *deltas: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = context.saved_tensors
        return _Backward.apply(deltas[0], weight, context.geometry, context.shape), None, None


class _Backward(torch.autograd.Function):
    """The adjoint of `_Forward` as a function of delta, the derivative by its output."""

    @staticmethod
    def forward(context: Any, delta: Tensor, weight: Tensor, geometry: Geometry, shape: torch.Size) -> Tensor:
        context.save_for_backward(weight)
        context.geometry = geometry
        x: Tensor = adjoint.conv2d_input(shape, weight, delta, *geometry)  # type: ignore[no-untyped-call]
        return x

    @staticmethod
    def backward(context: Any, *deltas: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = context.saved_tensors
        return _Forward.apply(deltas[0], weight, context.geometry), None, None, None


class FixedConv2d(nn.Conv2d):
    """An `nn.Conv2d` that is differentiated by its input alone, any number of times."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        output: Tensor = _Forward.apply(input, weight.detach(), geometry(self))
        return output if bias is None else output + bias.view(-1, 1, 1)


def fix(model: nn.Module) -> None:
    """Make every convolution of this model a `FixedConv2d`, in place; they are to be ungrouped, with zero padding."""
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = FixedConv2d
