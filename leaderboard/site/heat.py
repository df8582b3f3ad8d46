"""Every attack against every defense in one scenario, as coloured tables of the exact rate and of the PSNR."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from gibench.leaderboard.formats import attack_of
from gibench.leaderboard.matrix import RANGE
from gibench.registry import readable

from .overview import Section

LEVELS = 10  # the classes of colour are 0 to this
_MEASURES = (("Exact rate", "exact_rate", (0, 1), 2), ("Median PSNR, dB", "psnr_median", RANGE, 1))


class Square(NamedTuple):
    """One attack against one defense; without a level where it did not run."""

    text: str
    level: int | None
    about: str


class Map(NamedTuple):
    """One measure in one scenario."""

    measure: str
    least: float
    most: float
    defenses: Sequence[tuple[str, Sequence[Square]]]


class Scenario(NamedTuple):
    """The maps of one scenario; each attack with whether it is a control, goes by the defense, or neither."""

    title: str
    attacks: Sequence[tuple[str, str]]
    maps: Sequence[Map]


def maps(summary: Sequence[Section]) -> Iterator[Scenario]:
    """Those of scenarios with two attacks or more and two defenses or more.

    `none` is first and the others as in the summary; attacks that go by the update alone come first, then those that
    know the defense, then controls, the best first.

    Args:
        summary: from `gibench.leaderboard.formats.sections`.
    """
    for title, lines in summary:
        attacks = sorted({line["attack"] for line in lines}, key=lambda attack: _order(attack, lines))
        defenses = list(dict.fromkeys(line["defense"] for line in lines))
        if len(attacks) < 2 or len(defenses) < 2:
            continue
        lined = {(line["defense"], line["attack"]): line for line in lines}
        first = {line["attack"]: line for line in reversed(lines)}
        yield Scenario(
            title,
            [(attack_of(first[attack], readable), "control" if first[attack]["control"] else "") for attack in attacks],
            [
                Map(
                    heading,
                    *ends,
                    [
                        (
                            readable("defense", defense),
                            [_square(lined.get((defense, attack)), measure, ends, digits) for attack in attacks],
                        )
                        for defense in defenses
                    ],
                )
                for heading, measure, ends, digits in _MEASURES
            ],
        )


def _order(attack: str, lines: Sequence[dict[str, Any]]) -> tuple[bool, bool, float, str]:
    own = [line for line in lines if line["attack"] == attack]
    reached = [line["psnr_mean"] for line in own if line["psnr_mean"] is not None]
    return bool(own[0]["control"]), bool(own[0]["adaptive"]), -fmean(reached or [0.0]), attack


def _square(line: dict[str, Any] | None, measure: str, ends: tuple[float, float], digits: int) -> Square:
    if line is None:
        return Square("", None, "not run")
    if line[measure] is None:
        return Square("-", None, line["reason"] or "no score")
    least, most = ends
    share = (line[measure] - least) / (most - least)
    mark = "" if line["n_ok"] == line["n_tried"] else "*"
    text = f"{line[measure]:.{digits}f}{mark}"
    return Square(text, round(LEVELS * min(1, max(0, share))), f"{line['n_ok']} of {line['n_tried']} cells ok")
