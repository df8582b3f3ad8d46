"""A network as a chain of linear and convolutional layers, each with an activation that can be inverted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from gibench.graph import trace
from gibench.text import one_line

_EDGE = 1e-7  # of the range of a sigmoid: nearer to its ends float32 tells nothing apart
_DEAD = 1e-5  # of the largest activation: what a ReLU gives below it may be zero
_RESHAPES = (torch.flatten, "flatten", "view", "reshape")


def _everywhere(given: Tensor) -> Tensor:
    return torch.ones_like(given, dtype=torch.bool)


@dataclass(frozen=True)
class Activation:
    """An activation by what it gave: what it was given, its slope there, and where that is known."""

    invert: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    known: Callable[[Tensor], Tensor] = _everywhere


@dataclass(frozen=True)
class Layer:
    """A layer with parameters, and what its output goes through before the next one."""

    name: str
    module: nn.Linear | nn.Conv2d
    shape: tuple[int, ...]  # of its input, without the batch
    activation: Activation | None  # None after the last layer

    @property
    def weight(self) -> Tensor:
        return self.module.weight.detach().double()

    @property
    def bias(self) -> Tensor:
        """One number a channel, zero where the layer has none."""
        bias = self.module.bias
        return self.weight.new_zeros(len(self.weight)) if bias is None else bias.detach().double()


def _leaky(slope: float) -> Activation:
    """ReLU for a slope of zero, which leaves nothing of what is below it."""
    known = _everywhere if slope else _above_zero
    return Activation(
        lambda given: torch.where(given > 0, given, given / slope if slope else torch.zeros_like(given)),
        lambda given: torch.where(known(given) & (given > 0), 1.0, slope).to(given),
        known,
    )


def _above_zero(given: Tensor) -> Tensor:
    return given > _DEAD * given.abs().max()


_SIGMOID = Activation(lambda given: given.logit(_EDGE), lambda given: (given * (1 - given)).clamp_min(0))
_TANH = Activation(
    lambda given: given.clamp(_EDGE - 1, 1 - _EDGE).atanh(), lambda given: (1 - given.square()).clamp_min(0)
)
_CALLS: Mapping[Any, Activation] = {
    F.relu: _leaky(0.0),
    torch.relu: _leaky(0.0),
    torch.sigmoid: _SIGMOID,
    torch.tanh: _TANH,
}


def read_chain(model: nn.Module, image_shape: tuple[int, int, int]) -> list[Layer] | str:
    """The layers from the first to the last, or why the network is no such chain."""
    try:
        traced = trace(model)
    except Exception as error:  # fx raises whatever the model's own control flow raises; it becomes the reason shown
        return f"the model cannot be traced ({type(error).__name__}: {one_line(error)})"
    modules, nodes = dict(traced.named_modules()), list(traced.graph.nodes)
    called = [(node, modules.get(str(node.target)) if node.op == "call_module" else None) for node in nodes[1:-1]]
    for node, before in zip(nodes[1:], nodes, strict=False):
        if node.all_input_nodes != [before]:
            return f"needs a chain of layers, and '{node.name}' takes more or other than what is before it"
    if reasons := [reason for node, module in called if (reason := _unfit(node, module))]:
        return reasons[0]
    if not called or not isinstance(called[-1][1], nn.Linear):
        return "needs a linear layer that gives the logits"
    names = [str(node.target) for node, module in called if isinstance(module, nn.Linear | nn.Conv2d)]
    if repeated := [name for name in names if names.count(name) > 1]:
        return f"needs layers that are called once, and '{repeated[0]}' is called again"
    like = next(model.parameters())
    with torch.no_grad():
        ShapeProp(traced).propagate(torch.zeros(1, *image_shape, dtype=like.dtype, device=like.device))
    return _layers(called)


def _layers(called: list[tuple[fx.Node, nn.Module | None]]) -> list[Layer] | str:
    found: list[Layer] = []
    following: Activation | None = None
    for node, module in reversed(called):
        activation = _activation(node, module)
        if isinstance(module, nn.Linear | nn.Conv2d):
            if found and following is None:
                return f"needs an activation after each layer but the last, and '{node.target}' has none"
            shape = tuple(node.all_input_nodes[0].meta["tensor_meta"].shape[1:])
            if isinstance(module, nn.Linear) and len(shape) != 1:
                return f"needs linear layers that take one row an image, and '{node.target}' takes more"
            found.append(Layer(str(node.target), module, shape, following))
            following = None
        elif activation is not None and following is not None:
            return f"needs one activation after each layer, and '{node.name}' is followed by another"
        else:
            following = activation or following
    return f"needs a layer with weights before '{called[0][0].name}'" if following else found[::-1]


def _activation(node: fx.Node, module: nn.Module | None) -> Activation | None:
    if isinstance(module, nn.ReLU):
        return _leaky(0.0)
    if isinstance(module, nn.LeakyReLU):
        return _leaky(module.negative_slope)
    plain: Mapping[type, Activation] = {nn.Sigmoid: _SIGMOID, nn.Tanh: _TANH}
    return plain.get(type(module)) or _CALLS.get(node.target)


def _unfit(node: fx.Node, module: nn.Module | None) -> str:
    """Why a part of the network cannot be gone back through, or an empty text."""
    if isinstance(module, nn.Conv2d):
        if module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str):
            return f"needs convolutions without groups, padded by so many zeros, and '{node.target}' is another"
        return ""
    if isinstance(module, nn.LeakyReLU) and module.negative_slope <= 0:
        return f"needs activations that can be inverted, and '{node.target}' has a slope of {module.negative_slope:g}"
    passes = isinstance(module, nn.Linear | nn.Flatten | nn.Identity) or (
        isinstance(module, nn.Dropout) and not (module.training and module.p)
    )
    if passes or (module is None and node.target in _RESHAPES) or _activation(node, module) is not None:
        return ""
    kind = type(module).__name__ if module else node.name
    return f"needs linear and convolutional layers with activations that can be inverted, and this model has {kind}"
