"""The gradient of a gradient of a chain of layers, by hand: one layer at one point.

With y = f(x; w), delta the loss's derivative by y, and g the derivative by w, the derivative by the images of `<g, v>`,
v held constant, is the derivative of the loss by the images as it changes when the weights move along v: a forward and
a backward pass of tangents (Pearlmutter, Neural Computation 1994).

    y = f(x; w)                     tangent of y      = f'(x) dx + f(x; v)
    back = f'(x)^T delta            tangent of back   = f'(x)^T d_delta + f'(x; v)^T delta + curvature of f
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

_aten = torch.ops.aten


class Step(ABC):
    """One layer at one point. The calls come in the order of the methods; dx is None while nothing has moved."""

    x: Tensor
    output: Tensor
    delta: Tensor

    @abstractmethod
    def back(self, delta: Tensor) -> Tensor:
        """The loss's derivative by x."""

    @abstractmethod
    def tangent(self, dx: Tensor | None) -> Tensor | None:
        """How the output moves when x moves along dx, and the weights along their direction."""

    @abstractmethod
    def back_tangent(self, d_delta: Tensor) -> Tensor:
        """How the derivative by x moves when the derivative by the output moves along d_delta."""


class ReLU(Step):
    """Of `max(x, 0)`, which has no curvature."""

    def __init__(self, x: Tensor) -> None:
        self.output = x.relu()

    def back(self, delta: Tensor) -> Tensor:
        passed: Tensor = _aten.threshold_backward(delta, self.output, 0)
        return passed

    def tangent(self, dx: Tensor | None) -> Tensor | None:
        return None if dx is None else self.back(dx)

    def back_tangent(self, d_delta: Tensor) -> Tensor:
        return self.back(d_delta)


class Sigmoid(Step):
    """Of the sigmoid y, whose second derivative is `y (1 - y) (1 - 2 y)`."""

    def __init__(self, x: Tensor) -> None:
        self.output = x.sigmoid()
        self.dx: Tensor | None = None

    def back(self, delta: Tensor) -> Tensor:
        self.delta = delta
        return self._scaled(delta)

    def tangent(self, dx: Tensor | None) -> Tensor | None:
        self.dx = dx
        return None if dx is None else self._scaled(dx)

    def back_tangent(self, d_delta: Tensor) -> Tensor:
        if self.dx is None:
            return self._scaled(d_delta)
        return self._scaled(torch.addcmul(d_delta, self.delta * self.dx, torch.rsub(self.output, 1, alpha=2)))

    def _scaled(self, values: Tensor) -> Tensor:
        scaled: Tensor = _aten.sigmoid_backward(values, self.output)
        return scaled


class Reshape(Step):
    """Of a module that only gives its input another shape."""

    def __init__(self, module: nn.Module, x: Tensor) -> None:
        self.module, self.x, self.output = module, x, module(x)

    def back(self, delta: Tensor) -> Tensor:
        return laid_out_as(self.x, delta.reshape(self.x.shape))

    def tangent(self, dx: Tensor | None) -> Tensor | None:
        return None if dx is None else self.module(dx)

    def back_tangent(self, d_delta: Tensor) -> Tensor:
        return self.back(d_delta)


class MaxPool2d(Step):
    """Of the maxima of windows: the tangents are those of the entries that are the maxima."""

    def __init__(self, module: nn.MaxPool2d, x: Tensor) -> None:
        size, stride, padding = module.kernel_size, module.stride, module.padding
        self.options = [_pair(value) for value in (size, stride, padding, module.dilation)]
        self.ceil, self.x = module.ceil_mode, x
        self.output, self.places = _aten.max_pool2d_with_indices(x, *self.options, self.ceil)

    def back(self, delta: Tensor) -> Tensor:
        delta = laid_out_as(self.x, delta)
        passed = _aten.max_pool2d_with_indices_backward(delta, self.x, *self.options, self.ceil, self.places)
        return laid_out_as(self.x, passed)

    def tangent(self, dx: Tensor | None) -> Tensor | None:
        if dx is None:
            return None
        moved = dx.flatten(2).gather(2, self.places.flatten(2)).view(self.output.shape)
        return laid_out_as(self.output, moved)

    def back_tangent(self, d_delta: Tensor) -> Tensor:
        return self.back(d_delta)


class Other(Step):
    """Of any module without parameters, by differentiating it twice."""

    def __init__(self, module: nn.Module, x: Tensor) -> None:
        with torch.enable_grad():
            self.x = x.detach().requires_grad_()
            self.y: Tensor = module(self.x)
        self.output = self.y.detach()
        self.dx: Tensor | None = None

    def back(self, delta: Tensor) -> Tensor:
        with torch.enable_grad():
            self.delta = delta.detach().requires_grad_()
            (self.slope,) = torch.autograd.grad(self.y, self.x, self.delta, create_graph=True)
        return laid_out_as(self.x, self.slope.detach())

    def tangent(self, dx: Tensor | None) -> Tensor | None:
        self.dx = dx
        if dx is None:
            return None
        (moved,) = torch.autograd.grad(self.slope, self.delta, dx, retain_graph=True)  # the slope is linear in delta
        return laid_out_as(self.output, moved)

    def back_tangent(self, d_delta: Tensor) -> Tensor:
        if self.dx is None:
            return torch.autograd.grad(self.y, self.x, d_delta)[0]
        (returned,) = torch.autograd.grad([self.y, self.slope], self.x, [d_delta, self.dx])
        return laid_out_as(self.x, returned)


def laid_out_as(other: Tensor, values: Tensor) -> Tensor:
    """Values in another tensor's order of memory: mixed orders slow down everything that meets both."""
    last = other.ndim == 4 and other.is_contiguous(memory_format=torch.channels_last)
    return values.contiguous(memory_format=torch.channels_last) if last else values


def _pair(value: int | tuple[int, ...]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
