"""A trunk, the part of a network that makes features of images, as a function of each image and of its own kinks.

Where a trunk ends in a ReLU, nothing but flattening and max pooling after it, the ReLU is left out: a feature above
zero is what it was before, and of a feature that is zero it is known that it was no more than zero.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from gibench.graph import is_relu
from gibench.head import Head, find_head
from gibench.observation import Observation

from ..exact.layers import find_input_layer
from ..exact.linear_layer import unsupported

_KEEPS_ORDER = (nn.Flatten, nn.Identity, nn.MaxPool2d, nn.AdaptiveMaxPool2d)  # of what is larger
_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_DROPOUT = nn.modules.dropout._DropoutNd
_SMOOTH = (
    *(nn.Conv1d, nn.Conv2d, nn.Linear, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Identity),
    *(nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.GroupNorm, nn.LayerNorm, _BATCH_NORM, _DROPOUT),
)
_SMOOTH_CALLS: tuple[Any, ...] = (
    *(operator.add, operator.sub, operator.mul, torch.add, torch.flatten, torch.tanh, torch.sigmoid, torch.cat),
    *(F.gelu, F.silu, F.avg_pool2d, "flatten", "view", "reshape", "size", operator.getitem),
)
_APART = 1e-3  # of the largest feature: by less, arithmetic alone may change it
_COPIES = 12  # of what a trunk makes of an image at its kinks: what its derivatives hold


@dataclass(frozen=True)
class Trunk:
    """What is before the fully connected layer that is attacked, in the mode in which the client had it."""

    network: fx.GraphModule  # from what the model takes to features [N, d], before their ReLU if `rectified`
    rectified: bool
    image_shape: tuple[int, int, int]
    softness: Tensor | None = None  # [N], by how much of its input's deviation each image's kinks are rounded off

    def before(self, images: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """Features `[N, d]` of images as the model takes them, before their ReLU where they have one.

        Args:
            images: `[N, C, H, W]`.
            parameters: in the place of the trunk's own.
        """
        given = {f"network.{name}": each for name, each in (parameters or {}).items()}
        values: Tensor = torch.func.functional_call(_Softened(self.network, self.softness), given, (images,))
        return values

    def of_columns(self, points: Tensor) -> Tensor:
        """The images whose numbers are the columns of `[n, K]`."""
        return points.T.reshape(-1, *self.image_shape)

    @cached_property
    def parameters(self) -> dict[str, Tensor]:
        """The trunk's own, by their names in the model."""
        return {name: each.detach() for name, each in self.network.named_parameters()}

    @cached_property
    def bytes_each(self) -> int:
        """About what the derivatives of an image's features hold."""
        like = next(iter(self.parameters.values()), torch.zeros(1))
        count = 0

        def counted(name: str, fed: Tensor, left: Tensor, module: nn.Module | None) -> Tensor:
            nonlocal count
            count += fed.numel() + left.numel()
            return left

        with torch.no_grad():
            image = torch.zeros(1, *self.image_shape, dtype=like.dtype, device=like.device)
            count += image.numel() + self.bent(image, counted).numel()
        return _COPIES * like.element_size() * count

    @cached_property
    def unknown(self) -> str:
        """The first part of which it is not known where it has kinks; an empty text if there is none."""
        modules = dict(self.network.named_modules())
        for node in self.network.graph.nodes:
            called = modules.get(str(node.target)) if node.op == "call_module" else None
            known = node.op in ("placeholder", "output", "get_attr") or _bends(node, modules)
            if not (known or isinstance(called, _SMOOTH) or (called is None and node.target in _SMOOTH_CALLS)):
                return type(called).__name__ if called else str(node.target)
        return ""

    def bent(self, images: Tensor, at_kink: Callable[[str, Tensor, Tensor, nn.Module | None], Tensor]) -> Tensor:
        """`before`, with what goes on from each ReLU and pooling as a function says.

        Args:
            images: as the model takes them.
            at_kink: of the name of the place, what enters and leaves it, and the module if it is one.
        """
        result: Tensor = _Bent(self.network, at_kink).run(images)
        return result


class _Bent(fx.Interpreter):
    def __init__(self, network: fx.GraphModule, at_kink: Callable[..., Tensor]) -> None:
        super().__init__(network)
        self._at_kink = at_kink
        self._modules = dict(network.named_modules())

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if not _bends(n, self._modules):
            return result
        module = self._modules.get(str(n.target)) if n.op == "call_module" else None
        return self._at_kink(n.name, self.env[n.all_input_nodes[0]], result, module)


class _Softened(nn.Module):
    """A network whose ReLUs and poolings pass from one side to the other bit by bit."""

    def __init__(self, network: fx.GraphModule, softness: Tensor | None) -> None:
        super().__init__()
        self.network, self.softness = network, softness

    def forward(self, images: Tensor) -> Tensor:
        if self.softness is None:
            made: Tensor = self.network(images)
        else:
            made = _Bent(self.network, partial(_soft, self.softness)).run(images)
        return made


