"""The value of a gradient-matching objective at a batch of candidates, and its derivative by them.

The derivative needs the gradient of a gradient. With v the objective's slope at the candidate's parameter gradient g,
it is the derivative by the images of `<g, v>`, v held constant. Two ways, with the same result:

- `PlainMatching`, for any network: torch differentiates g itself.
- `ChainMatching`, for chains of linear layers, convolutions and parts without parameters: two passes of tangents, see
  `steps.py`, without a graph.

All R restarts are one batch: images are `[R, B, C, H, W]`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import chain, objectives
from .dropout import WithoutDropout
from .steps import Step
from .weighted import Weighted, in_memory_order

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
        model: the network; it is copied. The copy's BatchNorm layers in train mode keep no statistics, and its dropout
            is off: the client's masks are its secret, and without any a candidate is evaluated as it is on average.
        gradient: the observed gradient, of all parameters or, where a client sends no others, of some.
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
            elif isinstance(module, nn.RNNBase):
                module.dropout = 0.0
        named = self.model.named_parameters()
        self.parameters = {name: parameter.detach() for name, parameter in named if name in gradient}
        self.layers: dict[str, list[str]] = {}  # with the names of their parameters
        for name in self.parameters:
            self.layers.setdefault(name.rpartition(".")[0], []).append(name)
        self.objective = objectives.make(objective, *self.parts(gradient))
        self.watched = tuple(watched)

    def parts(self, gradient: Mapping[str, Tensor]) -> tuple[list[Tensor], list[int]]:
        """The gradient in flat parts as the objective sees it, and the number of each part's layer."""
        numbered = [(number, name) for number, names in enumerate(self.layers.values()) for name in names]
        return [gradient[name].flatten() for _, name in numbered], [number for number, _ in numbered]

    def logits(self, parameters: dict[str, Tensor], images: Tensor) -> Tensor:
        """What the network with these parameters makes of images `[B, C, H, W]`, without dropout."""
        with WithoutDropout():
            made: Tensor = torch.func.functional_call(self.model, parameters, (images,))
        return made

    @abstractmethod
    def __call__(self, images: Tensor, labels: Tensor) -> Match:
        """Evaluate at images `[R, B, C, H, W]` and labels, classes `[R, B]` or probabilities `[R, B, classes]`."""


