"""A strip of images for each network: the originals, and what the best baseline and the best of our attacks recover.

    python -m gibench.leaderboard.families

It reads published rows, and the image grids of their runs in the results folder (`GIBENCH_RESULTS`), which hold what
rows do not; so it is drawn where the suite was run, and not by `make results`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gibench.errors import UsageError
from gibench.registry import readable
from gibench.result import Row
from gibench.results import Results
from gibench.scoring.grid import strips
from gibench.spec import parse

from .figures import new_figure
from .publish import DIGEST, PICTURE, digest
from .published import read
from .render import RESULTS
from .table import newest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OURS = ("spearpp", "layer-pair", "token-span")
_SUITE = "networks"
_LARGEST, _SEED = 8, 0  # batch that is shown, if there is one of such a size, else the largest below
_ACROSS = 2  # panels side by side


class Family(NamedTuple):
    """What is shown of a network: a row of each side, None where no attack of that side ran."""

    model: str
    baseline: Row | None
    ours: Row | None
    reason: str  # why ours did not run


def families(rows: Iterable[Row]) -> Iterator[Family]:
    """Every network with the best row of each side, by exact rate and then PSNR, on the batch that is shown."""
    wanted = _SEED, False, "none"
    able = [row for row in newest(rows) if (row.seed, row.control, row.defense) == wanted]
    shown = sorted((row for row in able if row.batch_size <= _LARGEST), key=lambda row: -row.batch_size)
    for model in dict.fromkeys(row.model for row in able):
        sides: tuple[list[Row], list[Row]] = [], []
        of_model = [row for row in shown if row.model == model]
        for row in of_model:
            if row.batch_size == of_model[0].batch_size:
                sides[parse(row.attack).name in _OURS].append(row)
        baseline, ours = map(_best, sides)
        if baseline or ours:
            first = min(sides[1], key=lambda row: _OURS.index(parse(row.attack).name), default=None)
            yield Family(model, baseline, ours, (first and first.reason) or "")


def _best(rows: Iterable[Row]) -> Row | None:
    ran = (row for row in rows if row.status != "skipped")
    return max(ran, key=lambda row: (row.exact_rate or 0.0, row.psnr_mean or 0.0), default=None)


def draw(found: Sequence[Family], grid_of: Callable[[Row], str | None]) -> Figure:
    """A panel for each network: originals, the best baseline's images, and ours with certified ones in green frames.

    Args:
        found: from `families`.
        grid_of: the file of a row's image grid, None if it has none.

    Raises:
        UsageError: a row has no grid, or there is no network.
    """
    if not found:
        raise UsageError(
            f"there is no row of {_LARGEST} images or fewer and seed {_SEED}: run the suite '{_SUITE}' first"
        )
    lines = -(-len(found) // _ACROSS)
    figure, panels = new_figure(lines, _ACROSS, size=(6.2 * _ACROSS, 2.9 * lines))
    for axes, family in zip_longest(panels.flat, found):
        axes.axis("off")
        if family:
            sides = family.baseline, family.ours
            pairs = [row and strips(_read(grid_of(row), row)) for row in sides]
            originals = next(pair[0] for pair in pairs if pair)
            blank = np.full_like(originals, 255)
            axes.imshow(
                np.vstack([originals, *(pair[1] if pair else blank for pair in pairs)]), interpolation="nearest"
            )
            axes.set_title(_title(family), fontsize="small", wrap=True)
    figure.supxlabel("originals, the best baseline, ours; a green frame is a certificate", fontsize="small")
    return figure


def _read(file: str | None, row: Row) -> bytes:
    if file is None:
        raise UsageError(f"the run {row.run_id} has no image grid here: set GIBENCH_RESULTS, or run its cell again")
    return Path(file).read_bytes()


def _title(family: Family) -> str:
    told = [
        f"{parse(row.attack).name} {row.psnr_mean:.1f} dB" if row else f"none of ours: {family.reason}"
        for row in (family.baseline, family.ours)
        if row or family.reason
    ]
    return f"{readable('model', family.model)}: {', '.join(told)}"


def main(root: Path) -> None:
    """Draw the picture of the published rows.

    Raises:
        UsageError: rows or image grids are not there.
    """
    file, results = root / RESULTS / f"{_SUITE}.csv", Results(experiment=_SUITE)
    figure = draw(list(families(read(Row, file))), lambda row: results.paths(row.cell)["grid"])
    figure.savefig(root / RESULTS / PICTURE, dpi=100, metadata={DIGEST: digest(file)})


if __name__ == "__main__":
    try:
        main(Path.cwd())
    except UsageError as error:
        sys.exit(f"error: {error}")
