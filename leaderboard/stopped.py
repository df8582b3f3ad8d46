"""Which defenses left the best attack no exact image in stored rows, and at what cost: one line each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from gibench.result import Row

from .ranks import SCENARIO
from .table import records, summarize


def stopped(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The defenses that left no exact image, those that also left nothing above the controls first, then by accuracy.

    Each line has, over all scenarios of the rows: `defense`, the best `attack` (by exact rate and then PSNR) with its
    `exact_rate` and `psnr_median`, whether any attack is `above_control`, the `epsilon` that is promised, the
    `accuracy` after training and that `without` any defense (None where it was not measured). A scenario in which no
    attack recovers an image without defense says nothing, and does not count.

    Args:
        rows: with `utility_accuracy`, see `utility.joined`.
    """
    lines = [line for line in records(summarize(rows)) if not line["control"] and line["n_tried"]]
    broken = {_scenario(line) for line in lines if line["defense"] == "none" and line["exact_rate"] > 0}
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        if _scenario(line) in broken:
            found[line["defense"]].append(line)
    made = [_line(name, its, _accuracy(found["none"])) for name, its in found.items()]
    kept = [line for line in made if line["exact_rate"] == 0]
    return sorted(kept, key=lambda line: (bool(line["above_control"]), -(line["accuracy"] or 0.0), line["defense"]))


def _scenario(line: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(line[name] for name in SCENARIO)


def _line(defense: str, lines: list[dict[str, Any]], without: float | None) -> dict[str, Any]:
    best = max(lines, key=lambda line: (line["exact_rate"], line["psnr_median"]))
    return {
        "defense": defense,
        "attack": best["attack"],
        "exact_rate": best["exact_rate"],
        "psnr_median": best["psnr_median"],
        "above_control": any(line["above_control"] is True for line in lines),
        "epsilon": best["epsilon"],
        "accuracy": _accuracy(lines),
        "without": without,
    }


def _accuracy(lines: Iterable[dict[str, Any]]) -> float | None:
    return next((line["utility_accuracy"] for line in lines if line["utility_accuracy"] is not None), None)
