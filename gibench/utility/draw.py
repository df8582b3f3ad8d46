"""Draws the batches of a training run: images anew for every round, or clients who keep theirs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gibench.defense import DefenseContext


def draws(context: DefenseContext, generator: torch.Generator) -> Iterator[list[Tensor]]:
    """The positions, in the split drawn from, of each client's images `[n]`, round after round without end.

    Of images, the fixed scheme draws batch_size for each of the clients without replacement; in Poisson samples an
    image falls to each client with the probability batch_size / dataset_size, and to one at most, whatever becomes of
    the others. Of clients, who share the images out among them once, it draws so many, or each with the probability
    clients / (how many there are).

    Args:
        context: the batch size, number of clients, size of the split and sampler.
        generator: on the CPU.
    """
    size, clients, count = context.batch_size, context.clients, context.dataset_size
    poisson = context.sampler.scheme == "poisson"
    if context.sampler.unit == "clients":
        everyone = torch.randperm(count, generator=generator)[: count - count % size].view(-1, size)
        while True:
            if poisson:
                present = torch.rand(len(everyone), generator=generator, dtype=torch.float64) * len(everyone) < clients
            else:
                present = torch.randperm(len(everyone), generator=generator)[:clients]
            yield list(everyone[present])
    while True:
        if poisson:
            falls_to = (torch.rand(count, generator=generator, dtype=torch.float64) * count / size).floor()
            yield [(falls_to == client).nonzero().flatten() for client in range(clients)]
        else:
            yield list(torch.split(torch.randperm(count, generator=generator)[: clients * size], size))
