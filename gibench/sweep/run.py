"""Runs cells one after the other; every finished one is stored at once, and what is stored is not run again."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten
from typing import Literal, Protocol

from gibench.cell import Cell
from gibench.experiment import check, run_cell
from gibench.result import UNFINISHED, Row
from gibench.sweep.suite import Suite
from gibench.tracking import Store


class Listener(Protocol):
    """Is told how a grid gets on."""

    def started(self, number: int, cell: Cell) -> None:
        """The cell with this number, from 1, begins."""

    def working(self, message: str, fraction: float | None = None) -> None:
        """What the cell is doing, and the share done if known."""

    def finished(self, number: int, row: Row, stored_before: bool) -> None:
        """The cell is stored, just now or by an earlier call."""


def prepare(suite: Suite) -> list[Cell]:
    """The suite's cells, each known to be possible.

    Raises:
        UsageError: something in the suite is wrong, or the data for a cell cannot be had.
    """
    cells = suite.cells()
    for cell in cells:
        check(cell)
    return cells


def run_cells(cells: Sequence[Cell], store: Store, suite: Suite, listener: Listener, force: bool = False) -> list[str]:
    """Run what is not stored yet under one parent run; returns the run id of every cell, in order.

    Ctrl-C keeps what is stored: the parent run is closed as KILLED and the interruption goes on.

    Args:
        cells: from `prepare`.
        store: where they are looked up and kept.
        suite: what they were made of, as the parent run's parameters.
        listener: is told of each.
        force: run finished cells again.
    """
    known = {} if force else {row["cell"]: row for row in store.rows() if row["status"] not in UNFINISHED}
    runs: list[str] = []
    parent: str | None = None
    ended: Literal["FINISHED", "FAILED", "KILLED"] = "KILLED"
    try:
        for number, cell in enumerate(cells, start=1):
            if row := known.get(cell.key):
                runs.append(row["run_id"])
                listener.finished(number, row, stored_before=True)
                continue
            parent = parent or store.open_grid(suite.name or "grid", _axes(suite))
            listener.started(number, cell)
            result = run_cell(cell, listener.working)
            runs.append(store.save(result, parent))
            listener.finished(number, result.row, stored_before=False)
        ended = "FINISHED"
    except Exception:
        ended = "FAILED"
        raise
    finally:
        if parent:
            store.close_grid(parent, ended)
    return runs


def _axes(suite: Suite) -> dict[str, str]:
    """What varies, for the parent run; MLflow refuses long texts."""
    settings = suite.model_dump(exclude={"name", "tracking_uri", "experiment"}, exclude_none=True)
    return {key: shorten(str(value), 500, placeholder=" ...") for key, value in settings.items() if value}
