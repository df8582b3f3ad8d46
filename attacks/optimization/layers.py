"""The gradient of one layer as a function of its input and of the loss's derivative by its output.

Of a layer that is linear in its parameters, `layer(x; w)`, and a loss with derivative `delta` by its output, the
gradient g by the parameters is defined by `<g, v> = <delta, layer(x; v)>` for all v. Shapes are for R restarts of B
images in one batch `[R * B, ...]`; gradients are flat, `[R, P]` a parameter tensor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import grad as adjoint

from .convolution import geometry


class LayerGradient(ABC):
    """One layer's gradient at one candidate. `x` and `delta` carry the graph that leads back to the images.

    Args:
        module: the layer.
        targets: the observed gradient of its weight and, if it has one, of its bias, flat.
        x: its input `[R * B, ...]`.
        delta: the loss's derivative by its output.
        restarts: R.
    """

    def __init__(self, module: nn.Module, targets: Sequence[Tensor], x: Tensor, delta: Tensor, restarts: int) -> None:
        self.targets, self.restarts = targets, restarts
        self.x, self.delta = x, delta
        self.written: list[Tensor] = []

    @abstractmethod
    def write(self) -> list[Tensor]:
        """The gradient itself, without a graph: `[R, P]` for the weight and for the bias."""

    @abstractmethod
    def along(self, directions: Sequence[Tensor]) -> Tensor:
        """The sum over restarts of `<g, v>` with a graph; directions v are `[R, P]` for the weight and the bias."""

    def measure(self) -> tuple[Tensor, Tensor]:
        """The gradient's product with the observed one, and its squared norm: two `[R]` without a graph."""
        self.written = self.write()
        products = [part @ target for part, target in zip(self.written, self.targets, strict=True)]
        return sum_all(products), sum_all([(part * part).sum(1) for part in self.written])

    def pull(self, by_product: Tensor, by_square: Tensor) -> Tensor:
        """A number with a graph, whose derivative is that of the two measures weighted so, `[R]` each, and summed."""
        parts = zip(self.written, self.targets, strict=True)
        return self.along([2 * by_square[:, None] * part + by_product[:, None] * target for part, target in parts])


class LinearGradient(LayerGradient):
    """Of a linear layer, written out."""

    def __init__(self, module: nn.Linear, targets: Sequence[Tensor], x: Tensor, delta: Tensor, restarts: int) -> None:
        samples = (restarts, -1)
        x, delta = x.reshape(*samples, module.in_features), delta.reshape(*samples, module.out_features)
        super().__init__(module, targets, x, delta, restarts)

    def write(self) -> list[Tensor]:
        x, delta = self.x.detach(), self.delta.detach()
        return [(delta.mT @ x).flatten(1), delta.sum(1)][: len(self.targets)]

    def along(self, directions: Sequence[Tensor]) -> Tensor:
        weight, *bias = directions
        output = self.x @ weight.view(self.restarts, -1, self.x.shape[-1]).mT
        return (self.delta * (output + bias[0][:, None] if bias else output)).sum()


class LowRankGradient(LinearGradient):
    """Of a linear layer with few samples S, measured from S x S matrices without being written out."""

    measures: tuple[Tensor, Tensor]

    @staticmethod
    def pays(module: nn.Linear, samples: int) -> bool:
        """Whether two matrices of samples x samples cost less than one of the weight's size."""
        return samples * (module.in_features + module.out_features) < module.in_features * module.out_features

    def measure(self) -> tuple[Tensor, Tensor]:
        weight, *bias = self.targets
        output = F.linear(self.x, weight.view(-1, self.x.shape[-1]), *bias)
        product = (self.delta * output).sum((1, 2))
        similar = self.x @ self.x.mT
        square = ((similar + 1 if bias else similar) * (self.delta @ self.delta.mT)).sum((1, 2))
        self.measures = product, square
        return product.detach(), square.detach()

    def pull(self, by_product: Tensor, by_square: Tensor) -> Tensor:
        product, square = self.measures
        return (by_product * product + by_square * square).sum()


class ConvGradient(LayerGradient):
    """Of a two-dimensional convolution; R restarts are R groups of one convolution."""

    def __init__(self, module: nn.Conv2d, targets: Sequence[Tensor], x: Tensor, delta: Tensor, restarts: int) -> None:
        super().__init__(module, targets, self._grouped(x, restarts), self._grouped(delta, restarts), restarts)
        self.module = module

    @staticmethod
    def _grouped(values: Tensor, restarts: int) -> Tensor:
        """`[B, R * C, H, W]` from `[R * B, C, H, W]`."""
        if restarts == 1:
            return values
        return values.reshape(restarts, -1, *values.shape[1:]).transpose(0, 1).flatten(1, 2)

    def write(self) -> list[Tensor]:
        _, inputs, *sides = self.module.weight.shape
        shape = (self.delta.shape[1], inputs, *sides)
        x, delta = self.x.detach(), self.delta.detach()
        weight = adjoint.conv2d_weight(  # type: ignore[no-untyped-call]
            x, shape, delta, *geometry(self.module), self.restarts
        )
        return [part.reshape(self.restarts, -1) for part in (weight, delta.sum((0, 2, 3)))][: len(self.targets)]

    def along(self, directions: Sequence[Tensor]) -> Tensor:
        weight, *bias = directions
        kernel = weight.reshape(-1, *self.module.weight.shape[1:])
        output = F.conv2d(self.x, kernel, bias[0].flatten() if bias else None, *geometry(self.module), self.restarts)
        return (self.delta * output).sum()


def supported(module: nn.Module) -> bool:
    """Whether this module's gradient can be written as here."""
    if isinstance(module, nn.Conv2d):
        return module.groups == 1 and module.padding_mode == "zeros" and isinstance(module.padding, tuple)
    return type(module) is nn.Linear


def of(module: nn.Module, targets: Sequence[Tensor], x: Tensor, delta: Tensor, restarts: int) -> LayerGradient:
    """The gradient of a supported layer; see `LayerGradient` for the arguments."""
    if isinstance(module, nn.Conv2d):
        return ConvGradient(module, targets, x, delta, restarts)
    assert isinstance(module, nn.Linear)  # the only other kind that is supported
    samples = x.numel() // module.in_features // restarts
    kind = LowRankGradient if LowRankGradient.pays(module, samples) else LinearGradient
    return kind(module, targets, x, delta, restarts)


def sum_all(parts: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of one shape."""
    return torch.stack(list(parts)).sum(0)


@dataclass
class Calls:
    """What one layer saw while it was recorded: how often it was called, its last input and output."""

    count: int = 0
    input: Tensor = field(default_factory=lambda: torch.empty(0))
    output: Tensor = field(default_factory=lambda: torch.empty(0))


@contextmanager
def recorded(model: nn.Module, names: Sequence[str]) -> Iterator[Mapping[str, Calls]]:
    """Note the inputs and outputs of layers, by name, while the body runs the model."""
    calls = {name: Calls() for name in names}

    def listen(name: str) -> object:
        def note(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            calls[name] = Calls(calls[name].count + 1, arguments[0], output)

        return model.get_submodule(name).register_forward_hook(note)

    handles = [listen(name) for name in calls]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()  # type: ignore[attr-defined]
