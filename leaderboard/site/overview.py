"""The summary as one table with a group for each scenario and threat model, and what it can be filtered by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from gibench.errors import UsageError
from gibench.leaderboard.columns import Shown
from gibench.leaderboard.sections import notes
from gibench.leaderboard.table import GROUP, group_of
from gibench.registry import readable
from gibench.result import Row
from gibench.spec import parse_chain
from gibench.text import shortened, visible

Section = tuple[str, list[dict[str, Any]]]  # a scenario in words, and its lines of the summary

_LONGEST = 300  # characters of a reason; the page of its row has it in full


class Line(NamedTuple):
    """One attack against one defense: what its cells say, what it is filtered by, and the pages of its seeds."""

    cells: Sequence[str]
    attack: str
    defense: str
    marks: str
    reason: str
    seeds: Sequence[tuple[int, str, str]]


class Group(NamedTuple):
    """One scenario."""

    title: str
    notes: Sequence[str]
    dataset: str
    model: str
    batch: str
    lines: Sequence[Line]


class Filter(NamedTuple):
    """What can be chosen, by the name that lines and groups have it under."""

    name: str
    label: str
    choices: Sequence[str]


def table(summary: Sequence[Section], columns: Mapping[str, Shown], pages: Sequence[tuple[Row, str]]) -> dict[str, Any]:
    """What the template of the index takes: `columns` and what they mean, `groups` and `filters`.

    Args:
        summary: from `gibench.leaderboard.sections.sections`.
        columns: from `gibench.leaderboard.columns.shown`.
        pages: the rows that it is of, each with the name of its page.
    """
    seeds = _seeds(pages)
    groups = [
        Group(
            title,
            list(notes(lines, readable, visible)),
            readable("dataset", lines[0]["dataset"]),
            readable("model", lines[0]["model"]),
            str(lines[0]["batch_size"]),
            [_line(line, columns, seeds) for line in lines],
        )
        for title, lines in summary
    ]
    lines = [line for group in groups for line in group.lines]
    filters = [
        Filter("attack", "Attack", _sorted(line.attack for line in lines)),
        Filter("defense", "Defense", _sorted(line.defense for line in lines)),
        Filter("model", "Model", _sorted(group.model for group in groups)),
        Filter("batch", "Batch size", sorted({group.batch for group in groups}, key=lambda text: (len(text), text))),
        Filter("dataset", "Data set", _sorted(group.dataset for group in groups)),
    ]
    return {
        "columns": [
            (each.heading, each.is_text and name != "rank")  # a rank is a number where there is one
            for name, each in columns.items()
        ],
        "meanings": [(each.heading, each.says) for each in columns.values() if each.says],
        "groups": groups,
        "filters": filters,
        "reasons": any(line.reason for line in lines),
    }


def _seeds(pages: Sequence[tuple[Row, str]]) -> Mapping[tuple[Any, ...], list[tuple[int, str, str]]]:
    """The seed, page and status of the rows behind each line."""
    found: dict[tuple[Any, ...], list[tuple[int, str, str]]] = defaultdict(list)
    for row, page in pages:
        found[group_of(row)].append((row.seed, page, row.status))
    return found


def _line(line: dict[str, Any], columns: Mapping[str, Shown], seeds: Mapping[tuple[Any, ...], list[Any]]) -> Line:
    marks = [mark for mark in ("control", "adaptive", "oracle") if line[mark]]
    return Line(
        [each.show(line, readable) for each in columns.values()],
        name_of(line["attack"]),
        name_of(line["defense"]),
        " ".join([*marks, *(["not-above"] if line["above_control"] is False else [])]),
        shortened(line["reason"] or "", _LONGEST),
        sorted(seeds[tuple(line[name] for name in GROUP)]),
    )


def name_of(spec: str) -> str:
    """The names of a plugin, or of composed ones, without settings; all of it where it is no spec."""
    try:
        return "+".join(each.name for each in parse_chain(spec))
    except UsageError:
        return spec


def _sorted(names: Iterable[str]) -> list[str]:
    return sorted(set(names))
