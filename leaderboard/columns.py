"""The columns of the summary for people, each declared once: heading, what stands below it, which end is better."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from gibench.errors import UsageError
from gibench.result import RECOGNISABLE_PSNR, RECOGNISABLE_SSIM

from .relative import GUESS

Line = dict[str, Any]
Shorten = Callable[[str, str], str]  # kind of plugin and canonical spec to what people read
Show = Callable[[Line, Shorten], str]  # a line of the summary to one of its cells


class Shown(NamedTuple):
    """One column of the summary for people."""

    heading: str
    show: Show
    better: int = 0  # 1: more is, -1: less is, 0: neither
    is_text: bool = False
    when: str = "always"  # it is shown unasked: always, where a line has it (`known`), or never (`asked`)
    says: str = ""  # what it is, below the table


def place(line: Line, shorten: Shorten) -> str:
    """The rank, or why there is none; what is not better than chance says so."""
    place = line["unranked"] if line["rank"] is None else str(line["rank"])
    return f"{place}, not above the control" if line["above_control"] is False else str(place)


def within(value: str, low: str, high: str, digits: int) -> Show:
    """A figure and its interval."""

    def show(line: Line, shorten: Shorten) -> str:
        if line[value] is None:
            return "-"
        between = "" if line[low] is None else f" [{line[low]:.{digits}f}, {line[high]:.{digits}f}]"
        return f"{line[value]:.{digits}f}{between}"

    return show


def certified(line: Line, digits: int) -> str:
    """The share that is certified; a control claims nothing of the batch it is scored on."""
    value = None if line["control"] else line["certified_rate"]
    return "-" if value is None else f"{value:.{digits}f}"


def claims(line: Line, shorten: Shorten) -> str:
    """How many certificates are false, of how many, and what rate that leaves open."""
    if line["n_certified"] is None or line["control"]:  # a control's claims are of what it was given
        return "-"
    bound = line["false_rate_at_most"]
    counted = f"{line['false_certificates']} of {line['n_certified']}"
    return counted if bound is None else f"{counted} (< {100 * bound:.2g} %)"


def number(name: str, digits: int) -> Show:
    """A figure, a dash where there is none."""

    def show(line: Line, shorten: Shorten) -> str:
        return "-" if line[name] is None else f"{line[name]:.{digits}f}"

    return show


def plain(value: Any) -> str:
    """A number to three digits, or a text."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def attack(line: Line, shorten: Shorten) -> str:
    """The attack, marked if it knows the defense or the truth."""
    marks = [flag for flag in ("adaptive", "oracle") if line[flag]]
    return " ".join([shorten("attack", line["attack"]), *(f"({mark})" for mark in marks)])


def trials(line: Line, shorten: Shorten) -> str:
    """How many cells ended `ok`, of those whose attack ran."""
    return f"{line['n_ok']} / {line['n_tried']}"


def _promise(line: Line, shorten: Shorten) -> str:
    return "-" if line["epsilon"] is None else f"{line['epsilon']:.4g}, {plain(line['delta'])}"


def _run_promise(line: Line, shorten: Shorten) -> str:
    if line["run_epsilon"] is None:
        return "-"
    return f"{line['run_epsilon']:.4g}, {plain(line['delta'])}; {line['run_steps']}"


def _mechanism(line: Line, shorten: Shorten) -> str:
    return "-" if line["max_grad_norm"] is None else f"{line['max_grad_norm']:.4g}, {line['noise_multiplier'] or 0:.4g}"


def _ratio(line: Line, shorten: Shorten) -> str:
    return "-" if line["times_baseline"] is None else f"{line['times_baseline']:.3g}x"


def _any(name: str) -> Show:
    return lambda line, shorten: "-" if line[name] is None else plain(line[name])


def _spec(kind: str) -> Show:
    return lambda line, shorten: shorten(kind, line[kind])


