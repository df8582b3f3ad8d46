"""Draws the clients' private batches: the truth."""

from __future__ import annotations

import torch
from torch import Tensor

from gibench.datasets.base import Images, Split
from gibench.errors import UsageError


def draw(
    images: Images, batch_size: int, labels: str, clients: int, generator: torch.Generator, split: str = "private"
) -> Split:
    """Draw the clients' private batches, without replacement, from one split.

    Args:
        images: the data set.
        batch_size: images a client.
        labels: the rule for each client's batch: `iid` (uniform), `unique` (all labels different) or `same` (one
            label, uniform among those with enough images).
        clients: how many batches.
        generator: on the CPU.
        split: of the data set; hyperparameters are tuned on `tuning` (rule E18).

    Returns:
        The batches one after the other, `clients * batch_size` images: the truth.

    Raises:
        UsageError: an unknown rule, or fewer images than asked for.
    """
    if labels not in ("iid", "unique", "same"):
        raise UsageError(f"unknown label rule '{labels}': use iid, unique or same")
    if batch_size < 1:
        raise UsageError(f"a batch of {batch_size} images is refused: ask for at least 1")
    source: Split = getattr(images, split)
    if clients * batch_size > len(source):
        wanted = f"{clients} batches of {batch_size}" if clients > 1 else f"a batch of {batch_size}"
        raise UsageError(f"{wanted} is more than the {len(source)} images of the {split} split: ask for fewer")
    order = torch.randperm(len(source), generator=generator)  # whatever is taken first from it is uniform
    chosen: list[Tensor] = []
    for _ in range(clients):
        batch = order[_positions(source.labels[order], batch_size, labels, generator, split)]
        chosen.append(batch)
        order = order[~torch.isin(order, batch)]
    drawn = torch.cat(chosen)
    return Split(source.images[drawn], source.labels[drawn])


def _positions(labels: Tensor, batch_size: int, rule: str, generator: torch.Generator, split: str) -> Tensor:
    """Where one batch stands among the images that are left, which are in random order."""
    if rule == "iid":
        return torch.arange(batch_size)
    counts = labels.bincount()
    present = counts.nonzero().flatten()
    if rule == "unique":
        if batch_size > len(present):
            raise UsageError(
                f"labels=unique has {len(present)} labels to offer in the {split} split, not {batch_size}: "
                "ask for a smaller batch"
            )
        picked = present[torch.randperm(len(present), generator=generator)[:batch_size]]
        return (labels == picked[:, None]).int().argmax(dim=1)
    enough = (counts >= batch_size).nonzero().flatten()
    if not len(enough):
        raise UsageError(
            f"labels=same finds no label with {batch_size} images left in the {split} split (the most is "
            f"{int(counts.max())}): ask for a smaller batch"
        )
    picked = enough[torch.randint(len(enough), (1,), generator=generator)]
    return (labels == picked).nonzero().flatten()[:batch_size]
