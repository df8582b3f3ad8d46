"""Steps of the layers that have weights; see `steps.py`.

R restarts of B images are one batch `[R * B, ...]`; gradients by weights are flat, `[R, P]` a parameter.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .steps import Step


class Weighted(Step):
    """Of a layer that is linear in its weight and bias.

    Args:
        module: the layer.
        targets: the observed gradient of its weight and, if it has one, of its bias, flat.
        x: its input.
        restarts: R.
    """

    def __init__(self, module: nn.Linear | nn.Conv2d, targets: Sequence[Tensor], x: Tensor, restarts: int) -> None:
        self.weight, self.bias = module.weight, module.bias
        self.targets, self.x, self.restarts = targets, x, restarts

    @abstractmethod
    def write(self) -> list[Tensor]:
        """The gradient itself: `[R, P]` for the weight and for the bias."""

    @abstractmethod
    def move(self, directions: Sequence[Tensor]) -> None:
        """Let the weights move along these: `[R, P]` for the weight and for the bias."""

    def measure(self) -> tuple[Tensor, Tensor]:
        """The gradient's product with the observed one, and its squared norm: `[R]` each."""
        self.written = self.write()
        products = [part @ target for part, target in zip(self.written, self.targets, strict=True)]
        squares = [torch.linalg.vecdot(part, part) for part in self.written]
        return torch.stack(products).sum(0), torch.stack(squares).sum(0)

    def follow(self, by_product: Tensor, by_square: Tensor) -> None:
        """Let the weights move along the derivative of the two measures weighted so, `[R]` each, and summed."""
        parts = zip(self.written, self.targets, strict=True)
        self.move([by_product[:, None] * target + (2 * by_square)[:, None] * part for part, target in parts])


class Linear(Weighted):
    """Of a linear layer. With few samples S its measures and products come from S x S matrices, and its gradient is
    never written: the squared norm is `sum((x x^T) * (delta delta^T))`.
    """

    moved: Tensor  # the layer with the direction in place of its weights, at x: [samples, out]
    returned: Tensor  # its derivative by x, at delta: [samples, in]

    def __init__(self, module: nn.Linear, targets: Sequence[Tensor], x: Tensor, restarts: int) -> None:
        super().__init__(module, targets, x, restarts)
        self.output = F.linear(x, self.weight, self.bias)
        samples, (outputs, inputs) = x.numel() // x.shape[-1] // restarts, self.weight.shape
        self.few = samples * (inputs + outputs) < inputs * outputs

    def _split(self) -> tuple[Tensor, Tensor]:
        """x and delta as `[R, S, ...]`."""
        x, delta = (values.reshape(self.restarts, -1, values.shape[-1]) for values in (self.x, self.delta))
        return x, delta

    def back(self, delta: Tensor) -> Tensor:
        return delta @ self.weight

    def write(self) -> list[Tensor]:
        x, delta = self._split()
        return [(delta.mT @ x).flatten(1), delta.sum(1)][: len(self.targets)]

    def move(self, directions: Sequence[Tensor]) -> None:
        x, delta = self._split()
        weight, *bias = directions
        weight = weight.view(self.restarts, *self.weight.shape)
        moved = x @ weight.mT
        self.moved = (moved + bias[0][:, None] if bias else moved).flatten(0, 1)
        self.returned = (delta @ weight).flatten(0, 1)

    def measure(self) -> tuple[Tensor, Tensor]:
        if not self.few:
            return super().measure()
        x, delta = self._split()
        weight, *bias = self.targets
        self.observed = F.linear(x, weight.view_as(self.weight), *bias)
        self.similar = x @ x.mT + 1 if bias else x @ x.mT
        self.agree = delta @ delta.mT
        product = torch.linalg.vecdot(delta.flatten(1), self.observed.flatten(1))
        return product, torch.linalg.vecdot(self.similar.flatten(1), self.agree.flatten(1))

    def follow(self, by_product: Tensor, by_square: Tensor) -> None:
        if not self.few:
            super().follow(by_product, by_square)
            return
        x, delta = self._split()
        by_product, by_square = by_product[:, None, None], 2 * by_square[:, None, None]
        self.moved = torch.baddbmm(by_product * self.observed, by_square * self.similar, delta).flatten(0, 1)
        back = (by_product * delta) @ self.targets[0].view_as(self.weight)
        self.returned = torch.baddbmm(back, by_square * self.agree, x).flatten(0, 1)

    def tangent(self, dx: Tensor | None) -> Tensor:
        if dx is None:
            return self.moved.view_as(self.output)
        return torch.addmm(self.moved, dx.flatten(0, -2), self.weight.mT).view_as(self.output)

    def back_tangent(self, d_delta: Tensor) -> Tensor:
        return torch.addmm(self.returned, d_delta.flatten(0, -2), self.weight).view_as(self.x)


class Conv2d(Weighted):
    """Of a two-dimensional convolution without groups, with zero padding; R restarts are R groups of another.

    Its weights are flat in the order output, row, column, input, as they lie in memory: see `in_memory_order`.
    """

    def __init__(self, module: nn.Conv2d, targets: Sequence[Tensor], x: Tensor, restarts: int) -> None:
        super().__init__(module, targets, x, restarts)
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

    def write(self) -> list[Tensor]:
        outputs, *shape = self.weight.shape
        some = self.weight if self.restarts == 1 else self.weight.new_empty(1).expand(self.restarts * outputs, *shape)
        x, delta = self._grouped(self.x), self._grouped(self.delta)
        found = self._adjoint(x, delta, some, self.restarts, by_weight=True)
        parts = found.permute(0, 2, 3, 1), delta.sum((0, 2, 3))
        return [part.reshape(self.restarts, -1) for part in parts][: len(self.targets)]

    def move(self, directions: Sequence[Tensor]) -> None:
        weight, *bias = directions
        _, inputs, *sides = self.weight.shape
        self.direction = weight.reshape(-1, *sides, inputs).permute(0, 3, 1, 2)
        self.bias_direction = bias[0].flatten() if bias else None

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
    """A weight or bias, flat in the order that its `Weighted` step gives gradients in."""
    return (weight.permute(0, 2, 3, 1) if weight.ndim == 4 else weight).flatten()