SHOWN: Mapping[str, Shown] = {  # by the column of the summary that it is of, in the order of the table
    "defense": Shown("defense", _spec("defense"), is_text=True),
    "attack": Shown("attack", attack, is_text=True),
    "rank": Shown("rank", place, -1, is_text=True),
    "n_ok": Shown("ok / tried", trials, 1),
    "exact_rate": Shown("exact [95 %]", within("exact_rate", "exact_low", "exact_high", 3), 1),
    "psnr_median": Shown("median PSNR dB [95 %]", within("psnr_median", "psnr_low", "psnr_high", 2), 1),
    "psnr_mean": Shown(
        "mean PSNR dB [95 %]", within("psnr_mean", "psnr_mean_low", "psnr_mean_high", 2), 1, when="asked"
    ),
    "above_mean_image": Shown(
        f"dB above {GUESS}",
        number("above_mean_image", 1),
        1,
        when="known",
        says=f"median PSNR above that of {GUESS} on the same batches",
    ),
    "recognisable_rate": Shown(
        "recognisable",
        number("recognisable_rate", 2),
        1,
        when="known",
        says=f"share of images with PSNR >= {RECOGNISABLE_PSNR:g} dB or SSIM >= {RECOGNISABLE_SSIM:g}",
    ),
    "reidentified_rate": Shown(
        "re-identified",
        number("reidentified_rate", 2),
        1,
        when="known",
        says="share of images that are the nearest of all in the split to what was recovered of them",
    ),
    "ssim_mean": Shown("SSIM", number("ssim_mean", 3), 1),
    "lpips_mean": Shown("LPIPS", number("lpips_mean", 3), -1),
    "certified_rate": Shown("certified", lambda line, shorten: certified(line, 3), 1),
    "false_certificates": Shown("false certificates", claims, -1),
    "runtime_s": Shown("seconds", number("runtime_s", 3), -1),
    "times_baseline": Shown("times the baseline", _ratio, -1, when="known"),
    "source": Shown("from", _any("source"), is_text=True, when="known"),
    "budget": Shown("budget", _any("budget"), is_text=True, when="known"),
    "max_grad_norm": Shown("clip norm, noise", _mechanism, when="known"),
    "epsilon": Shown("epsilon, delta", _promise, -1, when="known"),
    "run_epsilon": Shown("of the run; steps", _run_promise, -1, when="known"),
    "utility_accuracy": Shown("utility", number("utility_accuracy", 3), 1, when="known"),
    "hardware": Shown("hardware", _any("hardware"), is_text=True, when="asked"),  # and where machines differ
    "dataset": Shown("dataset", _spec("dataset"), is_text=True, when="asked"),
    "model": Shown("model", _spec("model"), is_text=True, when="asked"),
}
STRICT = (
    "every figure is strict: it is over all cells that were tried, and those that failed count with the score of "
    "mid-grey images"
)


def shown(summary: pd.DataFrame, asked: Sequence[str] | None) -> dict[str, Shown]:
    """The columns to show by name: those that are asked for, or the usual ones.

    Raises:
        UsageError: there is no such column.
    """
    if asked is None:
        several = len(set(summary["hardware"].dropna())) > 1
        usual = {"always": True, "asked": False}
        return {
            name: each
            for name, each in SHOWN.items()
            if usual.get(each.when, bool(summary[name].notna().any())) or (name == "hardware" and several)
        }
    check(summary, asked, "--columns")
    return {name: SHOWN[name] if name in SHOWN else _other(summary, name) for name in asked}


def _other(summary: pd.DataFrame, name: str) -> Shown:
    return Shown(name.replace("_", " "), _any(name), is_text=str(summary[name].dtype) == "object")


def check(table: pd.DataFrame, names: Iterable[str], option: str) -> None:
    """Refuse columns that a table has not, and one that is named twice.

    Raises:
        UsageError: see above; it says which there are.
    """
    asked = list(names)
    if unknown := [name for name in asked if name not in table]:
        raise UsageError(f"{option} has no column '{unknown[0]}': there are {', '.join(map(str, table))}")
    if twice := [name for at, name in enumerate(asked) if name in asked[:at]]:
        raise UsageError(f"{option} names {twice[0]} twice: name each column once")


def ordered(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The table by a column, the better end first, or else the least; what has no value is last.

    Raises:
        UsageError: there is no such column.
    """
    check(table, [column], "--sort")
    falling = column in SHOWN and SHOWN[column].better > 0
    return table.sort_values(column, ascending=not falling, kind="stable", na_position="last", ignore_index=True)
