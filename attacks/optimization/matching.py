"""The value of a gradient-matching objective at a batch of candidates, and its derivative by them.

The derivative needs the gradient of a gradient. With v the objective's slope at the candidate's parameter gradient g,
it is the derivative by the images of `<g, v>`, v held constant. Two ways, with the same result:

- `PlainMatching`, for any network: differentiate g itself.
- `LayerMatching`, for networks whose parameters are all in linear layers and convolutions: g is never differentiated,
  since `<g, v>` is the sum over layers of `<delta, layer(x; v)>`, the layer with v in place of its weights applied to
  its input x, times the loss's derivative delta by the layer's output. For the cosine, a linear layer's gradient is not
  even written out: with S samples, its squared norm is `sum((x x^T) * (delta delta^T))`, of two S x S matrices.

All R restarts are one batch: images are `[R, B, C, H, W]`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import convolution, layers, objectives

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class Match:
    """An objective's value and, for `torch.autograd.grad`, outputs and their weights that give its derivative."""

    value: Tensor  # [R]
    outputs: list[Tensor]
    weights: list[Tensor]
    inputs: dict[str, Tensor]  # what entered each watched layer, [R, B, ...]


class Matching(ABC):
    """An objective for one network and one observed gradient.

    Args:
        model: the network; it is copied, and the copy's BatchNorm layers in train mode keep no statistics.
        gradient: the observed gradient, one tensor a parameter.
        objective: its name.
        watched: layers whose inputs are wanted, see `Match.inputs`.
    """

    def __init__(
        self,
        model: nn.Module,
        gradient: Mapping[str, Tensor],
        objective: objectives.Name,
        watched: Sequence[str] = (),
    ) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        for module in self.model.modules():
            if isinstance(module, _BATCH_NORM) and module.training:
                module.running_mean = module.running_var = module.num_batches_tracked = None
                module.track_running_stats = False
        self.names = [name for name, _ in self.model.named_parameters()]
        owners = [name.rpartition(".")[0] for name in self.names]
        numbers = {owner: position for position, owner in enumerate(dict.fromkeys(owners))}
        target = [gradient[name].flatten() for name in self.names]
        self.objective = objectives.make(objective, target, [numbers[owner] for owner in owners])
        self.watched = tuple(watched)

    @abstractmethod
    def __call__(self, images: Tensor, labels: Tensor) -> Match:
        """Evaluate at images `[R, B, C, H, W]` and labels, classes `[R, B]` or probabilities `[R, B, classes]`."""


class PlainMatching(Matching):
    """For any network that can be differentiated twice."""

    def __call__(self, images: Tensor, labels: Tensor) -> Match:
        restarts = len(images)
        state = {name: parameter.detach() for name, parameter in self.model.named_parameters()}
        if restarts == 1:
            parameters = {name: value.requires_grad_() for name, value in state.items()}
            loss, inputs = self._loss(parameters, images[0], labels[0])
            inputs = {name: value[None] for name, value in inputs.items()}
        else:
            parameters = {name: value.expand(restarts, *value.shape).requires_grad_() for name, value in state.items()}
            losses, inputs = torch.vmap(self._loss, randomness="different")(parameters, images, labels)
            loss = losses.sum()
        gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        flat = [gradient.reshape(restarts, -1) for gradient in gradients]
        value, slopes = self.objective([gradient.detach() for gradient in flat])
        return Match(value, flat, slopes, inputs)

    def _loss(self, parameters: dict[str, Tensor], images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with layers.recorded(self.model, self.watched) as calls:
            logits = torch.func.functional_call(self.model, parameters, (images,))
        return F.cross_entropy(logits, labels), {name: calls[name].input for name in self.watched}


class LayerMatching(Matching):
    """For networks made of linear layers, plain convolutions and parts without parameters; see `applies`."""

    def __init__(
        self,
        model: nn.Module,
        gradient: Mapping[str, Tensor],
        objective: objectives.Name,
        watched: Sequence[str] = (),
    ) -> None:
        super().__init__(model, gradient, objective, watched)
        convolution.fix(self.model)
        self.model.to(memory_format=torch.channels_last)  # as convolutions are fastest
        self.targets: dict[str, list[Tensor]] = {}
        for name, target in zip(self.names, self.objective.target, strict=True):
            self.targets.setdefault(name.rpartition(".")[0], []).append(target)
        self.modules = {name: self.model.get_submodule(name) for name in self.targets}
        self.recorded = tuple(dict.fromkeys((*self.targets, *self.watched)))

    @staticmethod
    def applies(model: nn.Module, image_shape: tuple[int, int, int]) -> bool:
        """Whether every parameter is in such a layer of its own, and each layer is called once."""
        owners = {name: module for name, module in model.named_modules() if list(module.parameters(recurse=False))}
        parameters = [parameter for module in owners.values() for parameter in module.parameters(recurse=False)]
        if (
            not all(map(layers.supported, owners.values()))
            or any(isinstance(module, _BATCH_NORM) for module in model.modules())
            or len(set(map(id, parameters))) != len(parameters)
        ):
            return False
        with torch.no_grad(), layers.recorded(model, tuple(owners)) as calls:
            model(parameters[0].new_zeros(2, *image_shape))
        return all(calls[name].count == 1 for name in owners)

    def __call__(self, images: Tensor, labels: Tensor) -> Match:
        restarts, batch = images.shape[:2]
        with layers.recorded(self.model, self.recorded) as calls:
            logits = self.model(images.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits, labels.flatten(0, 1), reduction="sum") / batch
        deltas = torch.autograd.grad(loss, [calls[name].output for name in self.targets], create_graph=True)
        parts = [
            layers.of(self.modules[name], targets, calls[name].input, delta, restarts)
            for (name, targets), delta in zip(self.targets.items(), deltas, strict=True)
        ]
        if isinstance(self.objective, objectives.Cosine):
            products, squares = zip(*(part.measure() for part in parts), strict=True)
            value, by_product, by_square = self.objective.weigh(torch.stack(products), torch.stack(squares))
            pulls = [part.pull(*weights) for part, *weights in zip(parts, by_product, by_square, strict=True)]
        else:
            value, slopes = self.objective([gradient for part in parts for gradient in part.write()])
            left = iter(slopes)
            pulls = [part.along([next(left) for _ in part.targets]) for part in parts]
        inputs = {
            name: calls[name].input.reshape(restarts, batch, *calls[name].input.shape[1:]) for name in self.watched
        }
        return Match(value, pulls, [torch.ones_like(pull) for pull in pulls], inputs)


def make(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    gradient: Mapping[str, Tensor],
    objective: objectives.Name,
    watched: Sequence[str] = (),
) -> Matching:
    """The faster way that applies to this network; see `Matching` for the arguments."""
    way = LayerMatching if LayerMatching.applies(model, image_shape) else PlainMatching
    return way(model, gradient, objective, watched)
