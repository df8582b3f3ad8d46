"""What `run`, `sweep` and `utility` print: rows in brief, and where to look further."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from gibench import brief
from gibench.address import shown
from gibench.results import Results
from gibench.sweep.request import Request

_GRIDS_SHOWN = 6
_LINES_SHOWN = 200  # more than anybody reads there; to draw thousands takes longer than all else
_PIPE_WIDTH, _LEAST_WIDTH = 250, 110  # characters; a terminal has its own, and wraps the lines itself if that is less


def print_cells(rows: Sequence[Any], results: Results, request: Request) -> None:
    """Print attacked cells, with means over the seeds, and what a reader wants to know next."""
    found = brief.first(brief.cells(rows), _LINES_SHOWN, "see gibench leaderboard")
    brief.print_on(_console(), found, *_grids(rows, results), *_hints(rows, request))


def print_trials(rows: Sequence[Any]) -> None:
    """Print training runs, with means over the seeds, each defense compared with none."""
    found = brief.first(brief.trials(rows), _LINES_SHOWN, "see gibench leaderboard --costs --format csv")
    brief.print_on(_console(), found)


def _console() -> Console:
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, _LEAST_WIDTH) if console.is_terminal else _PIPE_WIDTH
    return console


def _grids(rows: Sequence[Any], results: Results) -> list[str]:
    """Where the image grids are."""
    scored = [row for row in rows if row.psnr_mean is not None]
    found = [(row, results.paths(row.key)["grid"]) for row in scored[:_GRIDS_SHOWN]]
    if not any(grid for _, grid in found):
        return []
    lines = ["image grids (truth over reconstruction, certified images in green):"]
    lines += [f"  {_near(Path(grid)) if grid else 'no longer there:'}  {brief.title(row)}" for row, grid in found]
    if len(scored) > _GRIDS_SHOWN:
        lines.append(f"  ... and {len(scored) - _GRIDS_SHOWN} more beside them")
    return lines


def _near(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _hints(rows: Sequence[Any], request: Request) -> list[str]:
    uri = shown(request.tracking_uri)
    options = [] if request.results is None else ["--results", request.results]
    options += [] if request.tracking_uri is None else ["--tracking-uri", uri]
    options += [] if request.experiment is None else ["--experiment", request.experiment]
    mlflow = f"open {uri}" if uri.startswith("http") else f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
    return [f"MLflow: {mlflow}", f"one row in full: {shlex.join(['gibench', 'show', rows[0].run_id[:8], *options])}"]
