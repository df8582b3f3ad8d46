"""What a network does to images, read off it: the graph of its calls, and what enters its linear layers."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils.hooks import RemovableHandle

_PROBES = 2  # random images
_RELU = (F.relu, torch.relu, "relu", F.relu_, torch.relu_, "relu_")
_CLAMPS = {torch.clamp, torch.clamp_min, "clamp", "clamp_min", "clamp_", "clamp_min_"}
_LEAVES = (nn.Linear, nn.ReLU)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Also a class of one's own that computes what its base does."""
        same = any(isinstance(m, each) and type(m).forward is each.forward for each in _LEAVES)
        return same or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module) -> fx.GraphModule:
    """The graph of a network's calls, in which every value is what it is where it is used.

    What uses a value after an operation has written over it uses that operation.

    Raises:
        Exception: whatever the network's own control flow raises.
    """
    traced = fx.GraphModule(model, _Tracer().trace(model))
    modules, nodes = dict(traced.named_modules()), list(traced.graph.nodes)
    for place, node in enumerate(nodes):
        if node.all_input_nodes and _writes_over(node, modules):
            later = set(nodes[place + 1 :])
            node.all_input_nodes[0].replace_all_uses_with(node, delete_user_cb=later.__contains__)
    traced.recompile()
    return traced


def is_relu(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a node is a ReLU, however it is written."""
    if node.op == "call_module":
        return isinstance(modules.get(str(node.target)), nn.ReLU)
    if node.target in _CLAMPS:
        bounds = dict(zip(("min", "max"), node.args[1:], strict=False)) | dict(node.kwargs)
        return bool(bounds.get("min") == 0 and bounds.get("max") is None)
    return node.target in _RELU


def _writes_over(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a node leaves its result where it has found its input."""
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    if node.op not in ("call_function", "call_method"):
        return False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    given = dict(node.kwargs)
    if callable(node.target):
        with suppress(TypeError, ValueError):  # a function that does not say what it takes
            given = inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments
    is_operator = getattr(node.target, "__module__", "") == operator.and_.__module__  # whose names end so for Python
    return given.get("inplace") is True or (name.endswith("_") and not name.endswith("__") and not is_operator)


def values_used(node: fx.Node) -> list[fx.Node]:
    """What uses the numbers of a node, and not their shape alone."""
    return [user for user in node.users if not _asks_for_shape(user)]


def _asks_for_shape(node: fx.Node) -> bool:
    if node.target is getattr:
        return node.args[1] in ("shape", "ndim", "device", "dtype")
    return node.op == "call_method" and node.target in ("size", "dim", "ndimension")


def is_plain(module: nn.Module) -> bool:
    """Whether a linear layer multiplies by its weight and adds its bias, and does nothing else."""
    return isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward


@dataclass(frozen=True)
class Entered:
    """Random images that were sent through a network, and what entered its linear layers at each call."""

    images: Tensor  # [N, n]
    layers: Mapping[str, list[Tensor]]

    def pixels(self, name: str) -> Tensor | None:
        """In which column `[n]` each pixel enters a layer that is fed the images, once; None where it is fed others."""
        values = self.layers.get(name, [])
        if len(values) != 1 or values[0].shape != self.images.shape:
            return None
        (fed,) = values
        if torch.equal(fed, self.images):
            return torch.arange(fed.shape[1], device=fed.device)
        by_pixel, by_column = (torch.unique(each, dim=1, return_inverse=True) for each in (self.images, fed))
        if by_pixel[0].shape != fed.shape or not torch.equal(by_pixel[0], by_column[0]):
            return None  # other numbers, or pixels that these images do not tell apart
        columns: Tensor = by_column[1].argsort()[by_pixel[1]]
        return columns


def send_through(model: nn.Module, image_shape: tuple[int, int, int]) -> Entered:
    """Send random images through a network in the mode in which it is: dropout before a layer shows.

    Its buffers and the global generators are left as they were.
    """
    entered: dict[str, list[Tensor]] = {}

    def listener(name: str) -> Any:
        return lambda _, arguments: entered.setdefault(name, []).append(arguments[0].detach().clone())

    handles = [layer.register_forward_pre_hook(listener(name)) for name, layer in _linear_layers(model)]
    with _removed(handles), torch.no_grad():
        images, _ = _answered(model, image_shape)
    return Entered(images.flatten(1), entered)


def used_elsewhere(model: nn.Module, name: str, image_shape: tuple[int, int, int]) -> bool:
    """Whether what a network makes of random images depends on a layer's parameters other than by that layer.

    It is seen by sending them through, so that no graph of calls is needed.
    """
    layer = model.get_submodule(name)
    own = [parameter for parameter in layer.parameters(recurse=False) if parameter.requires_grad]
    handle = layer.register_forward_hook(lambda _, arguments, made: made.detach())
    with _removed([handle]), torch.enable_grad():
        _, answer = _answered(model, image_shape)
        if not (own and answer.requires_grad):
            return False
        slopes = torch.autograd.grad(answer.sum(), own, allow_unused=True)
    return any(slope is not None for slope in slopes)


def _answered(model: nn.Module, image_shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Random images and what the network makes of them, its buffers and the global generators left as they were."""
    like = next(model.parameters())
    generator = torch.Generator(like.device).manual_seed(0)
    images = torch.randn(_PROBES, *image_shape, generator=generator, device=like.device, dtype=like.dtype)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.random.fork_rng([like.device] if like.is_cuda else []):
        return images, torch.func.functional_call(model, buffers, (images.clone(),))  # networks may write over theirs


@contextmanager
def _removed(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    """Take hooks away after the body."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    return ((name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear))
