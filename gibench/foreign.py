"""The batch that a control is shown the update of, in place of the truth: real images that no client holds."""

from __future__ import annotations

import torch

from gibench import batches
from gibench.datasets.base import Images, Split
from gibench.errors import UsageError


def draw(
    images: Images, batch_size: int, labels: str, clients: int, generator: torch.Generator
) -> tuple[Split, dict[str, str]]:
    """As many public images as the truth has private ones, drawn by the same rule.

    Args:
        images, batch_size, labels, clients, generator: as for `gibench.batches.draw`.

    Returns:
        The batches one after the other, `clients * batch_size` images, and a note to log where the public split holds
        no such batches: then they are drawn `iid`, and each image as often as it takes.
    """
    public, wanted = images.public, clients * batch_size
    try:
        return batches.draw(images, batch_size, labels, clients, generator, "public"), {}
    except UsageError as error:
        rounds = -(-wanted // len(public))
        order = torch.cat([torch.randperm(len(public), generator=generator) for _ in range(rounds)])[:wanted]
        note = f"the public split has {len(public)} images and no such batches, so they were drawn iid: {error}"
        return Split(public.images[order], public.labels[order]), {"other_batch": note}
