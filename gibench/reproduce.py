"""What a published table claims, as cells that can be run here, and the claim beside what they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from gibench.axes import axes_of, canonical_defense
from gibench.cell import Cell
from gibench.errors import UsageError
from gibench.leaderboard import results as published_results
from gibench.leaderboard.formats import records
from gibench.leaderboard.published import read
from gibench.leaderboard.published import seeds as as_ranges
from gibench.leaderboard.ranks import SCENARIO
from gibench.leaderboard.table import newest, summarize
from gibench.registry import GROUPS, load, readable, resolve
from gibench.result import Row
from gibench.spec import Spec, format_chain, parse, parse_chain
from gibench.sweep import named
from gibench.sweep.suite import Suite

README = "README"  # the name of all tables that the front page shows
QUICK = 60.0  # seconds that the attacks of a quick run took where they were published, or as many as every kind needs
_ROUNDING = 0.05  # dB, half a step of what tables show
_LINE = (*SCENARIO, "defense", "attack")


def names() -> list[str]:
    """The suites whose rows are published."""
    return [name for name in named.suites() if _file(name).is_file()]


def meant(name: str) -> list[str]:
    """The suites that a name stands for.

    Raises:
        UsageError: no published rows are of it.
    """
    from gibench.leaderboard.publish import FRONT_PAGE

    if name == README:
        return list(FRONT_PAGE)
    if name not in (known := names()):
        raise UsageError(f"no rows are published of '{name}': name {README}, or one of {', '.join(known)}")
    return [name]


def _file(name: str) -> Path:
    return Path(str(resources.files(published_results))) / f"{name}.csv"


@dataclass(frozen=True)
class Plan:
    """Published rows, each with the cell that gives it here."""

    suite: str
    pairs: list[tuple[Row, Cell]]
    refused: list[str]  # what cannot be run here, in words


def plan(suite: str, quick: bool = False, machine: Mapping[str, Any] | None = None) -> Plan:
    """The cells behind a table, in the spelling of today.

    Args:
        suite: its name.
        quick: few of them, see `cheap`.
        machine: the device or threads to run on, in canonical form, where they are to be others than the rows'.

    Raises:
        UsageError: the rows or the suite cannot be read.
    """
    rows = newest(read(Row, _file(suite)))
    patience = {_axes(cell): cell.timeout for cell in Suite.read(named.find(Path(suite)), {}).cells()}
    current = lru_cache(maxsize=None)(_current)  # a table has few specs and many cells
    pairs, refused = [], dict[str, int]()
    for row in rows:
        try:
            cell = _cell(row, machine or {}, current)
        except UsageError as error:
            line = f"{_shown(row)} cannot be run here ({error})"
            refused[line] = refused.get(line, 0) + 1
        else:
            pairs.append((row, replace(cell, timeout=patience.get(_axes(cell)))))
    told = [f"{line}: {count} cells" for line, count in refused.items()]
    return Plan(suite, cheap(pairs) if quick else pairs, told)


def _axes(cell: Cell) -> tuple[Any, ...]:
    return tuple(getattr(cell, name) for name, axis in axes_of(Cell).items() if not axis.of_machine)


def _cell(row: Row, machine: Mapping[str, Any], current: Callable[[str, str], str]) -> Cell:
    """The cell of a row, its specs with the settings and names that plugins have now."""
    axes = axes_of(Cell)
    values = {name: getattr(row, name) for name in axes} | dict(machine)
    if values["device"] == "cuda" and not torch.cuda.is_available():
        raise UsageError("it was run on a GPU, and there is none: see --device")
    for name, axis in axes.items():
        if axis.plugin:
            values[name] = current(axis.plugin, values[name])
    return Cell(**values)


def _current(kind: str, text: str) -> str:
    """A stored spec, or chain of them, in the canonical form of today."""
    renamed = _renamed(kind, text)
    return canonical_defense(renamed) if kind == "defense" else str(resolve(kind, renamed))


def _renamed(kind: str, text: str) -> str:
    chain = []
    for spec in parse_chain(text):
        settings = load(kind, spec.name).renamed(dict(spec.settings))
        # A setting that is called as a kind of plugin is a spec itself.
        inner = {key: _renamed(key, value) if key in GROUPS else value for key, value in settings.items()}
        chain.append(Spec.of(spec.name, inner))
    return format_chain(chain)


def cheap(pairs: Sequence[tuple[Row, Cell]]) -> list[tuple[Row, Cell]]:
    """The cheapest cell of each attack, defense and kind of network, then the cheapest others up to `QUICK` seconds."""

    def cost(number: int) -> tuple[bool, float, int]:
        row = pairs[number][0]
        return row.status == "timeout", row.runtime_s or 0.0, number

    chosen: dict[tuple[str, ...], int] = {}
    order = sorted(range(len(pairs)), key=cost)
    for number in order:
        row = pairs[number][0]
        chosen.setdefault((row.attack, row.defense, parse(row.model).name), number)
    kept = set(chosen.values())
    left = QUICK - sum(pairs[number][0].runtime_s or 0.0 for number in kept)
    for number in order:
        seconds = pairs[number][0].runtime_s or 0.0
        if number not in kept and seconds <= left:
            kept.add(number)
            left -= seconds
    return [pairs[number] for number in sorted(kept)]


def _shown(row: Row) -> str:
    attack, defense = readable("attack", row.attack), readable("defense", row.defense)
    return f"{attack} | {defense} | {readable('model', row.model)} | batch {row.batch_size} {row.labels}"


@dataclass(frozen=True)
class Line:
    """A line of the table: what it claims of some seeds, and what they gave here."""

    suite: str
    line: str
    seeds: str
    out_of_time: int  # seeds that are left out, since they ran out of time here or there
    exact_claimed: float | None
    exact_measured: float | None
    psnr_claimed: float | None  # dB, the median over seeds of the batches' medians
    psnr_measured: float | None
    seconds_ratio: float | None  # of the attack's seconds here to those there, which nobody judges
    agrees: bool | None  # None: nothing is left to judge


def compare(plan: Plan, measured: Mapping[str, Row]) -> list[Line]:
    """A line for each of the table's.

    Args:
        plan: what was to be run.
        measured: the rows that came of it, by the key of the cell.
    """
    groups: dict[tuple[Any, ...], list[tuple[Row, Row]]] = {}
    for row, cell in plan.pairs:
        if cell.key in measured:
            groups.setdefault(tuple(getattr(row, name) for name in _LINE), []).append((row, measured[cell.key]))
    return [_line(plan.suite, group) for group in groups.values()]


def _line(suite: str, group: Sequence[tuple[Row, Row]]) -> Line:
    judged = [pair for pair in group if "timeout" not in (pair[0].status, pair[1].status)]
    first = group[0][0]
    names = {name: getattr(first, name) for name in _LINE}  # of the claim, so that both are summed up alike
    claim, found = (_figures([replace(pair[side], **names) for pair in judged]) for side in (0, 1))
    agrees = None
    if judged:
        psnr = (claim["psnr_median"], found["psnr_median"])
        near = psnr[0] == psnr[1] if None in psnr else abs(psnr[0] - psnr[1]) <= _ROUNDING
        agrees = near and claim["exact_rate"] == found["exact_rate"] and claim["n_ok"] == found["n_ok"]
    seconds = (claim.get("runtime_s"), found.get("runtime_s"))
    return Line(
        suite,
        _shown(first),
        as_ranges(row.seed for row, _ in group),
        len(group) - len(judged),
        claim.get("exact_rate"),
        found.get("exact_rate"),
        claim.get("psnr_median"),
        found.get("psnr_median"),
        seconds[1] / seconds[0] if seconds[0] and seconds[1] else None,
        agrees,
    )


def _figures(rows: Sequence[Row]) -> dict[str, Any]:
    found = records(summarize(rows))
    return found[0] if found else {}
