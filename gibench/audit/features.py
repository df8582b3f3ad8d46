"""The part of a network from its first fully connected layer on: what that is fed are features of the images.

Behind a convolutional trunk no attack here reads the images themselves off exactly, but what enters the first linear
layer is to the layers after it what images are to a fully connected network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from gibench.audit.attempts import EXPLAINED, Attempt, best
from gibench.observation import Observation, Update
from gibench.text import one_line


@dataclass(frozen=True)
class Head:
    """The layers after a trunk, as a network that takes features as images of shape 1,1,`size`."""

    model: nn.Module
    layer: str  # that the features enter
    size: int

    def observation(self, whole: Observation) -> Observation:
        """What attacks on the features are shown: the head's part of the update, and what was told but the pixels."""
        kept = dict(self.model.named_parameters())
        tensors: Mapping[str, Tensor] = {name: each for name, each in whole.update.tensors.items() if name in kept}
        return replace(
            whole,
            model=self.model,
            update=Update(tensors, whole.update.kind),
            image_shape=(1, 1, self.size),
            mean=torch.zeros(1),
            std=torch.ones(1),
            prior=None,
        )


@dataclass(frozen=True)
class Features:
    """What attacks on a head found: candidates are rows of features, as the layer is fed them."""

    layer: str
    size: int  # numbers of a row
    attempts: Sequence[Attempt]

    @property
    def top(self) -> Attempt | None:
        return best(self.attempts)

    @property
    def explain(self) -> bool:
        """Whether the rows found reproduce the update of the layer and of those after it."""
        return self.top is not None and self.top.share < EXPLAINED

    @property
    def certified(self) -> int:
        """Rows that are certified exact: pixels have their grid for a second witness, features have the residual."""
        return self.top.certified if self.top and self.explain else 0

    @property
    def candidates(self) -> int:
        """Rows found."""
        return len(self.top.found.images) if self.top and self.top.found else 0

    @property
    def rank(self) -> int | None:
        """Images at least, by the rank of the layer's gradient."""
        return self.top.found.diagnostics.get("rank") if self.top and self.top.found else None


def find_head(model: nn.Module, image_shape: tuple[int, int, int]) -> Head | str | None:
    """The head of a network whose first linear layer is fed by other layers; None where there is none.

    Where the network cannot be traced, so that nobody can tell, why not, in a line.

    All that follows must depend on the images through what that layer is fed alone, and call it once.
    """
    try:
        traced = fx.symbolic_trace(model)
    except (
        Exception
    ) as error:  # fx raises whatever the model's own control flow raises; it becomes a line of the report
        return f"the network cannot be traced ({type(error).__name__}: {one_line(error)})"
    nodes, modules = list(traced.graph.nodes), dict(traced.named_modules())
    first = next((node for node in nodes if isinstance(_called(node, modules), nn.Linear)), None)
    if first is None or _fed_by_images(model, str(first.target), image_shape):
        return None
    layer = _called(first, modules)
    assert isinstance(layer, nn.Linear)
    graph = fx.Graph()
    fed = graph.call_function(torch.flatten, (graph.placeholder("features"), 1))
    known: dict[fx.Node, fx.Node] = dict.fromkeys(first.all_input_nodes, fed)
    for node in nodes[nodes.index(first) :]:
        if any(each not in known for each in node.all_input_nodes) or (
            node is not first and _called(node, modules) is layer
        ):
            return None  # a path around the features, or through the layer again
        known[node] = graph.node_copy(node, known.__getitem__)
    head = fx.GraphModule(traced, graph)
    head.train(model.training)
    return Head(head, str(first.target), layer.in_features)


def _called(node: fx.Node, modules: Mapping[str, nn.Module]) -> nn.Module | None:
    return modules.get(str(node.target)) if node.op == "call_module" else None


def _fed_by_images(model: nn.Module, name: str, image_shape: tuple[int, int, int]) -> bool:
    """Whether the layer takes the images' numbers as they are, or not one row of features an image."""
    like = next(model.parameters())
    generator = torch.Generator(like.device).manual_seed(0)
    images = torch.rand(2, *image_shape, generator=generator, device=like.device, dtype=like.dtype)
    seen: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    buffers = {each: buffer.clone() for each, buffer in model.named_buffers()}
    with torch.no_grad(), torch.random.fork_rng([like.device] if like.is_cuda else []):
        torch.func.functional_call(model, buffers, (images,))
    handle.remove()
    return seen[0].ndim != 2 or torch.equal(seen[0], images.flatten(1))
