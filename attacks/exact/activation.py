"""Elementwise activations: what they make of a neuron, and how steeply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from gibench.graph import is_relu

_TELLS = 0.1  # a slope from which on what a neuron sends tells of what it received
_STEADY = 0.1  # no second derivative of a smooth one is above 1: over so much its slope changes by no more


@dataclass(frozen=True)
class Activation:
    """A function of each number by itself: smooth, or of slope 1 above zero and another one below."""

    name: str
    function: Callable[[Tensor], Tensor]
    below: float | None = None  # the slope below zero; None of a smooth one

    @property
    def smooth(self) -> bool:
        """Whether it has no kink; else it is homogeneous: twice the input gives twice the output."""
        return self.below is None

    @property
    def sparse(self) -> bool:
        """Whether it is a ReLU: what it does not let through is zero, and so is what comes back there."""
        return self.below == 0

    def with_slopes(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """What it makes of values, which it may overwrite, and its slopes there; a ReLU's are booleans."""
        if self.sparse:
            seen = values.relu_()
            return seen, seen > 0
        if self.smooth:
            seen, pull, *_ = torch.func.vjp(self.function, values)
            return seen, pull(torch.ones_like(seen))[0]
        slopes = self.slopes(values)
        return values * slopes, slopes

    def slopes(self, values: Tensor) -> Tensor:
        """Its slopes at values; a ReLU's are booleans."""
        if self.smooth:
            return self.with_slopes(values)[1]
        return values > 0 if self.sparse else torch.ones_like(values).masked_fill(values <= 0, self.below or 0.0)

    def tells(self, slopes: Tensor) -> Tensor:
        """Where what is sent tells of what was received, booleans."""
        return slopes if self.sparse else slopes.abs() >= _TELLS

    def turns(self, values: Tensor, reach: Tensor) -> Tensor:
        """Where the slope may be another within a distance of values, booleans."""
        return reach > _STEADY if self.smooth else values.abs() <= reach

    def apart(self, values: Tensor, others: Tensor, least: Tensor) -> Tensor:
        """Where the tangent at values misses what it makes of others, by `least` of a smooth one, booleans."""
        seen, slopes = self.with_slopes(values.clone())
        if not self.smooth:
            return slopes != self.slopes(others)
        return (self.function(others) - seen - slopes * (others - values)).abs() > least


RELU = Activation("ReLU", torch.relu, 0.0)
_SILU, _TANH = Activation("SiLU", F.silu), Activation("Tanh", torch.tanh)
_SIGMOID = Activation("Sigmoid", torch.sigmoid)


def _leaky(below: float) -> Activation:
    return Activation("LeakyReLU", partial(F.leaky_relu, negative_slope=below), float(below))


def _gelu(approximate: str) -> Activation:
    return Activation("GELU", partial(F.gelu, approximate=approximate))


_MODULES: dict[type[nn.Module], Callable[[Any], Activation]] = {
    nn.LeakyReLU: lambda module: _leaky(module.negative_slope),
    nn.GELU: lambda module: _gelu(module.approximate),
    nn.SiLU: lambda _: _SILU,
    nn.Tanh: lambda _: _TANH,
    nn.Sigmoid: lambda _: _SIGMOID,
}
_CALLS: dict[Any, Callable[..., Activation]] = {  # of what follows the numbers, as torch takes it
    F.leaky_relu: lambda negative_slope=0.01, inplace=False: _leaky(negative_slope),
    F.gelu: lambda approximate="none": _gelu(approximate),
    F.silu: lambda inplace=False: _SILU,
    **dict.fromkeys((F.tanh, torch.tanh, torch.tanh_, "tanh", "tanh_"), lambda: _TANH),
    **dict.fromkeys((F.sigmoid, torch.sigmoid, torch.sigmoid_, "sigmoid", "sigmoid_"), lambda: _SIGMOID),
}
KNOWN = ", ".join((RELU.name, *(module.__name__ for module in _MODULES)))


def activation_at(node: fx.Node, modules: Mapping[str, nn.Module]) -> Activation | None:
    """The activation that a node of a network applies; None where it is none, or none that is known."""
    if is_relu(node, modules):
        return RELU
    if node.op == "call_module":
        module = modules.get(str(node.target))
        make = _MODULES.get(type(module)) if module is not None else None
        return None if make is None else make(module)
    given = {name: value for name, value in node.kwargs.items() if name != "input"}
    call = _CALLS.get(node.target) if len(node.all_input_nodes) == 1 else None
    return None if call is None else call(*node.args[1:], **given)
