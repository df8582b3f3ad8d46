"""What a client's protocol makes of a candidate batch, as far as the server knows it: differentiable, without noise.

The server prescribed the protocol, so it can put candidates through the same: clip their examples' gradients, train on
them, clip, and leave out the entries that the client left out. What was drawn at random, it does not know: noise counts
as none, local batches are those of the candidates in their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from gibench.defense import Batch, Gradient, Parameters
from gibench.local import local_sgd, total_lr
from gibench.observation import LocalTraining, Observation

from . import objectives
from .matching import PlainMatching, recorded

Simulate = Literal["none", "epochs", "steps"]
Release = Callable[[Parameters], Parameters]


@dataclass(frozen=True)
class Bound:
    """Of L2 norms: that of all tensors together, or of each of L tensors, by 1 / sqrt(L) of it."""

    norm: float
    per_layer: bool = False

    def clip(self, update: Parameters) -> Parameters:
        """The update scaled down to the bound."""
        norms = torch.stack([torch.linalg.vector_norm(value) for value in update.values()])
        bound = self.norm / math.sqrt(len(update)) if self.per_layer else self.norm
        if not self.per_layer:
            norms = torch.linalg.vector_norm(norms).expand(len(update))
        scales = (bound / norms.clamp_min(torch.finfo(norms.dtype).tiny)).clamp_max(1)
        return {name: value * scale for (name, value), scale in zip(update.items(), scales, strict=True)}


@dataclass(frozen=True)
class Protocol:
    """How an update is made of a batch. Images are one client's after the other's, as many for each."""

    images: int  # of each client
    training: LocalTraining | None  # none: the update is one client's gradient
    examples: Bound | None  # of each example's gradient, in every step
    clients: Bound | None  # of each client's update
    releases: tuple[Release, ...]  # what is done to the mean of the updates

    @classmethod
    def read(cls, observation: Observation, simulate: Simulate, scaled: bool) -> Self | str:
        """What the server knows of it, or why candidates cannot go through it.

        Args:
            observation: with its batch size known. A defense that is none of those below changes nothing here.
            simulate: local steps as prescribed (`steps`), one on all of a client's images in every epoch (`epochs`), or
                a single one (`none`), as long together as those prescribed.
            scaled: whether the update's size matters.
        """
        assert observation.batch_size is not None
        training = observation.local_hyperparameters
        examples = clients = None
        releases: list[Release] = []
        chain = [(spec.name, dict(spec.settings)) for spec in observation.defenses or ()]
        names = [name for name, _ in chain]
        if "pruning" in names and "noise" in names[names.index("pruning") :]:
            return "noise on top of pruning hides which entries were kept: use the attack that is not adaptive"
        for name, settings in chain:
            if name == "dp":
                bound = Bound(float(settings["max_grad_norm"]), settings["clipping"] == "per-layer")
                examples, clients = (bound, None) if settings["on"] == "step" else (None, bound)
            elif name == "clip" and scaled:
                releases.append(Bound(float(settings["max_norm"])).clip)
            elif name == "pruning":
                releases.append(_keeping({key: value != 0 for key, value in observation.update.tensors.items()}))
        if training and simulate == "none" and not clients:  # one step on all images is the mean of the clients' steps
            training = replace(training, clients=1)
        images = observation.batch_size // (training.clients if training else 1)
        if training and simulate != "steps":
            epochs = training.epochs if simulate == "epochs" else 1
            lr = training.total_lr / total_lr(1.0, training.momentum, epochs)
            training = replace(training, epochs=epochs, local_batch_size=images, lr=lr)
        return cls(images, training, examples, clients, tuple(releases))

    @property
    def plain(self) -> bool:
        """Whether the update is the gradient of the whole batch, but for its scale."""
        training = self.training
        one = training is None or (training.epochs, training.local_batch_size, training.clients) == (1, self.images, 1)
        return one and not (self.examples or self.clients or self.releases)

    @property
    def steps(self) -> int:
        """Of all clients together."""
        training = self.training
        if training is None:
            return 1
        return training.clients * training.epochs * math.ceil(self.images / training.local_batch_size)

    def update(self, gradient: Gradient, parameters: Parameters, inputs: Tensor, labels: Tensor) -> Parameters:
        """The update in gradient sign, and to first order in gradient scale; differentiable in the batch.

        Args:
            gradient: of the mean loss, pure.
            parameters: that the clients start from.
            inputs: `[B, C, H, W]`.
            labels: `[B]`, or probabilities `[B, classes]`.
        """
        count = self.training.clients if self.training else 1
        batches = [Batch(*part) for part in zip(inputs.chunk(count), labels.chunk(count), strict=True)]
        updates = [self._client(gradient, parameters, batch) for batch in batches]
        if self.clients:
            updates = [self.clients.clip(update) for update in updates]
        mean = {name: torch.stack([update[name] for update in updates]).mean(0) for name in parameters}
        for release in self.releases:
            mean = release(mean)
        scale = self.training.total_lr if self.training else 1.0
        return {name: value / scale for name, value in mean.items()}

    def _client(self, gradient: Gradient, parameters: Parameters, batch: Batch) -> Parameters:
        """The gradient, or the weights before the local training minus those after it."""

        def step(parameters: Parameters, batch: Batch) -> Parameters:
            return self._step(gradient, parameters, batch)

        training = self.training
        if training is None:
            return step(parameters, batch)
        size = training.local_batch_size
        batches = [
            Batch(*part) for part in zip(torch.split(batch.inputs, size), torch.split(batch.labels, size), strict=True)
        ]
        batches *= training.epochs
        if len(batches) == 1:  # without the rounding of weights
            return {name: training.lr * value for name, value in step(parameters, batch).items()}
        trained = local_sgd(step, parameters, batches, training.lr, training.momentum)
        return {name: value - trained[name] for name, value in parameters.items()}

    def _step(self, gradient: Gradient, parameters: Parameters, batch: Batch) -> Parameters:
        if self.examples is None:
            return gradient(parameters, batch.inputs, batch.labels)
        bound = self.examples

        def one(inputs: Tensor, label: Tensor) -> Parameters:
            return bound.clip(gradient(parameters, inputs[None], label[None]))

        clipped = torch.vmap(one, randomness="different")(batch.inputs, batch.labels)
        return {name: value.mean(0) for name, value in clipped.items()}


def _keeping(kept: Mapping[str, Tensor]) -> Release:
    """Zero but for these entries."""
    return lambda update: {name: value * kept[name] for name, value in update.items()}


class ProtocolMatching(PlainMatching):
    """Candidates go through the client's protocol before they are compared.

    Args:
        protocol: see there.
        model, gradient, objective, watched: as for `Matching`.
    """

    def __init__(
        self,
        protocol: Protocol,
        model: nn.Module,
        gradient: Mapping[str, Tensor],
        objective: objectives.Name,
        watched: Sequence[str] = (),
    ) -> None:
        super().__init__(model, gradient, objective, watched)
        self.protocol = protocol

    def gradients(self, images: Tensor, labels: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        start = self.parameters

        def loss(parameters: Parameters, inputs: Tensor, labels: Tensor) -> Tensor:
            return functional.cross_entropy(self.logits(parameters, inputs), labels)

        def update(inputs: Tensor, labels: Tensor) -> Parameters:
            return self.protocol.update(torch.func.grad(loss), start, inputs, labels)

        if len(images) == 1:
            found = {name: value[None] for name, value in update(images[0], labels[0]).items()}
        else:
            found = torch.vmap(update, randomness="different")(images, labels)
        flat = [found[name].flatten(1) for names in self.layers.values() for name in names]
        return flat, self._inputs(start, images)

    def _inputs(self, parameters: Parameters, images: Tensor) -> dict[str, Tensor]:
        """What enters the watched layers before any local step."""
        if not self.watched:
            return {}
        seen = []
        for batch in images:
            with recorded(self.model, self.watched) as inputs:
                self.logits(parameters, batch)
            seen.append(inputs)
        return {name: torch.stack([inputs[name] for inputs in seen]) for name in self.watched}
