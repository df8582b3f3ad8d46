"""Steps of the layers that have weights; see `steps.py`.

R restarts of B images are one batch `[R * B, ...]`. A layer's gradient is flat, `[R, P]`: the weight's entries in the
order that `in_memory_order` gives, then those of the bias if there is one.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .steps import Step


class Weighted(Step):
    """Of a layer that is linear in its weight and bias.

    Args:
        module: the layer.
        target: its observed gradient `[P]`.
        x: its input.
        restarts: R.
    """

    def __init__(self, module: nn.Linear | nn.Conv2d, target: Tensor, x: Tensor, restarts: int) -> None:
        self.weight, self.bias = module.weight, module.bias
        self.target, self.x, self.restarts = target, x, restarts

    @abstractmethod
    def write(self) -> Tensor:
        """The gradient itself: `[R, P]`."""

    @abstractmethod
    def move(self, direction: Tensor) -> None:
        """Let the weight and the bias move along this: `[R, P]`."""

    def measure(self) -> tuple[Tensor, Tensor]:
        """The gradient's product with the observed one, and its squared norm: `[R]` each."""
        self.written = self.write()
        return self.written @ self.target, torch.linalg.vecdot(self.written, self.written)

    def follow(self, of_target: Tensor, of_gradient: Tensor) -> None:
        """Let the weights move along the observed gradient and their own, so much of each: `[R, 1]`."""
        self.move(torch.addcmul(of_target * self.target, of_gradient, self.written))


