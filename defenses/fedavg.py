"""Federated averaging: clients train for some steps on their own data, and the server sees the mean of their deltas."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from pydantic import Field

from gibench.defense import Batch, Defense, DefenseContext, Guarantee, Parameters
from gibench.errors import UsageError
from gibench.local import local_sgd, total_lr
from gibench.observation import LocalTraining, Update


class FedAvg(Defense):
    """Local SGD from the weights received, then the mean over clients of local weights minus those.

    Each epoch goes through a client's images once, in an order of its own; where one local batch holds them all, there
    is no order. The last local batch of an epoch may be smaller. The momentum starts at zero with every update.
    """

    references = ("McMahan et al., Communication-Efficient Learning of Deep Networks, AISTATS 2017, arXiv 1602.05629",)

    epochs: int = Field(5, ge=1, le=1000, description="times that each client goes through its images")
    local_batch_size: int | None = Field(None, ge=1, description="images of a local step; none: all of the client's")
    lr: float = Field(0.01, ge=1e-15, description="learning rate of the local steps")
    momentum: float = Field(0.0, ge=0, lt=1, description="of the local steps")
    clients: int = Field(1, ge=1, le=10_000, description="that are averaged, each with a batch of its own")

    @property
    def client_count(self) -> int:
        return self.clients

    @property
    def passes(self) -> int:
        return self.epochs

    def check(self, context: DefenseContext) -> None:
        if self.local_batch_size is not None and self.local_batch_size > context.batch_size:
            raise UsageError(
                f"fedavg has local batches of {self.local_batch_size} images and a client has {context.batch_size}: "
                "lower local_batch_size or raise the batch size"
            )

    def update(
        self,
        step: Callable[[Parameters, Batch], Parameters],
        parameters: Parameters,
        batches: Sequence[Batch],
        context: DefenseContext,
    ) -> tuple[Update, LocalTraining | None]:
        """The mean weight delta of all clients, and how they trained."""
        mean = {name: torch.zeros_like(value) for name, value in parameters.items()}
        for batch in batches:
            trained = local_sgd(step, parameters, self._local_batches(batch, context), self.lr, self.momentum)
            for name, total in mean.items():
                total.add_(trained[name] - parameters[name], alpha=1 / len(batches))
        size = context.batch_size
        return Update(mean, "weight_delta"), LocalTraining(
            epochs=self.epochs,
            local_batch_size=self.local_batch_size or size,
            lr=self.lr,
            momentum=self.momentum,
            clients=context.clients,
            total_lr=total_lr(self.lr, self.momentum, self._steps(size)),
        )

    def guarantee(self, context: DefenseContext) -> Guarantee:
        """What a client computes beyond the one gradient of FedSGD."""
        return Guarantee(costs={"local_steps": self._steps(context.batch_size), "clients": self.clients})

    def _steps(self, images: int) -> int:
        return self.epochs * math.ceil(images / (self.local_batch_size or images))

    def _local_batches(self, batch: Batch, context: DefenseContext) -> list[Batch]:
        """The local batches of all epochs, of sizes that are public.

        The slots of the client's batch are dealt to them, filled or empty. So a missing image leaves its slot empty,
        moves no other and changes no size. Which of the slots the images have does not matter: the order is random.
        """
        whole, slots, count = context.batch_size, context.slots, len(batch.labels)
        size = self.local_batch_size or whole
        if size == whole:
            return [batch] * self.epochs
        starts = range(0, whole, size)
        ends = [start * slots // whole for start in starts[1:]]
        found = []
        for _ in range(self.epochs):
            order = torch.randperm(slots, generator=context.generator, device=context.generator.device)
            for start, part in zip(starts, torch.tensor_split(order, ends), strict=True):
                filled = part[part < count]
                found.append(Batch(batch.inputs[filled], batch.labels[filled], min(size, whole - start)))
        return found
