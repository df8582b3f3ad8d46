"""What `gibench.run` and `gibench.sweep` return: rows, images and pictures, which show themselves."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from gibench import brief
from gibench.result import Row
from gibench.results import Results as Folder
from gibench.text import visible
from gibench.utility.job import TrialRow

if TYPE_CHECKING:
    import pandas as pd

_LINES_SHOWN = 40
_PICTURES_SHOWN = 3
_PICTURE = 600, 400  # pixels that a picture is shrunk to in a notebook, at most
_LEAST_WIDTH = 140  # characters; a narrower terminal wraps the lines itself


class Results:
    """The stored rows of one call, a cell each, in the order of the grid; a failed cell is a row too."""

    def __init__(self, rows: Sequence[Row], folder: Folder, costs: Sequence[TrialRow] = ()) -> None:
        """Hold what was run.

        Args:
            rows: of the cells.
            folder: that the files of the cells are in.
            costs: the training runs of a suite with `utility`.
        """
        self._rows, self._folder, self._costs = list(rows), folder, list(costs)

    @property
    def rows(self) -> pd.DataFrame:
        """One line a cell: the columns that `gibench/COLUMNS.md` explains, then `run_id` and `started`."""
        from gibench.leaderboard.table import table

        return table(self._rows)

    @property
    def images(self) -> pd.DataFrame:
        """One line a true image of each cell with a score: `run_id`, then what `gibench/scoring/README.md` explains.

        Raises:
            UsageError: a file of the results folder is gone or damaged.
        """
        return self._folder.images(row for row in self._rows if row.psnr_mean is not None)

    @property
    def pictures(self) -> dict[str, Path]:
        """The PNG of each cell that has one, by its `run_id`: truth over reconstruction, certified images in green."""
        found = {row.run_id: self._folder.paths(row.key)["grid"] for row in self._rows}
        return {run: Path(path) for run, path in found.items() if path is not None}

    @property
    def costs(self) -> pd.DataFrame:
        """One line a training run, where the suite has `utility`: what its defenses cost."""
        from gibench.leaderboard.table import table

        return table(self._costs, TrialRow)

    def summary(self) -> pd.DataFrame:
        """Means over the seeds, with ranks; see `gibench.leaderboard.table.summarize`."""
        from gibench.leaderboard.table import summarize

        return summarize(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        """The table that the command line prints."""
        from rich.console import Console

        width = max(shutil.get_terminal_size().columns, _LEAST_WIDTH)
        console = Console(file=io.StringIO(), width=width, highlight=False, soft_wrap=True, color_system=None)
        with console.capture() as captured:
            brief.print_on(console, self._brief())
        return "\n".join(line.rstrip() for line in captured.get().splitlines()).rstrip()

    def _repr_html_(self) -> str:
        """The same for notebooks, with the first pictures."""
        short = self._brief()
        table = _line("th", short.heads) + "".join(_line("td", line) for line in short.lines)
        below = "".join(f"<p>{_shown(line)}</p>" for line in short.below if line)
        titles = {row.run_id: brief.title(row) for row in self._rows}
        pictures = list(self.pictures.items())[:_PICTURES_SHOWN]
        shown = "".join(_figure(path, titles[run]) for run, path in pictures)
        return f"<div><p>{_shown(short.shared)}</p><table>{table}</table>{below}{shown}</div>"

    def _brief(self) -> brief.Brief:
        return brief.first(brief.cells(self._rows), _LINES_SHOWN, "see .summary()")


def _line(kind: str, texts: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{kind}>{_shown(text)}</{kind}>' for text in texts)}</tr>"


def _shown(text: str) -> str:
    """What attacks and plugins say, letter by letter."""
    return escape(visible(text))


def _figure(path: Path, title: str) -> str:
    from PIL import Image

    with Image.open(path) as picture:
        picture.thumbnail(_PICTURE)
        small = io.BytesIO()
        picture.save(small, "PNG")
    data = base64.b64encode(small.getvalue()).decode()
    return f'<p>{_shown(title)}<br><img alt="{_shown(title)}" src="data:image/png;base64,{data}"></p>'
