"""Which layers of a network the linear-layer attacks read: one finder for all of them.

What the graph of calls promises is checked by sending random images through: a layer is fed by the images if what
enters it is their pixels, unchanged and in their order.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, fx, nn

from gibench.attack import shared_with
from gibench.text import one_line

from .activation import KNOWN, RELU, Activation, activation_at
from .products import row_norms

_PASSES_THROUGH = (nn.Flatten, nn.Identity)
_RESHAPES = {"flatten", "view", "reshape", "contiguous", "size", "shape"}
_PROBES = 2  # random images


@dataclass(frozen=True)
class InputLayer:
    """The linear layer that is fed by the flattened input and followed by an activation."""

    name: str  # of the module, as in model.named_modules()
    weight: Tensor  # [m, n]
    bias: Tensor  # [m]
    original: Tensor | None = None  # [m, n], where `weight` is in other coordinates of the inputs
    activation: Activation = RELU

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
        """This layer's part of a gradient: `dL/dW [m, n]` and `dL/db [m]`."""
        return gradient[f"{self.name}.weight"], gradient[f"{self.name}.bias"]


def find_first_linear(model: nn.Module, image_shape: tuple[int, int, int]) -> str:
    """The name of the linear layer that the images enter, flattened and unchanged, once; an empty text if none.

    Random images are sent through the model in the mode in which it is: dropout before the layer shows. Its buffers and
    the global generators are left as they were.
    """
    parameter = next(model.parameters())
    generator = torch.Generator(parameter.device).manual_seed(0)
    images = torch.randn(_PROBES, *image_shape, generator=generator, device=parameter.device, dtype=parameter.dtype)
    entered: dict[str, list[Tensor]] = {}

    def listener(name: str) -> object:
        def listen(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            entered.setdefault(name, []).append(arguments[0])

        return listen

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    handles = [module.register_forward_pre_hook(listener(name)) for name, module in layers]  # type: ignore[arg-type]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with torch.no_grad(), torch.random.fork_rng([parameter.device] if parameter.is_cuda else []):
            model(images)
    finally:
        for handle in handles:
            handle.remove()
        for buffer, before in buffers:
            buffer.copy_(before)
    flat = images.flatten(1)
    return next((name for name, values in entered.items() if len(values) == 1 and torch.equal(values[0], flat)), "")


def find_input_layer(model: nn.Module, image_shape: tuple[int, int, int]) -> InputLayer | str:
    """The layer that attacks on activation patterns work on, or the reason why this model has none."""
    layer = _traced(model)
    if isinstance(layer, str):
        return layer
    size, takes = math.prod(image_shape), layer.weight.shape[1]
    if takes != size:
        return f"needs a first layer fed by the whole image of {size} values, and layer '{layer.name}' takes {takes}"
    if shared := shared_with(model, f"{layer.name}.weight") or shared_with(model, f"{layer.name}.bias"):
        return f"needs a first layer of its own, and layer '{layer.name}' shares '{shared}', whose gradient is of both"
    if find_first_linear(model, image_shape) != layer.name:
        return f"needs a first layer fed by the image as it is, once, and what enters layer '{layer.name}' is not that"
    return layer


def _traced(model: nn.Module) -> InputLayer | str:
    """What the graph of calls says: a linear layer that only reshaping comes before and a known activation after.

    Reshaping is taken at its word here.
    """
    try:
        graph = fx.symbolic_trace(model).graph
    except Exception as error:  # fx raises whatever the model's own control flow raises; it becomes the reason shown
        return f"the model cannot be traced to find its first layer ({type(error).__name__}: {one_line(error)})"
    modules = dict(model.named_modules())
    layer: tuple[str, nn.Linear] | None = None
    reached = {node for node in graph.nodes if node.op == "placeholder"}
    for node in graph.nodes:
        if node.op == "placeholder" or not any(argument in reached for argument in node.all_input_nodes):
            continue
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if layer is None and (isinstance(module, _PASSES_THROUGH) or _reshapes(node)):
            reached.add(node)
        elif layer is None and isinstance(module, nn.Linear):
            layer, reached = (str(node.target), module), {node}
        elif layer is None:
            kind = type(module).__name__ if module else node.name
            return f"needs a linear layer fed by the input, and this model begins with {kind}"
        elif (activation := activation_at(node, modules)) is None:
            kind = type(module).__name__ if module else "the model's output" if node.op == "output" else node.name
            others = f", nor another of the activations that `layer-pair` knows ({KNOWN})" if module else ""
            return f"needs a ReLU right after the first linear layer, which {kind} is not{others}"
        else:
            name, linear = layer
            if linear.bias is None:
                return f"needs a bias in the first linear layer ('{name}' has none) to find the scale of each image"
            return InputLayer(name, linear.weight.detach(), linear.bias.detach(), activation=activation)
    return "needs a linear layer fed by the input and an activation after it, and this model has no such pair"


def _reshapes(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name in _RESHAPES or node.target in (operator.getitem, getattr)


def next_linear(model: nn.Module, layer: InputLayer) -> str | None:
    """The name of the linear layer that the activation after `layer` feeds, alone; None where there is none.

    It must be called once, else its gradient is of other inputs too.
    """
    modules = dict(model.named_modules())
    calls = [str(node.target) for node in fx.symbolic_trace(model).graph.nodes if node.op == "call_module"]
    chain = _chain(model, layer.name)
    name = str(chain[2].target) if len(chain) > 2 else ""
    return name if isinstance(modules.get(name), nn.Linear) and calls.count(name) == 1 else None


def followed_by_relu(model: nn.Module, name: str) -> bool:
    """Whether the layer of this name, called once, feeds a ReLU and nothing else."""
    chain = _chain(model, name)
    return len(chain) > 1 and activation_at(chain[1], dict(model.named_modules())) == RELU


def head_after(model: nn.Module, layer: InputLayer) -> str | None:
    """The name of the linear layer after the activation after `layer`, if its output is the model's; None else."""
    return next_linear(model, layer) if len(_chain(model, layer.name)) == 4 else None


def last_called(model: nn.Module) -> str | None:
    """The name of the module whose output is the model's, or None if no module's is or the model cannot be traced."""
    try:
        nodes = list(fx.symbolic_trace(model).graph.nodes)
    except Exception:  # whatever the model's own control flow makes fx raise: `analytic` says why it certifies nothing
        return None
    value = nodes[-1].args[0]
    return str(value.target) if isinstance(value, fx.Node) and value.op == "call_module" else None


def _chain(model: nn.Module, name: str) -> list[fx.Node]:
    """The call of the layer and what follows it as long as each feeds one other alone; the model's output counts."""
    nodes = fx.symbolic_trace(model).graph.nodes
    chain = [next(node for node in nodes if node.op == "call_module" and node.target == name)]
    while len(chain[-1].users) == 1:
        chain.append(next(iter(chain[-1].users)))
    return chain