class PlainMatching(Matching):
    """For any network that can be differentiated twice."""

    def __call__(self, images: Tensor, labels: Tensor) -> Match:
        return self.compare(*self.gradients(images, labels))

    def compare(self, gradients: list[Tensor], inputs: dict[str, Tensor]) -> Match:
        """With the observed gradient."""
        value, slopes = self.objective([gradient.detach() for gradient in gradients])
        moving = [(each, slope) for each, slope in zip(gradients, slopes, strict=True) if each.requires_grad]
        return Match(value, [each for each, _ in moving], [slope for _, slope in moving], inputs)

    def gradients(self, images: Tensor, labels: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The candidates' gradients, differentiable, `[R, P]` a parameter, and the watched layers' inputs."""
        return self.gradients_at(
            {name: value.expand(len(images), *value.shape).requires_grad_() for name, value in self.parameters.items()},
            images,
            labels,
        )

    def gradients_at(
        self, parameters: dict[str, Tensor], images: Tensor, labels: Tensor
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The same at other parameters, `[R, ...]` each, in which they are differentiable too."""
        if len(images) == 1:
            loss, inputs = self._loss({name: value[0] for name, value in parameters.items()}, images[0], labels[0])
            inputs = {name: value[None] for name, value in inputs.items()}
        else:
            losses, inputs = torch.vmap(self._loss, randomness="different")(parameters, images, labels)
            loss = losses.sum()
        own = list(parameters.values())
        found = torch.autograd.grad(loss, own, create_graph=True, materialize_grads=True)  # not all need be used
        return [gradient.flatten(1) for gradient in found], inputs

    def _loss(self, parameters: dict[str, Tensor], images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with recorded(self.model, self.watched) as inputs:
            logits = self.logits(parameters, images)
        return F.cross_entropy(logits, labels), inputs


class ChainMatching(Matching):
    """For chains of layers, see `chain.links`, and gradients of all their parameters."""

    def __init__(
        self,
        model: nn.Module,
        gradient: Mapping[str, Tensor],
        objective: objectives.Name,
        watched: Sequence[str] = (),
    ) -> None:
        super().__init__(model, gradient, objective, watched)
        self.model.to(memory_format=torch.channels_last)  # as convolutions are fastest
        self.links = chain.links(self.model) or []
        self.targets = dict(zip(self.layers, self.objective.target, strict=True))
        self.first = next(position for position, (name, _) in enumerate(self.links) if name in self.targets)
        convolves = isinstance(self.links[self.first][1], nn.Conv2d)
        self.format = torch.channels_last if convolves else torch.contiguous_format

    def parts(self, gradient: Mapping[str, Tensor]) -> tuple[list[Tensor], list[int]]:
        flat = [torch.cat([in_memory_order(gradient[name]) for name in names]) for names in self.layers.values()]
        return flat, list(range(len(flat)))

    def __call__(self, images: Tensor, labels: Tensor) -> Match:
        value, *inputs = _Chained.apply(self, images, labels)
        return Match(value.detach(), [value], [torch.ones_like(value)], dict(zip(self.watched, inputs, strict=True)))

    def forward(self, images: Tensor) -> list[Step]:
        """The steps from images `[R, B, C, H, W]` to logits."""
        x = images.flatten(0, 1).contiguous(memory_format=self.format)
        steps: list[Step] = []
        for name, module in self.links:
            if name in self.targets:
                steps.append(chain.weighted_step(module, self.targets[name], x, len(images)))
            else:
                with WithoutDropout():
                    steps.append(chain.step(module, x))
            x = steps[-1].output
        return steps

    def backward(self, steps: list[Step], delta: Tensor) -> None:
        """Give every step down to the first with weights the loss's derivative by its output."""
        for position in range(len(steps) - 1, self.first - 1, -1):
            steps[position].delta = delta
            if position > self.first:
                delta = steps[position].back(delta)

    def weigh(self, steps: list[Step]) -> tuple[Tensor, list[Tensor]]:
        """The objective's value `[R]`, and what `turn` needs of its slope."""
        weighted = [step for step in steps if isinstance(step, Weighted)]
        if isinstance(self.objective, objectives.Cosine):
            products, squares = zip(*(step.measure() for step in weighted), strict=True)
            value, *slopes = self.objective.weigh(torch.stack(products), torch.stack(squares))
            return value, slopes
        return self.objective([step.write() for step in weighted])

    def turn(self, steps: list[Step], slopes: list[Tensor], scale: Tensor) -> None:
        """Let the weights move along the objective's slope times a number a restart, `[R]`."""
        weighted = [step for step in steps if isinstance(step, Weighted)]
        if isinstance(self.objective, objectives.Cosine):
            shares = ((slope * scale)[..., None] for slope in slopes)
            for step, of_target, of_gradient in zip(weighted, *shares, strict=True):
                step.follow(of_target, of_gradient)
        else:
            for step, slope in zip(weighted, slopes, strict=True):
                step.move(slope * scale[:, None])


class _Chained(torch.autograd.Function):
    """The objective's value and the watched layers' inputs as functions of images and labels."""

    @staticmethod
    def forward(context: Any, matching: ChainMatching, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        steps = matching.forward(images)
        batch, flat = images.shape[1], labels.flatten(0, 1)
        probabilities = steps[-1].output.softmax(1)
        if flat.is_floating_point():
            errors = probabilities - flat
        else:
            errors = probabilities.scatter_add(1, flat[:, None], -torch.ones_like(probabilities))
        matching.backward(steps, errors / batch)
        value, slopes = matching.weigh(steps)
        context.set_materialize_grads(False)
        context.matching, context.steps, context.slopes = matching, steps, slopes
        context.shape, context.labels, context.probabilities = images.shape, labels, probabilities
        values = [images.flatten(0, 1), *(step.output for step in steps)]
        entered = {name: value for (name, _), value in zip(matching.links, values, strict=False)}
        return value, *(entered[name].reshape(*images.shape[:2], *entered[name].shape[1:]) for name in matching.watched)

    @staticmethod
    def backward(context: Any, *slopes: Tensor | None) -> tuple[None, Tensor, Tensor | None]:
        matching, steps, probabilities = context.matching, context.steps, context.probabilities
        by_value, *by_input = slopes
        scale = probabilities.new_zeros(context.shape[0]) if by_value is None else by_value
        matching.turn(steps, context.slopes, scale)
        moved: Tensor | None = None
        for step in steps:
            moved = step.tangent(moved)
        assert moved is not None  # the weights have moved
        d_delta: Tensor = torch.ops.aten._softmax_backward_data(moved, probabilities, 1, moved.dtype)
        d_delta = d_delta / context.shape[1]
        extra = dict(zip(matching.watched, by_input, strict=True))
        for (name, _), step in zip(reversed(matching.links), reversed(steps), strict=True):
            d_delta = step.back_tangent(d_delta)
            if extra.get(name) is not None:
                d_delta = d_delta + extra[name].flatten(0, 1)
        by_labels = None
        if context.needs_input_grad[2]:
            rise = (probabilities * moved).sum(1, keepdim=True)
            by_labels = ((rise - moved) / context.shape[1]).view_as(context.labels)
        return None, d_delta.reshape(context.shape), by_labels


def make(
    model: nn.Module,
    gradient: Mapping[str, Tensor],
    objective: objectives.Name,
    watched: Sequence[str] = (),
) -> Matching:
    """The faster way that applies to this network; see `Matching` for the arguments."""
    whole = all(name in gradient for name, _ in model.named_parameters())
    way = ChainMatching if whole and chain.links(model) else PlainMatching
    return way(model, gradient, objective, watched)


@contextmanager
def recorded(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Note the inputs of layers, by name, while the body runs the model."""
    inputs: dict[str, Tensor] = {}

    def listen(name: str) -> Any:
        def note(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            inputs[name] = arguments[0]

        return model.get_submodule(name).register_forward_pre_hook(note)

    handles = [listen(name) for name in names]
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()
