"""Single figures within the sentences of READMEs, each made of published rows or by the accountant that rows name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import cast

import torch

from gibench import chain
from gibench.datasets.hostile import PICTURES
from gibench.defense import Defense
from gibench.registry import create
from gibench.result import Row

from .intervals import at_most
from .published import read
from .render import RESULTS
from .table import newest

NOT_MEASURED = "?"  # where there are no such rows yet


def _rows(root: Path, suite: str) -> list[Row]:
    file = root / RESULTS / f"{suite}.csv"
    return newest(read(Row, file)) if file.exists() else []


def _split_size(root: Path) -> int | None:
    """Images that the headline's batches are drawn from."""
    return max((row.split_size for row in _rows(root, "headline") if row.split_size), default=None)


def _private_tiles(root: Path) -> str:
    return str(_split_size(root) or NOT_MEASURED)


def _false_rate(root: Path) -> str:
    """The rate of false certificates that none among all tiles leaves open."""
    size = _split_size(root)
    bound = None if size is None else at_most(0, size)
    return NOT_MEASURED if bound is None else f"{100 * bound:.2g} %"


def _hostile_images(root: Path) -> str:
    """Images that each attack met among near-duplicates."""
    counts: dict[str, int] = {}
    for row in _rows(root, "hostile-batches"):
        counts[row.attack] = counts.get(row.attack, 0) + (row.n_true or 0)
    return f"{max(counts.values()):,}" if counts else NOT_MEASURED


def _run_epsilon(sampling: str) -> Callable[[Path], str]:
    """Epsilon of a training run with `dp` at its defaults: 300 rounds of 20 out of 658 images."""

    @cache
    def stated() -> str:
        defenses = [cast(Defense, create("defense", f"dp:sampling={sampling}"))]
        context = chain.context_of(defenses, torch.Generator(), batch_size=20, dataset_size=658, rounds=300)
        return f"{chain.guarantee(defenses, context).run_epsilon:.2f}"

    return lambda root: stated()


VALUES: Mapping[str, Callable[[Path], str]] = {
    "private-tiles": _private_tiles,
    "false-rate": _false_rate,
    "hostile-images": _hostile_images,
    "hostile-pictures": lambda root: f"{PICTURES}",
    "run-epsilon-fixed": _run_epsilon("fixed"),
    "run-epsilon-poisson": _run_epsilon("poisson"),
}