def _soft(softness: Tensor, name: str, fed: Tensor, left: Tensor, module: nn.Module | None) -> Tensor:
    width = (softness * fed.detach().flatten(1).std(dim=1)).view(-1, *[1] * (fed.ndim - 1))
    if isinstance(module, nn.MaxPool2d):
        each = windows(fed, module)
        return ((each / width).softmax(dim=0) * each).sum(dim=0)
    slope = module.negative_slope if isinstance(module, nn.LeakyReLU) else 0.0
    return fed * (slope + (1 - slope) * torch.sigmoid(fed / width))


def windows(fed: Tensor, pool: nn.MaxPool2d) -> Tensor:
    """What each output of a pooling is the largest of, `[window, N, C, h, w]`; beyond the edge there is nothing."""
    kernel, stride, padding, dilation = (
        each if isinstance(each, tuple) else (each, each)
        for each in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    )
    high, wide = padding
    padded = F.pad(fed, (wide, wide, high, high), value=torch.finfo(fed.dtype).min) if high or wide else fed
    rows, columns = (
        [slice(first, first + size - reach, step) for first in range(0, reach + 1, apart)]
        for size, reach, step, apart in zip(
            padded.shape[-2:],
            [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)],
            stride,
            dilation,
            strict=True,
        )
    )
    return torch.stack([padded[..., row, column] for row in rows for column in columns])


def _bends(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether it is piecewise linear, and known where it has its kinks."""
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    if isinstance(module, nn.MaxPool2d):
        return not module.ceil_mode and not module.return_indices
    return isinstance(module, nn.LeakyReLU) or is_relu(node, modules)


@dataclass(frozen=True)
class Behind:
    """A network's trunk and head, and what attacks on the head are shown."""

    trunk: Trunk
    head: Head
    shown: Observation


def behind_trunk(
    observation: Observation, refuses: Callable[[Observation], str | None] = unsupported
) -> Behind | str | None:
    """The trunk before the first linear layer on which an attack applies.

    None where that is the one that the images enter themselves, or none: `exact/linear_layer.py` says why. A text where
    there is one, but the trunk makes of an image what others or chance decide.

    Args:
        observation: of the whole network.
        refuses: why the attack does not apply to the first linear layer of an observation, or None.
    """
    model, shape = observation.model, observation.image_shape
    if refuses(observation) is None:
        return None
    head = find_head(model, shape, lambda each: refuses(each.observation(observation)) is None)
    head = head or find_head(model, shape)  # which says best why none does
    if head is None or isinstance(head, str):
        return None
    shown = head.observation(observation)
    if isinstance(find_input_layer(shown.model, shown.image_shape), str):
        return None
    if not _of_each_alone(head, observation.image_shape):
        names = {type(each).__name__ for each in head.trunk.modules() if each.training and couples(each)}
        what = f" ({' and '.join(sorted(names))} in train mode)" if names else ""
        return f"what enters layer '{head.layer}' depends on chance or on the batch's other images{what}"
    network, rectified = _unrectified(head.trunk)
    return Behind(Trunk(network, rectified, observation.image_shape), head, shown)


def couples(module: nn.Module) -> bool:
    """Whether in train mode it makes of an image what others or chance decide."""
    return isinstance(module, _BATCH_NORM) or (isinstance(module, _DROPOUT) and module.p > 0)


def _of_each_alone(head: Head, image_shape: tuple[int, int, int]) -> bool:
    """Whether features are a function of the image alone: random images are sent through in other company."""
    like = next(head.model.parameters())
    generator = torch.Generator(like.device).manual_seed(0)
    images = torch.rand(3, *image_shape, generator=generator, device=like.device, dtype=like.dtype)
    with torch.no_grad(), torch.random.fork_rng([like.device] if like.is_cuda else []):
        first, other = (
            torch.func.functional_call(
                head.trunk, {name: each.clone() for name, each in head.trunk.named_buffers()}, (company,)
            )[0]
            for company in (images[:2], images[::2])
        )
    return bool((first - other).abs().max() <= _APART * first.abs().max())


def _unrectified(trunk: fx.GraphModule) -> tuple[fx.GraphModule, bool]:
    """The trunk without the ReLU that it ends in, if it does; other ReLUs do not change what they are given."""
    modules = dict(trunk.named_modules())
    last = _last_relu(trunk.graph, modules)
    graph, known = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in trunk.graph.nodes:
        if last is not None and node is last:
            known[node] = known[node.all_input_nodes[0]]
        elif is_relu(node, modules):
            known[node] = graph.call_function(torch.relu, (known[node.all_input_nodes[0]],))
        else:
            known[node] = graph.node_copy(node, known.__getitem__)
    network = fx.GraphModule(trunk, graph)
    network.training = trunk.training
    return network, last is not None


def _last_relu(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> fx.Node | None:
    """The ReLU after which nothing changes which of two values is larger."""
    node = next(iter(reversed(graph.nodes))).all_input_nodes[0]
    while len(node.users) == 1 and not is_relu(node, modules):
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(module, _KEEPS_ORDER) and node.target not in (torch.flatten, "flatten"):
            return None
        node = node.all_input_nodes[0]
    return node if len(node.users) == 1 and is_relu(node, modules) else None
