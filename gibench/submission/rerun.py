"""Runs some cells of a submission again, which the checker picks, and compares what they give with what is stated."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from gibench.axes import axes_of
from gibench.cell import Cell
from gibench.errors import UsageError
from gibench.leaderboard.formats import to_csv
from gibench.leaderboard.published import read_text
from gibench.leaderboard.table import table
from gibench.provenance import torch_version
from gibench.registry import GROUPS, create
from gibench.result import COLUMNS, UNFINISHED, Result, Row
from gibench.spec import parse_chain
from gibench.submission import content
from gibench.submission.content import Code
from gibench.submission.export import axes_named
from gibench.submission.findings import Finding, named

# Of the run and not of the cell: where and when it was, and what it cost there.
_OF_THE_RUN = frozenset(
    {"cell", "hardware", "torch", "workers", "runtime_s", "peak_memory_mb", "utility_accuracy", "utility_epsilon"}
)
# How far figures may be apart, absolutely, where processor, torch or source are others (rule E17); what is not named
# here, and is no text, may be 1e-4 of itself apart.
TOLERANCES: Mapping[str, float] = {
    **dict.fromkeys(("exact_rate", "certified_rate", "recognisable_rate", "reidentified_rate"), 0.1),
    **dict.fromkeys(("label_accuracy", "labels_found"), 0.1),
    **dict.fromkeys(("psnr_mean", "psnr_median", "psnr_q25", "psnr_q75"), 1.0),
    **dict.fromkeys(("ssim_mean", "lpips_mean"), 0.05),
    "model_accuracy": 0.02,
}
_LOOSE = frozenset({"mse_mean", "n_reconstructed", "false_certificates", "reason"})  # which the rest bounds well enough
_MEND = "state what it gives"


def eligible(rows: Sequence[Row]) -> list[Row]:
    """The rows whose cells can be run here: their plugins are installed, name no files, and did not run out of time."""
    return sorted((row for row in rows if row.status not in UNFINISHED and _can_run(row)), key=lambda row: row.cell)


def _can_run(row: Row) -> bool:
    if row.device == "cuda" and not torch.cuda.is_available():
        return False
    try:
        named = [name for kind, text in _specs(row) for name in _files(kind, text)]
    except UsageError:  # a plugin or data that are not here; settings that are refused are a fault of their own
        return False
    # Somebody else's files are not here, and no file of this machine is opened because others name it.
    return not named


def _specs(row: Row) -> list[tuple[str, str]]:
    return [(axis.plugin, getattr(row, name)) for name, axis in axes_of(Cell).items() if axis.plugin]


def _files(kind: str, text: str) -> Iterator[Path]:
    for spec in parse_chain(text):
        yield from create(kind, spec).files()
        for key, value in spec.settings:
            if key in GROUPS:  # a setting that is called as a kind of plugin is a spec itself
                yield from _files(key, value)


def picked(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """So many of the rows, or all, by a seed that whoever made the submission did not know."""
    return random.Random(seed).sample(list(rows), min(count, len(rows)))


def cell_of(row: Row) -> Cell:
    """The cell that a row is of."""
    return Cell(**axes_named(row))  # type: ignore[arg-type]  # the columns of axes have their types


def differences(row: Row, images: str | None, again: Result, code: Code | None) -> Iterator[Finding]:
    """What a second run of a cell gave that the row does not say.

    Args:
        row: as it was submitted.
        images: its per-image table.
        again: what the cell gave here.
        code: that the row's key was made of.
    """
    assert isinstance(again.row, Row)
    cell = cell_of(row)
    same = code == Code(versions=cell.versions, sources=cell.sources) and row.torch == torch_version()
    same = same and row.device == "cpu" and row.hardware == again.row.hardware
    for name, stated, value in _columns(row, again.row):
        if not (stated == value if same else _near(name, stated, value)):
            how = "to the last bit, as on this processor with this source" if same else "within what is tolerated"
            yield Finding(named(row), f"{name} is {stated}, and a second run gives {value}, not equal {how}", _MEND)
    if same and images is not None and again.images is not None and not _alike(images, again.images):
        yield Finding(named(row), "a second run gives another per-image table", _MEND)


def _columns(row: Row, again: Row) -> Iterator[tuple[str, Any, Any]]:
    (read,) = read_text(Row, to_csv(table([again])), "the second run")  # through the same text
    for name, column in COLUMNS.items():
        if column.axis is None and name not in _OF_THE_RUN:
            yield name, getattr(row, name), getattr(read, name)


def _near(name: str, stated: Any, value: Any) -> bool:
    if name in _LOOSE:
        return True
    if not (isinstance(stated, float) and isinstance(value, float)):
        return bool(stated == value)
    if name in TOLERANCES:
        return abs(stated - value) <= TOLERANCES[name]
    return math.isclose(stated, value, rel_tol=1e-4)


def _alike(text: str, images: pd.DataFrame) -> bool:
    try:
        stated = content.images(text)
    except ValueError:
        return False
    return stated.equals(content.images(images.to_csv(index=False)))
