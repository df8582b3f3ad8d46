"""Which layers of a network the linear-layer attacks read: one finder for all of them.

What enters each layer is seen by sending random images through: a layer is fed by the images if what enters it is their
pixels, unchanged and in whatever order. What follows it is read off the graph of calls.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, fx, nn

from gibench.attack import shared_with
from gibench.graph import is_plain, send_through, trace, used_elsewhere, values_used
from gibench.text import one_line

from .activation import KNOWN, RELU, Activation, activation_at
from .products import row_norms

NOT_FED = "needs a linear layer fed by the flattened images"
_ELSEWHERE = "needs a first layer of its own, and the model uses the weight of layer '{}' elsewhere too"
_PASSES_THROUGH = (nn.Flatten, nn.Unflatten, nn.Identity)
_RESHAPES = {
    *("flatten", "unflatten", "view", "reshape", "squeeze", "unsqueeze", "contiguous", "to", "float", "clone"),
    *("permute", "transpose", "movedim", "flip", "size", "dim"),
}


@dataclass(frozen=True)
class FirstLinear:
    """The linear layer that the images enter, and in which column `[n]` each of their numbers does."""

    name: str
    columns: Tensor

    def by_pixel(self, weight: Tensor) -> Tensor:
        """The layer's weight or its gradient `[m, n]`, a column for each pixel in the images' order."""
        return weight[:, self.columns] if self.moved else weight

    @cached_property
    def moved(self) -> bool:
        """Whether pixels enter in another order than that of the images."""
        return not torch.equal(self.columns, torch.arange(len(self.columns), device=self.columns.device))


@dataclass(frozen=True)
class InputLayer:
    """The linear layer that is fed by the input and followed by an activation."""

    name: str  # of the module, as in model.named_modules()
    weight: Tensor  # [m, n], a column for each pixel in the images' order
    bias: Tensor  # [m]
    original: Tensor | None = None  # [m, n], where `weight` is in other coordinates of the inputs
    activation: Activation = RELU
    first: FirstLinear | None = None  # where pixels enter in another order

    @property
    def size(self) -> int:
        """How many numbers the layer is fed an image, n."""
        return (self.weight if self.original is None else self.original).shape[1]

    @cached_property
    def norms(self) -> Tensor:
        """The length of each neuron's weights, `[m]` in float64."""
        return row_norms(self.weight if self.original is None else self.original)

    @property
    def eps(self) -> float:
        """The rounding error of the network's own arithmetic."""
        return torch.finfo((self.weight if self.original is None else self.original).dtype).eps

    def of(self, gradient: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """This layer's part of a gradient: `dL/dW [m, n]`, by pixel, and `dL/db [m]`."""
        weight = gradient[f"{self.name}.weight"]
        return weight if self.first is None else self.first.by_pixel(weight), gradient[f"{self.name}.bias"]


def find_first_linear(model: nn.Module, image_shape: tuple[int, int, int]) -> FirstLinear | None:
    """The linear layer that the images enter, flattened, in whatever order and otherwise unchanged, once."""
    entered = send_through(model, image_shape)
    for name in entered.layers:
        columns = entered.pixels(name)
        if columns is not None and is_plain(model.get_submodule(name)):
            return FirstLinear(name, columns)
    return None


def find_input_layer(model: nn.Module, image_shape: tuple[int, int, int]) -> InputLayer | str:
    """The layer that attacks on activation patterns work on, or the reason why this model has none."""
    try:
        traced = trace(model)
    except Exception as error:  # fx raises whatever the model's own control flow raises; it becomes the reason shown
        return f"the model cannot be traced to find its first layer ({type(error).__name__}: {one_line(error)})"
    first = find_first_linear(model, image_shape)
    if first is None:
        return _why_none(traced, math.prod(image_shape))
    layer = model.get_submodule(first.name)
    assert isinstance(layer, nn.Linear)
    activation = _activation_after(traced, first.name)
    if isinstance(activation, str):
        return activation
    if layer.bias is None:
        return f"needs a bias in the first linear layer ('{first.name}' has none) to find the scale of each image"
    if reason := _of_others_too(model, first.name, traced):
        return reason
    weight, bias = layer.weight.detach(), layer.bias.detach()
    return InputLayer(first.name, first.by_pixel(weight), bias, None, activation, first if first.moved else None)


def not_its_own(model: nn.Module, name: str, image_shape: tuple[int, int, int]) -> str | None:
    """Why the gradient of a linear layer's weight and bias is not of what enters that layer alone, or None.

    Of any network, whether it can be traced or not.
    """
    return _shared(model, name) or (_ELSEWHERE.format(name) if used_elsewhere(model, name, image_shape) else None)


def _of_others_too(model: nn.Module, name: str, traced: fx.GraphModule) -> str | None:
    own = f"{name}.weight", f"{name}.bias"
    elsewhere = any(node.op == "get_attr" and node.target in own for node in traced.graph.nodes)
    return _shared(model, name) or (_ELSEWHERE.format(name) if elsewhere else None)


def _shared(model: nn.Module, name: str) -> str | None:
    found = (shared_with(model, f"{name}.{kind}") for kind in ("weight", "bias"))
    shared = next(filter(None, found), None)
    return shared and f"needs a first layer of its own, and layer '{name}' shares '{shared}', whose gradient is of both"


def _why_none(traced: fx.GraphModule, size: int) -> str:
    """Why no linear layer is fed by the images, by the first of the calls that change their numbers."""
    modules = dict(traced.named_modules())
    reached = {node for node in traced.graph.nodes if node.op == "placeholder"}
    for node in traced.graph.nodes:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if node.op == "placeholder" or not any(argument in reached for argument in node.all_input_nodes):
            continue
        if isinstance(module, nn.Linear):
            name, takes = node.target, module.in_features
            if takes != size:
                return f"needs a first layer fed by the whole image of {size} values, and layer '{name}' takes {takes}"
            return f"needs a first layer fed by the image as it is, once, and what enters layer '{name}' is not that"
        if node.target is nn.functional.linear:
            return "needs a torch.nn.Linear, whose forward is torch's, and this model calls linear() as a function"
        if not (isinstance(module, _PASSES_THROUGH) or _reshapes(node)):
            return f"needs a linear layer fed by the input, and this model begins with {_kind(node, traced)}"
        reached.add(node)
    return "needs a linear layer fed by the input and an activation after it, and this model has no such pair"


def _kind(node: fx.Node, traced: fx.GraphModule) -> str:
    """What a node is, in a word."""
    if node.op == "call_module":
        return type(traced.get_submodule(str(node.target))).__name__
    return "the model's output" if node.op == "output" else str(node.name)


def _reshapes(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name in _RESHAPES or node.target in (operator.getitem, getattr)


def _activation_after(traced: fx.GraphModule, name: str) -> Activation | str:
    """The activation that alone takes what the layer of this name makes, or what else does."""
    modules, users = dict(traced.named_modules()), values_used(_call(traced, name))
    found = [activation_at(user, modules) for user in users]
    if found and found[0] is not None and found.count(found[0]) == len(found):
        return found[0]
    other = _kind(users[found.index(None)] if None in found else users[-1], traced) if users else "nothing"
    return (
        f"needs a ReLU right after the first linear layer, and it alone, which {other} is not, nor another of the "
        f"activations that `layer-pair` knows ({KNOWN})"
    )


def _call(traced: fx.GraphModule, name: str) -> fx.Node:
    """The first call of a layer."""
    calls: Iterator[fx.Node] = (node for node in traced.graph.nodes if node.op == "call_module")
    return next(node for node in calls if node.target == name)


def next_linear(model: nn.Module, layer: InputLayer) -> str | None:
    """The name of the linear layer that the activation after `layer` feeds, alone; None where there is none.

    It must be called once, and its weight be its own, else its gradient is of other inputs too.
    """
    traced = trace(model)
    calls = [str(node.target) for node in traced.graph.nodes if node.op == "call_module"]
    chain = _chain(traced, layer.name)
    name = str(chain[2].target) if len(chain) > 2 and chain[2].op == "call_module" else ""
    found = traced.get_submodule(name) if name else None
    alone = found is not None and is_plain(found) and calls.count(name) == 1
    return name if alone and _of_others_too(model, name, traced) is None else None


def followed_by_relu(model: nn.Module, name: str) -> bool:
    """Whether the layer of this name, called once, feeds a ReLU and nothing else."""
    return _activation_after(trace(model), name) == RELU


def head_after(model: nn.Module, layer: InputLayer) -> str | None:
    """The name of the linear layer after the activation after `layer`, if its output is the model's; None else."""
    return next_linear(model, layer) if len(_chain(trace(model), layer.name)) == 4 else None


def last_called(model: nn.Module) -> str | None:
    """The name of the module whose output is the model's, or None if no module's is or the model cannot be traced."""
    try:
        nodes = list(trace(model).graph.nodes)
    except Exception:  # whatever the model's own control flow makes fx raise: `analytic` says why it certifies nothing
        return None
    value = nodes[-1].args[0]
    return str(value.target) if isinstance(value, fx.Node) and value.op == "call_module" else None


def _chain(traced: fx.GraphModule, name: str) -> list[fx.Node]:
    """The call of the layer and what follows it as long as each feeds one other alone; the model's output counts."""
    chain = [_call(traced, name)]
    while len(users := values_used(chain[-1])) == 1:
        chain.append(users[0])
    return chain
