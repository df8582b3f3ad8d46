"""What `run` and `sweep` print of their rows: a table, why some have no result, and where to look further."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gibench.cell import Cell
from gibench.errors import UsageError
from gibench.mlflow_store import DEFAULT_URI, shown
from gibench.registry import shorten
from gibench.result import Row
from gibench.spec import format_chain, parse_chain
from gibench.sweep.suite import Suite
from gibench.tracking import Store

_GRIDS_SHOWN = 6
_PIPE_WIDTH, _LEAST_WIDTH = 250, 110  # characters; a terminal has its own, and wraps the lines itself if that is less
# What tells rows apart, beside the seed: heading, column, whether it is shown even if the same in every row.
_AXES = (
    ("attack", "attack", True),
    ("defense", "defense", True),
    ("dataset", "dataset", False),
    ("model", "model", False),
    ("train steps", "train_steps", False),
    ("batch", "batch_size", True),
    ("labels", "labels_policy", False),
    ("knows", "threat_model", False),
    ("device", "device", False),
    ("dtype", "dtype", False),
)
_MEASURES = (  # heading, column, digits
    ("PSNR dB", "psnr_mean", 2),
    ("SSIM", "ssim_mean", 3),
    ("LPIPS", "lpips_mean", 3),
    ("exact", "exact_rate", 3),
    ("certified", "certified_rate", 3),
    ("runtime s", "runtime_s", 3),
)


def number(value: float | None, digits: int) -> str:
    """A number for people to read; a dash for what does not apply."""
    return "-" if value is None else f"{value:.{digits}f}"


def title(cell: Cell | Row) -> str:
    """A cell in a few words, without the settings that have their default value."""
    values = asdict(cell) if isinstance(cell, Cell) else cell
    names = [_axis(values, column) for column in ("attack", "defense", "dataset", "model")]
    return " | ".join([*names, f"batch {values['batch_size']}", f"seed {values['seed']}"])


def print_rows(rows: Sequence[Row], store: Store, suite: Suite) -> None:
    """Print the rows as a table, and what a reader wants to know next."""
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, _LEAST_WIDTH) if console.is_terminal else _PIPE_WIDTH
    groups = _groups(rows)
    varying = {column for _, column, _ in _AXES if len({row[column] for row in rows}) > 1}
    fixed = [f"{head} {_axis(rows[0], column)}" for head, column, always in _AXES if not (always or column in varying)]
    console.print(escape(f"{'; '.join(fixed)}; hardware {', '.join(sorted({row['hardware'] for row in rows}))}"))
    console.print("", _table(groups, varying), "", sep="\n")
    for line in [*_reasons(rows), *_grids(rows, store, suite), *_hints(rows, suite)]:
        console.print(escape(line))


def _axis(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if column == "defense":
        return format_chain(shorten("defense", spec) for spec in parse_chain(value))
    return str(shorten(column, value)) if column in ("attack", "dataset", "model") else str(value)


def _groups(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows that differ in their seed alone, together."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for _, column, _ in _AXES), []).append(row)
    return list(groups.values())


def _table(groups: Sequence[Sequence[Row]], varying: set[str]) -> Table:
    """One line a group: means over its seeds; what failed counts as mid-grey, what was skipped does not (rule E9)."""
    axes = [(head, column) for head, column, always in _AXES if always or column in varying]
    false = any(row["false_certificates"] for group in groups for row in group)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for head, _ in axes:
        table.add_column(head, overflow="fold")
    for head in ("seed", "status"):
        table.add_column(head, no_wrap=True)
    for head in (*(head for head, _, _ in _MEASURES), *(["false certificates"] if false else []), "epsilon"):
        table.add_column(head, justify="right", no_wrap=True)
    for group in groups:
        cells = [_axis(group[0], column) for _, column in axes]
        cells += [_seeds(group), _statuses(group)]
        cells += [number(_mean(group, column), digits) for _, column, digits in _MEASURES]
        cells += [str(sum(row["false_certificates"] or 0 for row in group))] if false else []
        epsilon = group[0]["epsilon"]
        table.add_row(*map(escape, [*cells, "-" if epsilon is None else f"{epsilon:.4g}"]))
    return table


def _mean(group: Iterable[Row], column: str) -> float | None:
    values = [row[column] for row in group if row[column] is not None]
    return fmean(values) if values else None


def _seeds(group: Sequence[Row]) -> str:
    return str(group[0]["seed"]) if len(group) == 1 else f"{len(group)} seeds"


def _statuses(group: Sequence[Row]) -> str:
    counts = Counter(row["status"] for row in group)
    return next(iter(counts)) if len(counts) == 1 else ", ".join(f"{count} {name}" for name, count in counts.items())


def _reasons(rows: Iterable[Row]) -> list[str]:
    """Why rows are not `ok`, each reason once."""
    seen: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["reason"]:
            seen.setdefault((row["status"], row["reason"]), []).append(row)
    lines = []
    for (status, reason), same in seen.items():
        more = f" and {len(same) - 1} more" if len(same) > 1 else ""
        lines.append(f"{status}: {reason} ({title(same[0])}{more}; gibench show {same[0]['run_id'][:8]})")
    return [*lines, ""] if lines else []


def _grids(rows: Sequence[Row], store: Store, suite: Suite) -> list[str]:
    """Where the image grids are; those on a server are not fetched for that."""
    scored = [row for row in rows if row["status"] != "skipped"]
    if not scored:
        return []
    if (suite.tracking_uri or DEFAULT_URI).startswith("http"):
        return ["image grids (truth over reconstruction): the artifact images.png of each run"]
    lines = ["image grids (truth over reconstruction, certified images in green):"]
    for row in scored[:_GRIDS_SHOWN]:
        try:
            grid = store.row(row["run_id"])[1]["grid"]
        except UsageError:  # somebody took the files of an earlier run away
            grid = None
        lines.append(f"  {_near(Path(grid)) if grid else 'no longer there:'}  {title(row)}")
    if len(scored) > _GRIDS_SHOWN:
        lines.append(f"  ... and {len(scored) - _GRIDS_SHOWN} more beside them")
    return lines


def _near(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _hints(rows: Sequence[Row], suite: Suite) -> list[str]:
    uri = shown(suite.tracking_uri)
    options = [] if suite.tracking_uri is None else ["--tracking-uri", uri]
    options += (
        [] if suite.experiment == Suite.model_fields["experiment"].default else ["--experiment", suite.experiment]
    )
    mlflow = f"open {uri}" if uri.startswith("http") else f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
    return [
        f"MLflow: {mlflow}",
        f"one row in full: {shlex.join(['gibench', 'show', rows[0]['run_id'][:8], *options])}",
    ]
