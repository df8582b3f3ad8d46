"""What is measured over the batch size and over the strength of a defense: each curve of rows that are comparable."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gibench.errors import UsageError
from gibench.leaderboard.formats import attack_of, number, scenario, trials, within
from gibench.leaderboard.ranks import SCENARIO
from gibench.leaderboard.tradeoff import KINDS, place_of
from gibench.registry import readable
from gibench.text import visible

from .chart import Chart, Point, Series, Style, draw, styles
from .overview import Section

Lines = Sequence[dict[str, Any]]
Placed = tuple[float, dict[str, Any]]  # the value on the horizontal axis, and the line


class Measure(NamedTuple):
    """What stands on the vertical axis."""

    label: str
    value: str
    low: str | None = None
    high: str | None = None
    ends: tuple[float, float] | None = None  # of the axis; None where it is logarithmic


_EXACT = Measure("share recovered exactly", "exact_rate", "exact_low", "exact_high", (0, 1))
_PSNR = Measure("median PSNR, dB", "psnr_median", "psnr_low", "psnr_high", (0, 100))
_SECONDS = Measure("seconds of the attack", "runtime_s")


_SHOWN = (
    trials,
    within("exact_rate", "exact_low", "exact_high", 3),
    within("psnr_median", "psnr_low", "psnr_high", 2),
    number("runtime_s", 3),
)


class Axis(NamedTuple):
    """What stands on the horizontal axis.

    `place` gives what a line's defense shares with the others of its curve, and the value; None of other lines.
    """

    label: str
    freed: str  # the axis of the scenario that points may differ in; empty where it is the defense's strength
    measures: tuple[Measure, ...]
    logarithmic: bool
    place: Callable[[dict[str, Any]], tuple[str, float] | None]


class Group(NamedTuple):
    """The curves of one scenario over one axis, and their numbers."""

    title: str
    defense: str
    over: str
    charts: Sequence[Chart]
    legend: Sequence[Style]
    numbers: Sequence[Sequence[str]]


def _strength(kind: str) -> Callable[[dict[str, Any]], tuple[str, float] | None]:
    def place(line: dict[str, Any]) -> tuple[str, float] | None:
        try:
            found, family, strength = place_of(line)
        except (UsageError, KeyError, ValueError):  # a plugin or a setting of others
            return None
        return (family, strength) if found == kind else None

    return place


def _batch(line: dict[str, Any]) -> tuple[str, float]:
    return line["defense"], line["batch_size"]


_AXES = (
    Axis("batch size", "batch_size", (_EXACT, _PSNR, _SECONDS), True, _batch),
    *(
        Axis(kind.label.split(";")[0], "", (_EXACT, _PSNR), kind.logarithmic, _strength(name))
        for name, kind in KINDS.items()
    ),
)


def groups(summary: Sequence[Section]) -> list[Group]:
    """The curves of every scenario where an attack was measured at two points or more, axis by axis.

    Args:
        summary: from `gibench.leaderboard.formats.sections`.
    """
    ran = [line for _, lines in summary for line in lines if line["n_tried"]]
    return [group for axis in _AXES for group in _over(axis, ran)]


def _over(axis: Axis, ran: Lines) -> Iterator[Group]:
    """A group for each set of lines that differ in the axis and the attack alone."""
    shared: dict[tuple[Any, ...], list[Placed]] = defaultdict(list)
    for line in ran:
        placed = axis.place(line)
        if placed and math.isfinite(placed[1]) and (placed[1] > 0 or not axis.logarithmic):
            scenario_without = tuple(line[name] for name in SCENARIO if name != axis.freed)
            shared[scenario_without, placed[0]].append((placed[1], line))
    for (_, family), points in shared.items():
        points.sort(key=lambda point: point[0])
        looks = styles({attack_of(line, readable): bool(line["control"]) for _, line in points})
        if charts := [chart for measure in axis.measures for chart in _charts(axis, measure, points, looks)]:
            yield Group(
                scenario([line for _, line in points], visible),
                readable("defense", family),
                axis.label,
                charts,
                list(looks.values()),
                [_numbers(*point) for point in points],
            )


def _charts(axis: Axis, measure: Measure, points: Sequence[Placed], looks: Mapping[str, Style]) -> Iterator[Chart]:
    """One chart, or of seconds one for each machine (rule E16); none where no attack has two points."""
    machines: dict[str, dict[str, Series]] = defaultdict(dict)
    for x, line in points:
        y = line[measure.value]
        is_idle = measure is _SECONDS and line["control"]  # the seconds of what learns nothing say nothing
        if y is None or is_idle or (measure.ends is None and y <= 0):
            continue
        machine = (line["hardware"] or "") if measure is _SECONDS else ""
        low, high = (y if name is None or line[name] is None else line[name] for name in (measure.low, measure.high))
        attack = attack_of(line, readable)
        series = machines[machine].setdefault(attack, Series(looks[attack], []))
        series.points.append(Point(x, y, low, high))
    for machine, found in machines.items():
        if any(len(series.points) > 1 for series in found.values()):
            label = f"{measure.label} on {machine}" if machine else measure.label
            yield draw(axis.label, label, list(found.values()), axis.logarithmic, measure.ends)


def _numbers(x: float, line: dict[str, Any]) -> list[str]:
    return [attack_of(line, readable), f"{x:g}", *(show(line, readable) for show in _SHOWN)]