class Linear(Weighted):
    """Of a linear layer. With few samples S its measures and products come from S x S matrices, and its gradient is
    never written: the squared norm is `sum((x x^T) * (delta delta^T))`.
    """

    moved: Tensor  # the layer with the direction in place of its weights, at x: [samples, out]
    returned: Tensor  # its derivative by x, at delta: [samples, in]

    def __init__(self, module: nn.Linear, target: Tensor, x: Tensor, restarts: int) -> None:
        super().__init__(module, target, x, restarts)
        self.output = F.linear(x, self.weight, self.bias)
        samples, (outputs, inputs) = x.numel() // x.shape[-1] // restarts, self.weight.shape
        self.few = samples * (inputs + outputs) < inputs * outputs

    def _split(self) -> tuple[Tensor, Tensor]:
        """x and delta as `[R, S, ...]`."""
        x, delta = (values.reshape(self.restarts, -1, values.shape[-1]) for values in (self.x, self.delta))
        return x, delta

    def _by_tensor(self, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """The weight's part `[..., out, in]` and the bias's `[..., out]` of `[..., P]`."""
        size = self.weight.numel()
        weight = values[..., :size].view(*values.shape[:-1], *self.weight.shape)
        return weight, None if self.bias is None else values[..., size:]

    def back(self, delta: Tensor) -> Tensor:
        return delta @ self.weight

    def write(self) -> Tensor:
        x, delta = self._split()
        written = x.new_empty(self.restarts, len(self.target))
        weight, bias = self._by_tensor(written)
        torch.bmm(delta.mT, x, out=weight)
        if bias is not None:
            torch.sum(delta, 1, out=bias)
        return written

    def move(self, direction: Tensor) -> None:
        x, delta = self._split()
        weight, bias = self._by_tensor(direction)
        moved = x @ weight.mT
        self.moved = (moved if bias is None else moved + bias[:, None]).flatten(0, 1)
        self.returned = (delta @ weight).flatten(0, 1)

    def measure(self) -> tuple[Tensor, Tensor]:
        if not self.few:
            return super().measure()
        x, delta = self._split()
        self.observed = F.linear(x, *self._by_tensor(self.target))
        self.similar = x @ x.mT if self.bias is None else x @ x.mT + 1
        self.agree = delta @ delta.mT
        product = torch.linalg.vecdot(delta.flatten(1), self.observed.flatten(1))
        return product, torch.linalg.vecdot(self.similar.flatten(1), self.agree.flatten(1))

    def follow(self, of_target: Tensor, of_gradient: Tensor) -> None:
        if not self.few:
            super().follow(of_target, of_gradient)
            return
        x, delta = self._split()
        of_target, of_gradient = of_target[..., None], of_gradient[..., None]
        self.moved = torch.baddbmm(of_target * self.observed, of_gradient * self.similar, delta).flatten(0, 1)
        back = (of_target * delta) @ self._by_tensor(self.target)[0]
        self.returned = torch.baddbmm(back, of_gradient * self.agree, x).flatten(0, 1)

    def tangent(self, dx: Tensor | None) -> Tensor:
        if dx is None:
            return self.moved.view_as(self.output)
        return torch.addmm(self.moved, dx.flatten(0, -2), self.weight.mT).view_as(self.output)

    def back_tangent(self, d_delta: Tensor) -> Tensor:
        return torch.addmm(self.returned, d_delta.flatten(0, -2), self.weight).view_as(self.x)


class Conv2d(Weighted):
    """Of a two-dimensional convolution without groups, with zero padding; R restarts are R groups of another."""

    def __init__(self, module: nn.Conv2d, target: Tensor, x: Tensor, restarts: int) -> None:
        super().__init__(module, target, x, restarts)
        self.geometry = module.stride, module.padding, module.dilation
        self.output = self._forward(x, self.weight, self.bias, 1)

    def _forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        return F.conv2d(x, weight, bias, *self.geometry, groups)  # type: ignore[arg-type]

    def _adjoint(self, x: Tensor, delta: Tensor, weight: Tensor, groups: int, by_weight: bool) -> Tensor:
        """The derivative of `<delta, convolution of x>` by x or by the weight."""
        options = (*self.geometry, False, [0, 0], groups, [not by_weight, by_weight, False])
        found: Tensor = torch.ops.aten.convolution_backward(delta, x, weight, None, *options)[int(by_weight)]
        return found

    def _grouped(self, values: Tensor) -> Tensor:
        """`[B, R * C, H, W]` from `[R * B, C, H, W]`."""
        if self.restarts == 1:
            return values
        return values.reshape(self.restarts, -1, *values.shape[1:]).transpose(0, 1).flatten(1, 2)

    def _ungrouped(self, values: Tensor) -> Tensor:
        if self.restarts == 1:
            return values
        return values.reshape(len(values), self.restarts, -1, *values.shape[2:]).transpose(0, 1).flatten(0, 1)

    def back(self, delta: Tensor) -> Tensor:
        return self._adjoint(self.x, delta, self.weight, 1, by_weight=False)

    def write(self) -> Tensor:
        outputs, *shape = self.weight.shape
        some = self.weight if self.restarts == 1 else self.weight.new_empty(1).expand(self.restarts * outputs, *shape)
        x, delta = self._grouped(self.x), self._grouped(self.delta)
        found = self._adjoint(x, delta, some, self.restarts, by_weight=True)
        weight = found.permute(0, 2, 3, 1).reshape(self.restarts, -1)
        if self.bias is None:
            return weight
        return torch.cat([weight, delta.sum((0, 2, 3)).view(self.restarts, -1)], 1)

    def move(self, direction: Tensor) -> None:
        _, inputs, *sides = self.weight.shape
        size = self.weight.numel()
        self.direction = direction[:, :size].reshape(-1, *sides, inputs).permute(0, 3, 1, 2)
        self.bias_direction = None if self.bias is None else direction[:, size:].flatten()

    def tangent(self, dx: Tensor | None) -> Tensor:
        if dx is not None and self.restarts == 1:  # one convolution of twice the channels
            weights = torch.cat([self.direction, self.weight], 1)
            return self._forward(torch.cat([self.x, dx], 1), weights, self.bias_direction, 1)
        moved = self._forward(self._grouped(self.x), self.direction, self.bias_direction, self.restarts)
        moved = self._ungrouped(moved)
        return moved if dx is None else moved + self._forward(dx, self.weight, None, 1)

    def back_tangent(self, d_delta: Tensor) -> Tensor:
        if self.restarts == 1:
            weights = torch.cat([self.direction, self.weight])
            return self._adjoint(self.x, torch.cat([self.delta, d_delta], 1), weights, 1, by_weight=False)
        x, delta = self._grouped(self.x), self._grouped(self.delta)
        returned = self._adjoint(x, delta, self.direction, self.restarts, by_weight=False)
        return self._ungrouped(returned) + self.back(d_delta)


def in_memory_order(weight: Tensor) -> Tensor:
    """A weight or bias, flat in the order that its `Weighted` step gives gradients in: output, row, column, input."""
    return (weight.permute(0, 2, 3, 1) if weight.ndim == 4 else weight).flatten()
