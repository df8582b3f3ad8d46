"""Rows in brief, for people: what all of them share, a line for those that differ in their seed alone, and why some
have no result. The command line prints it, and what `gibench.run` returns shows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from statistics import fmean
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gibench.axes import axes_of
from gibench.leaderboard.utility import SCENARIO, summarize
from gibench.registry import readable
from gibench.result import mixture
from gibench.text import visible

Group = Sequence[Any]  # rows of one kind that differ in their seed alone
Columns = dict[str, Callable[[Group], str]]  # heading, and what stands below it

_ALWAYS = ("attack", "defense", "batch_size")  # the axes that are shown even if they are the same in every row
_SCORES = (  # heading, column, digits
    ("mean PSNR dB", "psnr_mean", 2),
    ("SSIM", "ssim_mean", 3),
    ("LPIPS", "lpips_mean", 3),
    ("exact", "exact_rate", 3),
    ("certified", "certified_rate", 3),
    ("runtime s", "runtime_s", 3),
)


class Brief(NamedTuple):
    """A table of texts, as they are: whoever shows them escapes them."""

    shared: str  # what is the same in every row
    heads: list[str]
    lines: list[list[str]]
    axes: int  # how many of the first columns are axes
    below: list[str]  # warnings and reasons


def cells(rows: Sequence[Any]) -> Brief:
    """Attacked cells, with means over the seeds."""
    columns: Columns = {"status": _statuses}
    columns |= {head: _mean_of(column, digits) for head, column, digits in _SCORES}
    if any(row.false_certificates for row in rows):
        columns["false certificates"] = lambda group: str(sum(_values(group, "false_certificates")))
    columns |= {"epsilon": _promised("epsilon"), "delta": _promised("delta")}
    return _brief(rows, columns)


def trials(rows: Sequence[Any]) -> Brief:
    """Training runs, with means over the seeds, each defense compared with none."""
    places = (*SCENARIO, "defense")
    lines = {tuple(line[name] for name in places): line for line in summarize(rows)}

    def shown(form: str, *names: str, factor: float = 1) -> Callable[[Group], str]:
        def show(group: Group) -> str:
            line = lines[tuple(getattr(group[0], name) for name in places)]
            values = [line[name] for name in names]
            return "-" if None in values else form.format(*(value * factor for value in values))

        return show

    columns: Columns = {
        "status": _statuses,
        "accuracy": shown("{:.3f}", "accuracy"),
        "least - most": shown("{:.3f} - {:.3f}", "accuracy_low", "accuracy_high"),
        "lost": shown("{:.3f}", "accuracy_lost"),
        "loss": shown("{:.3f}", "loss"),
        "ms a round": shown("{:.2f}", "round_s", factor=1000),
        "overhead": shown("{:.1f}x", "overhead"),
        "kB": shown("{:.1f}", "round_bytes", factor=1e-3),
        "of none": shown("{:.0%}", "bytes_share"),
        "epsilon a round": _promised("epsilon"),
        "of the run": _promised("run_epsilon"),
        "delta": _promised("delta"),
    }
    return _brief(rows, columns)


def first(brief: Brief, count: int, where: str) -> Brief:
    """So many of its lines; how many more there are is said below, and where to see them."""
    if (more := len(brief.lines) - count) <= 0:
        return brief
    return brief._replace(lines=brief.lines[:count], below=[f"... and {more} more lines: {where}", *brief.below])


def print_on(console: Console, brief: Brief, *more: str) -> None:
    """Print it, with more lines below."""
    console.print(_printed(brief.shared))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place, head in enumerate(brief.heads):
        if place < brief.axes:
            table.add_column(head, overflow="fold")
        else:
            table.add_column(head, justify="left" if head in ("seed", "status") else "right", no_wrap=True)
    for line in brief.lines:
        table.add_row(*map(_printed, line))
    console.print("", table, "", sep="\n")
    for text in (*brief.below, *more):
        console.print(_printed(text))


def title(job: Any) -> str:
    """A job in a few words, without the settings that have their default value."""
    named = [name for name, axis in reversed(axes_of(type(job)).items()) if axis.plugin]
    words = [*(_shown(job, name) for name in named), f"batch {job.batch_size}"]
    return " | ".join([*words, f"seed {job.seed}"])


def number(value: float | None, digits: int) -> str:
    """A number for people to read; a dash for what does not apply."""
    return "-" if value is None else f"{value:.{digits}f}"


def _brief(rows: Sequence[Any], columns: Columns) -> Brief:
    axes = [name for name in reversed(axes_of(type(rows[0]))) if name != "seed"]
    varying = {name for name in axes if len({getattr(row, name) for row in rows}) > 1}
    fixed = [f"{_head(name)} {_shown(rows[0], name)}" for name in axes if name not in varying and name not in _ALWAYS]
    hardware = ", ".join(sorted({row.machine or "unknown" for row in rows}))
    heads = [name for name in axes if name in varying or name in _ALWAYS]
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, name) for name in axes), []).append(row)
    lines = [
        [*(_shown(group[0], name) for name in heads), _seeds(group), *(show(group) for show in columns.values())]
        for group in groups.values()
    ]
    return Brief(
        shared=f"{'; '.join(reversed(fixed))}; hardware {hardware}",
        heads=[*map(_head, heads), "seed", *columns],
        lines=lines,
        axes=len(heads),
        below=[*_mixture(rows), *_reasons(rows)],
    )


def _printed(text: str) -> str:
    return escape(visible(text))


def _head(axis: str) -> str:
    return axis.replace("_", " ")


def _shown(job: Any, axis: str) -> str:
    """The value of an axis, a spec without the settings that have their default value."""
    value, kind = getattr(job, axis), axes_of(type(job))[axis].plugin
    return _readable(kind, value) if kind else str(value)


_readable = lru_cache(maxsize=1000)(readable)  # thousands of cells share few specs


def _values(group: Group, column: str) -> list[Any]:
    return [value for row in group if (value := getattr(row, column)) is not None]


def _mean_of(column: str, digits: int) -> Callable[[Group], str]:
    """The mean; what failed counts as mid-grey, what was skipped does not (rule E9)."""

    def show(group: Group) -> str:
        values = _values(group, column)
        return number(fmean(values) if values else None, digits)

    return show


def _promised(column: str) -> Callable[[Group], str]:
    """What a defense promises, the weakest of the group's."""

    def show(group: Group) -> str:
        found = max(_values(group, column), default=None)
        return "-" if found is None else f"{found:.4g}"

    return show


def _seeds(group: Group) -> str:
    return str(group[0].seed) if len(group) == 1 else f"{len(group)} seeds"


def _statuses(group: Group) -> str:
    counts = Counter(row.status for row in group)
    return next(iter(counts)) if len(counts) == 1 else ", ".join(f"{count} {name}" for name, count in counts.items())


def _mixture(rows: Iterable[Any]) -> list[str]:
    found = mixture(row.torch for row in rows)
    return [f"warning: {found}", ""] if found else []


def _reasons(rows: Iterable[Any]) -> list[str]:
    """Why rows are not `ok`, each reason once."""
    seen: dict[tuple[str, str], list[Any]] = {}
    for row in rows:
        if row.reason:
            seen.setdefault((row.status, row.reason), []).append(row)
    lines = []
    for (status, reason), same in seen.items():
        more = f" and {len(same) - 1} more" if len(same) > 1 else ""
        lines.append(f"{status}: {reason} ({title(same[0])}{more}; gibench show {same[0].run_id[:8]})")
    return [*lines, ""] if lines else []
