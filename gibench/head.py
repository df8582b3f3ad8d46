"""The two parts of a network at one of its fully connected layers: the trunk before it, and the head from it on.

What enters that layer, an image's features, is to the layers after it what images are to a fully connected network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from gibench.graph import Entered, send_through, trace
from gibench.observation import Observation, Update
from gibench.text import one_line


@dataclass(frozen=True)
class Head:
    """The layers after a trunk, as a network that takes features as images of shape 1,1,`size`; and the trunk."""

    model: nn.Module
    layer: str  # that the features enter
    size: int
    trunk: fx.GraphModule  # from what the model takes to features [N, size]

    def observation(self, whole: Observation) -> Observation:
        """What attacks on the features are shown: the head's part of the update, and what was told but the pixels."""
        kept = dict(self.model.named_parameters())
        tensors: Mapping[str, Tensor] = {name: each for name, each in whole.update.tensors.items() if name in kept}
        device = whole.mean.device
        return replace(
            whole,
            model=self.model,
            update=Update(tensors, whole.update.kind),
            image_shape=(1, 1, self.size),
            mean=torch.zeros(1, device=device),
            std=torch.ones(1, device=device),
            prior=None,
            surrogate_data=None,
        )


def find_head(
    model: nn.Module, image_shape: tuple[int, int, int], usable: Callable[[Head], bool] | None = None
) -> Head | str | None:
    """The head of a network whose first linear layer is fed by other layers; None where there is none.

    Where the network cannot be traced, so that nobody can tell, why not, in a line.

    All that follows must depend on the images through what that layer is fed alone, and call it once. Modules are the
    model's own, in the mode in which they are.

    Args:
        model: the network.
        image_shape: C, H, W.
        usable: of a head; if given, later linear layers are asked too, and the first usable head is the one.
    """
    try:
        traced = trace(model)
    except (
        Exception
    ) as error:  # fx raises whatever the model's own control flow raises; it becomes a line of the report
        return f"the network cannot be traced ({type(error).__name__}: {one_line(error)})"
    heads = _heads(traced, send_through(model, image_shape))
    if usable is None:
        return next(heads, None)
    return next((head for head in heads if head is not None and usable(head)), None)


def _heads(traced: fx.GraphModule, entered: Entered) -> Iterator[Head | None]:
    """At each call of a linear layer, in their order; None where it parts no trunk from a head."""
    modules = dict(traced.named_modules())
    for node in traced.graph.nodes:
        layer = _called(node, modules)
        if isinstance(layer, nn.Linear):
            yield None if _fed_by_images(entered, str(node.target)) else _head_at(traced, node, layer)


def _head_at(traced: fx.GraphModule, first: fx.Node, layer: nn.Linear) -> Head | None:
    nodes = list(traced.graph.nodes)
    graph = fx.Graph()
    fed = graph.call_function(torch.flatten, (graph.placeholder("features"), 1))
    known: dict[fx.Node, fx.Node] = dict.fromkeys(first.all_input_nodes, fed)
    for node in nodes[nodes.index(first) :]:
        again = node is not first and node.target == first.target
        if again or any(each not in known for each in node.all_input_nodes):
            return None  # a path around the features, or through the layer again
        known[node] = graph.node_copy(node, known.__getitem__)
    head, trunk = _part(traced, graph), _part(traced, _graph_before(first))
    if {*head.parameters()} & {*trunk.parameters()}:
        return None  # the gradient of what both use is not the head's
    return Head(head, str(first.target), layer.in_features, trunk)


def _graph_before(first: fx.Node) -> fx.Graph:
    """What feeds the layer that a node calls, flattened."""
    graph, known = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in first.graph.nodes:
        if node is first:
            break
        known[node] = graph.node_copy(node, known.__getitem__)
    graph.output(graph.call_function(torch.flatten, (known[first.all_input_nodes[0]], 1)))
    return graph


def _part(traced: fx.GraphModule, graph: fx.Graph) -> fx.GraphModule:
    """A part of the network; the modules in it, which are the model's own, are left in their modes."""
    part = fx.GraphModule(traced, graph)
    graph.eliminate_dead_code()
    part.recompile()
    part.training = traced.training
    return part


def _called(node: fx.Node, modules: Mapping[str, nn.Module]) -> nn.Module | None:
    return modules.get(str(node.target)) if node.op == "call_module" else None


def _fed_by_images(entered: Entered, name: str) -> bool:
    """Whether the layer takes the images' numbers as they are, in any order, or not one row of features an image."""
    return entered.layers[name][0].ndim != 2 or entered.pixels(name) is not None
