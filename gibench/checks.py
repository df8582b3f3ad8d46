"""Whether cells can be prepared, found out once for all that share what it depends on."""

from __future__ import annotations

from functools import cache
from typing import cast

import torch

from gibench import batches, chain, experiment, seeds
from gibench.attack import MOST_IMAGES
from gibench.cell import Cell
from gibench.datasets.base import Dataset
from gibench.defense import Defense
from gibench.device import memory_mb
from gibench.errors import UsageError
from gibench.models.base import Model
from gibench.registry import create
from gibench.spec import parse_chain


def check(cell: Cell, plan: bool = False) -> None:
    """Find out whether a cell can be prepared, so that a wrong request fails before anything runs.

    Args:
        cell: as `gibench.axes.expand` makes it.
        plan: look no further than a plan needs: images that are not at hand are neither read nor downloaded, and
            networks are not built.

    Raises:
        UsageError: the data cannot be had or are too few, or the model or a defense cannot take them.
    """
    if plan and not at_hand(cell.dataset):
        return
    clients = client_count(cell.defense)
    # What is left for the later clients depends on what the first were given, unless any image will do.
    seed = cell.seed if clients > 1 and cell.labels != "iid" else 0
    _check_batch(cell.dataset, cell.split, cell.batch_size, cell.labels, clients, seed)
    _check_defenses(cell.dataset, cell.split, cell.batch_size, cell.defense)
    _check_model(cell.dataset, cell.model, cell.dtype, cell.device, plan)


@cache
def at_hand(dataset: str) -> bool:
    """Whether a data set comes with its package; of another it is found out whether it can be read at all.

    Raises:
        UsageError: it cannot.
    """
    plugin = cast(Dataset, create("dataset", dataset))
    plugin.check()
    return plugin.bundled


@cache
def client_count(defense: str) -> int:
    """How many clients' batches a chain of defenses takes."""
    return chain.client_count(cast(Defense, create("defense", spec)) for spec in parse_chain(defense))


@cache
def _check_batch(dataset: str, split: str, batch_size: int, labels: str, clients: int, seed: int) -> None:
    if clients * batch_size > MOST_IMAGES:
        raise UsageError(f"{clients * batch_size} images are more than the {MOST_IMAGES} of a cell: ask for fewer")
    batches.draw(experiment.load(dataset), batch_size, labels, clients, seeds.generator(seed, "data"), split)


@cache
def _check_defenses(dataset: str, split: str, batch_size: int, defense: str) -> None:
    plugins = [cast(Defense, create("defense", spec)) for spec in parse_chain(defense)]
    chain.context_of(plugins, torch.Generator(), batch_size, len(getattr(experiment.load(dataset), split)))


@cache
def _check_model(dataset: str, model: str, dtype: str, device: str, plan: bool) -> None:
    plugin = cast(Model, create("model", model))
    if not plan:
        plugin.prepare()
    if plugin.builds_on_meta:
        _check_size(dataset, model, plugin, dtype, device)
    elif not plan:
        with seeds.isolated(0, "model"):
            experiment.build(dataset, model)


def _check_size(dataset: str, model: str, plugin: Model, dtype: str, device: str) -> None:
    """Refuse a network that does not fit into the memory beside its gradient, without taking any."""
    images = experiment.load(dataset)
    with torch.device("meta"):
        network = plugin.build(images.image_shape, images.num_classes)
    count = sum(parameter.numel() for parameter in network.parameters())
    width = torch.promote_types(getattr(torch, dtype), torch.float32).itemsize
    wanted, memory = 2 * count * width / 2**20, memory_mb(torch.device(device))
    if wanted > memory:
        raise UsageError(
            f"the model {model} has {count:.3g} parameters, which take {wanted / 1024:,.0f} GiB with their gradient, "
            f"more than the {memory / 1024:,.0f} GiB of memory here: use a smaller one"
        )
