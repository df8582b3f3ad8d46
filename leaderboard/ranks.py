"""Which attack is better: ranks on common seeds, and whether an attack is above the controls (rules E14, E15, E21)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from gibench.axes import scenario_of
from gibench.cell import CellAxes
from gibench.result import Row
from gibench.spec import parse

SCENARIO = scenario_of(CellAxes)
CONTROLS = frozenset({"random", "mean-image", "wrong-gradient"})  # of rows stored before they said so

Cells = Mapping[int, Row]  # of one attack against one defense in one scenario, by seed


class Place(NamedTuple):
    """Where an attack stands among its rivals."""

    rank: int | None  # from 1; equal ones share it
    unranked: str | None  # why it has none
    above_control: bool | None  # None of a control, where no control met the same seeds, and of what did not run


def is_control(row: Row) -> bool:
    """Whether the row is of a negative control."""
    return parse(row.attack).name in CONTROLS if row.control is None else row.control


def tried(rows: Iterable[Row]) -> list[Row]:
    """The rows of cells whose attack ran, whatever came of it: they have a score (rule E9)."""
    return [row for row in rows if row.status != "skipped" and row.psnr_mean is not None]


def places(groups: Sequence[Sequence[Row]]) -> list[Place]:
    """The place of each attack, in the order given.

    Rivals met the same defense in the same scenario, and are both adaptive or both not. Ranks are on the seeds that
    `common` gives; an attack that lacks one of them has none, and neither has a control or what picks with the truth.

    Args:
        groups: the rows of one attack against one defense in one scenario each, every seed once.
    """
    cells = [{row.seed: row for row in tried(group)} for group in groups]
    heads = [group[-1] for group in groups]
    met: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for number, head in enumerate(heads):
        met[tuple(getattr(head, name) for name in (*SCENARIO, "defense"))].append(number)
    found = [Place(None, _no_rival(head, its), None) for head, its in zip(heads, cells, strict=True)]
    for numbers in met.values():
        controls = [cells[number] for number in numbers if is_control(heads[number])]
        for adaptive in (False, True):
            rivals = [n for n in numbers if found[n].unranked is None and bool(heads[n].adaptive) == adaptive]
            for number, (rank, why) in zip(rivals, _ranked([cells[n] for n in rivals]), strict=True):
                found[number] = Place(rank, why, None)
        for number in numbers:
            if not is_control(heads[number]):
                found[number] = found[number]._replace(above_control=_above(cells[number], controls))
    return found


def _no_rival(row: Row, cells: Cells) -> str | None:
    """Why an attack takes no part in any ranking."""
    if is_control(row):
        return "control"
    if row.oracle:
        return "oracle"
    return None if cells else "not run"


def _ranked(rivals: Sequence[Cells]) -> list[tuple[int | None, str | None]]:
    seeds = common(rivals)
    worth = [strength(cells, seeds) if seeds <= cells.keys() else None for cells in rivals]
    best = sorted((each for each in worth if each is not None), reverse=True)
    return [
        (None, f"seeds {len(seeds & cells.keys())} of {len(seeds)}") if each is None else (1 + best.index(each), None)
        for cells, each in zip(rivals, worth, strict=True)
    ]


def common(rivals: Sequence[Cells]) -> set[int]:
    """The seeds to compare rivals on: the set that most of them were tried on, of two equally frequent the larger.

    Sets of fewer than half as many seeds as the largest are left out: one seed says nothing beside four.
    """
    sets = Counter(frozenset(cells) for cells in rivals)
    most = max(map(len, sets), default=0)
    counted = [(times, len(each), sorted(each)) for each, times in sets.items() if 2 * len(each) >= most]
    return set(max(counted)[-1]) if counted else set()


def strength(cells: Cells, seeds: Iterable[int]) -> tuple[float, ...]:
    """What is compared, the larger the better: what more than half of the seeds reach, then the means.

    Of either first the exact rate, then the median PSNR of the cell. What failed counts with its score (rule E9), so
    that half of the seeds may not be lost: two exact and two failed ones are behind four of 55 dB.
    """
    rows = [cells[seed] for seed in seeds]
    scores = [sorted((getattr(row, name) or 0.0 for row in rows), reverse=True) for name in COMPARED]
    return (*(each[len(each) // 2] for each in scores), *(sum(each) / len(each) for each in scores))


COMPARED = ("exact_rate", "psnr_median")


def _above(cells: Cells, controls: Iterable[Cells]) -> bool | None:
    """Whether an attack is better than every control on the seeds that it shares with it."""
    shared = [(control, cells.keys() & control.keys()) for control in controls]
    better = [strength(cells, seeds) > strength(control, seeds) for control, seeds in shared if seeds]
    return all(better) if better else None
