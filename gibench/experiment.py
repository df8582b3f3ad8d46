"""One cell of the benchmark, from its spec to its result: a pure function of the spec and its seed."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import cast

import torch
from cachetools import LRUCache, cached
from torch import nn

from gibench import batches, chain, seeds, training
from gibench.cell import Cell
from gibench.datasets import check
from gibench.datasets.base import Dataset, Images, Split
from gibench.defense import Defense
from gibench.errors import PluginError, UsageError
from gibench.job import Progress
from gibench.models.base import Model
from gibench.outcome import Facts, Task
from gibench.registry import create
from gibench.result import Result
from gibench.spec import parse_chain

_KEPT = 4  # networks, or fewer where they are large
_LARGE = 2**28  # bytes: a network of so many takes the place of one more


def run_cell(cell: Cell, progress: Progress) -> Result:
    """Run one cell, all of it in this process. What fails in it becomes its status and reason (rule E9).

    Args:
        cell: as `gibench.cell.expand` makes it.
        progress: told what is being done, and the share done if known.

    Raises:
        GibenchError: the scoring is not to be trusted (LPIPS fails its self-test).
    """
    from gibench import stages

    try:
        facts, failed = stages.facts_of(cell.attack), None
    except Exception as error:  # a plugin's own code
        facts, failed = Facts(), stages.failed(error)
    preparation = stages.Preparation(cell, facts, progress)
    observation = preparation.observe()
    if observation is None:
        return preparation.result()
    return preparation.result(failed or stages.attack(Task.of(cell), observation, progress))


@lru_cache(maxsize=4)
def load(dataset: str) -> Images:
    """The images of a data set, kept for the cells that follow: a copy that the plugin cannot write to any more.

    Raises:
        UsageError: they cannot be had, or are not as `Images` says.
    """
    with seeds.isolated(0, "data"):  # no cell's seed: the images are the same for all (rule E18)
        images = copy.deepcopy(cast(Dataset, create("dataset", dataset)).load())
    if fault := check.fault(images):
        raise PluginError(f"the dataset {dataset} {fault}")
    return images


def draw(cell: Cell) -> Split:
    """The private images of all clients: the truth.

    Raises:
        UsageError: the data cannot be had, or hold no such batch.
    """
    clients = chain.client_count(defenses(cell))
    generator = seeds.generator(cell.seed, "data")
    return batches.draw(load(cell.dataset), cell.batch_size, cell.labels, clients, generator, cell.split)


def attacked(cell: Cell) -> Split:
    """The split that the cell's batches are of."""
    found: Split = getattr(load(cell.dataset), cell.split)
    return found


def defenses(cell: Cell) -> list[Defense]:
    """The cell's chain of defenses, in canonical order."""
    return [cast(Defense, create("defense", spec)) for spec in parse_chain(cell.defense)]


def build(dataset: str, model: str) -> nn.Module:
    """A network of its own, also where the plugin gives the same one each time.

    Raises:
        UsageError: it cannot take such images, or is larger than the memory; or it is no network.
    """
    images = load(dataset)
    try:
        network = copy.deepcopy(cast(Model, create("model", model)).build(images.image_shape, images.num_classes))
    except (RuntimeError, MemoryError) as error:  # torch's words for what does not fit go on for lines
        cause = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"the model {model} cannot be built ({cause}): use a smaller one") from error
    if not isinstance(network, nn.Module):
        raise PluginError(f"the model {model} builds {type(network).__name__}, where an nn.Module is due")
    return network


@cached(LRUCache(_KEPT, lambda kept: _weight(kept[0])), info=True)
def trained_model(
    dataset: str, model: str, train_steps: int, seed: int, device: str, threads: int, dtype: torch.dtype
) -> tuple[nn.Module, float]:
    """The network and its accuracy on the tuning split, kept for the cells that differ in defense or attack only."""
    images = load(dataset)
    with seeds.isolated(seed, "model"):
        network = build(dataset, model).to(device, dtype)
        if train_steps:  # making an optimizer alone takes seconds of imports
            training.train(network, images, train_steps, torch.default_generator)
        return network, training.accuracy(network, images, images.tuning)


def _weight(network: nn.Module) -> int:
    """How many of the networks that are kept this one counts for."""
    held = sum(each.nbytes for each in (*network.parameters(), *network.buffers()))
    return min(_KEPT, 1 + held // _LARGE)
