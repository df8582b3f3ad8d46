"""Whether the figures of a row are those of its per-image table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from gibench.result import Row
from gibench.scoring.evaluate import summary_of
from gibench.scoring.match import EXACT
from gibench.scoring.metrics import psnr
from gibench.submission import content
from gibench.submission.findings import Finding, named

_MEND = "export what is stored, and change nothing"
_ROUNDING = 1e-9  # relative: sums may be made in another order by another version of numpy


def faults(rows: list[Row], texts: Mapping[str, str]) -> Iterator[Finding]:
    """What does not agree, and tables that are gone or of no row."""
    for row in rows:
        if row.psnr_mean is None:
            continue
        if row.cell not in texts:
            yield Finding(named(row), "it has a score and no per-image table", _MEND)
            continue
        try:
            table = content.images(texts[row.cell])
        except ValueError as error:
            yield Finding(named(row), f"its per-image table cannot be read ({error})", _MEND)
            continue
        for fault in (*_within(table, row), *_of(table, row)):
            yield Finding(named(row), fault, _MEND)
    scored = {row.cell for row in rows if row.psnr_mean is not None}
    for key in sorted(texts.keys() - scored):
        yield Finding(f"images/{key}.csv", "no row with a score is its cell's", _MEND)


def _of(table: pd.DataFrame, row: Row) -> Iterator[str]:
    """Figures of the row that its images do not give."""
    if not len(table):
        yield "its per-image table is empty"
        return
    earlier = row.recognisable_rate is None and bool(table["reidentified"].isna().all())  # of a version without either
    for name, value in summary_of(table, row.n_reconstructed or 0).items():
        stated = getattr(row, name)
        if not (earlier and name == "recognisable_rate") and not _equal(stated, value):
            yield f"{name} is {stated}, and its images give {value}"


def _equal(stated: float | None, value: float | None) -> bool:
    if stated is None or value is None:
        return stated is value
    return math.isclose(stated, value, rel_tol=_ROUNDING, abs_tol=1e-15)


def _within(table: pd.DataFrame, row: Row) -> Iterator[str]:
    """Lines of the table that contradict themselves or how many images the row says there were."""
    if table["truth"].tolist() != list(range(len(table))):
        yield "its per-image table does not count the true images from 0"
    wrong = [at for at, error in enumerate(table["mse"]) if not _equal(table["psnr"][at], psnr(error))]
    if wrong:
        yield f"image {wrong[0]} has a psnr that is not that of its mse"
    if (outside := ~table["mse"].between(0, 1) | ~table["ssim"].fillna(0).between(-1, 1) | (table["lpips"] < 0)).any():
        yield f"image {int(np.argmax(outside))} has a figure out of range"
    # Every pixel within the tolerance bounds the mean of their squares; none apart is exact.
    odd = (table["exact"] & (table["mse"] > EXACT**2 * (1 + 1e-6))) | (~table["exact"] & (table["mse"] == 0))
    if odd.any():
        yield f"image {int(np.argmax(odd))} cannot be exact={table['exact'][int(np.argmax(odd))]} with that mse"
    matched = table["reconstruction"].dropna()
    if (table["certified"] & table["reconstruction"].isna()).any():
        yield "an image that was not reconstructed is certified"
    counted = min(row.n_reconstructed or 0, len(table)) if row.status not in ("failed", "diverged") else 0
    if sorted(matched) != list(range(counted)):
        yield f"{len(matched)} images are matched with reconstructions, where {counted} were to be"
