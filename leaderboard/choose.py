"""Which of the stored rows are wanted, as people say it: by the values of axes, and attacks by their spec.

Specs are compared as they are stored, so that no plugin is imported for it, nor need it be installed any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from gibench.axes import axes_of
from gibench.cell import Cell
from gibench.errors import UsageError
from gibench.result import STATUSES, Row
from gibench.spec import parse, parse_chain

from .columns import Shorten
from .relative import Group, Place, place

OPTION = "--filter"
_SHOWN = 12  # values that an error names
_OUTCOMES = ("attack", "status")  # what lines of the summary differ in that are ranked together

Wanted = Mapping[str, Sequence[str]]  # axis to values, of which one is to be had


def wanted(texts: Iterable[str]) -> Wanted:
    """Filters as people write them: `AXIS=VALUE`, several of one axis for either.

    Raises:
        UsageError: one is written in another way, or of no axis.
    """
    found: dict[str, list[str]] = {}
    names = (*axes_of(Cell), "status")
    for text in texts:
        axis, equals, value = text.partition("=")
        axis = axis.strip().replace("-", "_")
        if not equals:
            raise UsageError(f"{OPTION} {text} names no value: write AXIS=VALUE, such as attack=spearpp")
        if axis not in names:
            raise UsageError(f"{OPTION} has no axis '{axis}': there are {', '.join(sorted(names))}")
        found.setdefault(axis, []).append(value)
    return found


def filtered(rows: Sequence[Row], filters: Wanted) -> list[Row]:
    """The rows that have, of each axis that is named, one of the values; in the same order.

    Raises:
        UsageError: a value is none of its axis, or no row has it.
    """
    found = list(rows)
    for axis, values in filters.items():
        fits = _test(axis, values)
        kept = [row for row in found if fits(row)]
        if found and not kept:
            there = dict.fromkeys(str(getattr(row, axis)) for row in found)
            shown = [*list(there)[:_SHOWN], *(["..."] if len(there) > _SHOWN else [])]
            texts = " or ".join(f"{axis}={value}" for value in values)
            raise UsageError(f"none of {len(found)} rows has {texts}: there are {', '.join(shown)}")
        found = kept
    return found


def mingled(rows: Iterable[Row]) -> list[Row]:
    """The rows as if all were from one place, so that of one cell's rows in several files the newest counts."""
    return [replace(row, source=None) for row in rows]


def before_ranking(filters: Wanted) -> Wanted:
    """Of the filters those that leave whole comparisons: the others take lines away, and no rank or mean with them."""
    return {axis: values for axis, values in filters.items() if axis not in _OUTCOMES}


def _test(axis: str, values: Sequence[str]) -> Callable[[Row], bool]:
    if axis == "status":
        if unknown := [value for value in values if value not in STATUSES]:
            raise UsageError(f"{OPTION}: status={unknown[0]} is refused: there are {', '.join(STATUSES)}")
        return lambda row: row.status in values
    if axes_of(Cell)[axis].plugin:
        tests = [fits(value) for value in values]
        return lambda row: any(test(getattr(row, axis)) for test in tests)
    from gibench.sweep.choice import pattern  # with pydantic

    return pattern(Cell, {axis: list(values)}, OPTION)


def fits(text: str) -> Callable[[str], bool]:
    """Whether a stored spec, or chain of them, has these names and, of each, the settings that are given.

    Raises:
        UsageError: the text is no spec.
    """
    given = _by_name(text)

    def test(stored: str) -> bool:
        try:
            found = _by_name(stored)
        except UsageError:  # what somebody else stored need be no spec
            return False
        return found.keys() == given.keys() and all(
            key in found[each] and _same(found[each][key], value)
            for each, settings in given.items()
            for key, value in settings.items()
        )

    return test


def _by_name(text: str) -> dict[tuple[str, int], dict[str, str]]:
    """The settings of each spec of a chain, by its name and how many of that name are before it."""
    found: dict[tuple[str, int], dict[str, str]] = {}
    for spec in parse_chain(text):
        found[spec.name, sum(name == spec.name for name, _ in found)] = dict(spec.settings)
    return found


def _same(stored: str, given: str) -> bool:
    """Whether two texts are one value: 1e-4 is 0.0001, and `dlg` within a spec is it with all its settings."""
    if stored == given:
        return True
    with suppress(ValueError):
        return float(stored) == float(given)
    with suppress(UsageError):
        return fits(given)(stored)
    return False


def attack_named(text: str, groups: Sequence[Group], shorten: Shorten, option: str) -> dict[Place, Group]:
    """The groups of one attack, by their place.

    Several variants may fit: then the one is meant that has no other settings, its defaults apart.

    Args:
        text: a spec as people write it.
        groups: from `gibench.leaderboard.table.grouped`.
        shorten: kind of plugin and canonical spec to the spec without what has its default value.
        option: that it was given to, in error messages.

    Raises:
        UsageError: no group is of it, or several variants of it met the same defense.
    """
    test, exact = fits(text), str(parse(text))
    found: dict[Place, list[Group]] = {}
    for group in groups:
        if test(group[-1].attack):
            found.setdefault(place(group), []).append(group)
    if not found:
        there = dict.fromkeys(shorten("attack", group[-1].attack) for group in groups)
        raise UsageError(f"{option} {text} is no attack among the rows: there are {', '.join(there) or 'none'}")
    return {where: _one(some, exact, shorten, option) for where, some in found.items()}


def _one(groups: Sequence[Group], exact: str, shorten: Shorten, option: str) -> Group:
    if len(groups) == 1:
        return groups[0]
    names = [shorten("attack", group[-1].attack) for group in groups]
    if names.count(exact) != 1:
        several = names if len(set(names)) == len(names) else [group[-1].attack for group in groups]
        raise UsageError(f"{option} {exact} may be {' or '.join(several)}: write more of its settings")
    return groups[names.index(exact)]
