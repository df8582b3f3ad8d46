"""The geometry of one line chart, which a template draws as SVG in the colours of the page."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 400, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 12, 12, 46
_INSET = 20  # of the first and last value
_LETTER, _GAP = 7.5, 6  # how wide one is at most, and what is between two labels of the horizontal axis
_HUES = 7  # classes of colour; further series have them again, dashed
_MARKERS = (
    "M-3.5,0a3.5,3.5 0 1 0 7,0a3.5,3.5 0 1 0 -7,0z",
    "M-3,-3h6v6h-6z",
    "M0,-4l4,7h-8z",
    "M0,-4.5l4.5,4.5l-4.5,4.5l-4.5,-4.5z",
)


class Point(NamedTuple):
    """One value with its interval."""

    x: float
    y: float
    low: float
    high: float


class Style(NamedTuple):
    """How a line looks: classes of the style sheet, and the path of its markers."""

    name: str
    classes: str
    marker: str


class Series(NamedTuple):
    """One line, its points from left to right."""

    style: Style
    points: list[Point]


class Mark(NamedTuple):
    """A point in pixels, with the ends of its interval and what it says."""

    x: float
    y: float
    low: float
    high: float
    about: str


class Drawn(NamedTuple):
    """A series in pixels."""

    style: Style
    path: str
    marks: Sequence[Mark]


class Tick(NamedTuple):
    """A labelled place on an axis, in pixels."""

    at: float
    text: str


class Chart(NamedTuple):
    """A chart in pixels."""

    over: str
    label: str
    across: Sequence[Tick]
    up: Sequence[Tick]
    series: Sequence[Drawn]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM


def styles(names: Mapping[str, bool]) -> dict[str, Style]:
    """A look for each line: controls in grey, the others in colours, and with other markers where these recur.

    Args:
        names: of the lines, each with whether it is a control.
    """
    found: dict[str, Style] = {}
    number = 0
    for name, is_control in names.items():
        classes = "control" if is_control else f"hue{number % _HUES}" + (" again" if number >= _HUES else "")
        found[name] = Style(name, classes, _MARKERS[len(found) % len(_MARKERS)])
        number += not is_control
    return found


def draw(over: str, label: str, series: Sequence[Series], logarithmic: bool, ends: tuple[float, float] | None) -> Chart:
    """Place series on axes.

    Args:
        over: what the horizontal axis shows.
        label: what the vertical axis shows.
        series: each with a point or more.
        logarithmic: the horizontal axis, whose values are then above 0.
        ends: of the vertical axis; without them it is logarithmic, from power of ten to power of ten.
    """
    points = [point for each in series for point in each.points]
    values = sorted({point.x for point in points})
    x = _scale(values[0], values[-1], _LEFT + _INSET, WIDTH - _RIGHT - _INSET, logarithmic)
    if ends:
        ticks = [ends[0] + (ends[1] - ends[0]) * step / 4 for step in range(5)]
    else:
        ticks = _decades(min(point.y for point in points), max(point.y for point in points))
    y = _scale(ticks[0], ticks[-1], HEIGHT - _BOTTOM, _TOP, not ends)
    return Chart(
        over,
        label,
        _apart([Tick(x(value), _short(value)) for value in values]),
        [Tick(y(value), _short(value)) for value in ticks],
        [_drawn(each, x, y) for each in series],
    )


def _decades(least: float, most: float) -> list[float]:
    """Powers of ten around two values, with the steps between them where there are few."""
    first, last = math.floor(math.log10(least)), math.ceil(math.log10(most))
    last = max(last, first + 1)
    steps = (1, 2, 5) if last - first < 3 else (1,)
    return [step * 10.0**power for power in range(first, last) for step in steps] + [10.0**last]


def _scale(least: float, most: float, start: float, end: float, logarithmic: bool) -> Callable[[float], float]:
    """A function from values to pixels; one value alone is in the middle."""

    def place(value: float) -> float:
        return math.log10(value) if logarithmic else value

    span = place(most) - place(least)

    def scale(value: float) -> float:
        share = (place(value) - place(least)) / span if span else 0.5
        return round(start + (end - start) * share, 1)

    return scale


def _short(value: float) -> str:
    if 100 <= value < 1e5:
        return f"{value:.0f}"
    return re.sub(r"e([+-])0*", lambda found: "e" + found[1].strip("+"), f"{value:.3g}")


def _apart(ticks: Sequence[Tick]) -> list[Tick]:
    """Those whose labels do not touch, from the left."""
    kept: list[Tick] = []
    for tick in ticks:
        if not kept or tick.at - kept[-1].at >= _LETTER * (len(tick.text) + len(kept[-1].text)) / 2 + _GAP:
            kept.append(tick)
    return kept


def _drawn(series: Series, x: Callable[[float], float], y: Callable[[float], float]) -> Drawn:
    marks = [
        Mark(
            x(point.x), y(point.y), y(point.low), y(point.high), f"{series.style.name}: {point.y:.4g} at {point.x:.4g}"
        )
        for point in series.points
    ]
    return Drawn(series.style, "M" + "L".join(f"{mark.x},{mark.y}" for mark in marks), marks)
