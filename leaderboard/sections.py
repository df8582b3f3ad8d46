"""What is shown to people, whatever it is written as: sections of lines that may be compared, and notes below."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from gibench.result import mixture

from .columns import STRICT, Line, Shorten, Shown, attack, shown
from .ranks import SCENARIO
from .table import records

Quote = Callable[[str], str]  # what others wrote, to text that does nothing but be read
Notes = Callable[[list[Line], Mapping[str, Shown], Shorten, Quote], Iterator[str]]  # what is said below a section


class Section(NamedTuple):
    """One scenario and threat model: what its lines share, the lines, and what is said below them."""

    title: str
    lines: list[Line]
    notes: list[str]


class Report(NamedTuple):
    """A table for people: its lines, their columns, and what is said below each section."""

    lines: pd.DataFrame
    chosen: Mapping[str, Shown]
    is_asked: bool  # whether somebody has asked for these columns
    notes: Notes
    is_summary: bool = False


def in_full(kind: str, spec: str) -> str:
    """The spec as it is stored, every setting included."""
    return spec


def of_summary(summary: pd.DataFrame, columns: Sequence[str] | None = None) -> Report:
    """The summary from `gibench.leaderboard.table.summarize`, with the columns asked for, or the usual ones.

    Raises:
        UsageError: there is no such column.
    """
    return Report(summary, shown(summary, columns), columns is not None, _notes, is_summary=True)


def quoting(shorten: Shorten, quote: Quote) -> Shorten:
    """Specs as `shorten` has them, quoted."""
    return lambda kind, spec: quote(shorten(kind, spec))


def sections(report: Report, quoted: Shorten, quote: Quote, say: Quote) -> Iterator[Section]:
    """The report by scenario and threat model (rule E1).

    Args:
        report: what is shown.
        quoted: kind of plugin and canonical spec to what is shown.
        quote: what others wrote to what is shown of it as a value.
        say: the same within a sentence.
    """
    found: dict[tuple[Any, ...], list[Line]] = {}
    for line in records(report.lines):
        found.setdefault(tuple(line[name] for name in SCENARIO), []).append(line)
    for lines in found.values():
        yield Section(scenario(lines, quote), lines, list(report.notes(lines, report.chosen, quoted, say)))


def scenario(lines: Sequence[Line], quote: Quote) -> str:
    """What the lines share, which may differ in their batch size: rules E1 and E10."""
    line = lines[0]
    steps = line["train_steps"]
    state = f"{quote(line['model'])} {f'after {steps} training steps' if steps else 'untrained'}"
    accuracies = [each["model_accuracy"] for each in lines if each.get("model_accuracy") is not None]
    if accuracies:
        state += f" (accuracy {sum(accuracies) / len(accuracies):.2f})"
    batch = f"batch {', '.join(map(str, sorted({each['batch_size'] for each in lines})))} {line['labels']}"
    source = quote(line["dataset"]) + ("" if line["split"] == "private" else f", {line['split']} split")
    return "; ".join([source, state, batch, f"server knows {line['knows']}", f"{line['dtype']} on {line['device']}"])


def notes(lines: Sequence[Line], shorten: Shorten, quote: Quote) -> Iterator[str]:
    """The hardware where all times are from one, versions that are mixed, and where there is no control."""
    if len(hardware := {line["hardware"] for line in lines if line["hardware"]}) == 1:
        yield f"seconds of the attack alone on {quote(hardware.pop())}"
    if mixed := mixture(version for line in lines for version in (line["torch"] or "").split("; ")):
        yield mixed
    rivals = [line for line in lines if not line["control"] and line["n_tried"]]
    if without := dict.fromkeys(line["defense"] for line in rivals if line["above_control"] is None):
        yield f"no control was run against {', '.join(shorten('defense', each) for each in without)}"


def _notes(lines: list[Line], chosen: Mapping[str, Shown], shorten: Shorten, quote: Quote) -> Iterator[str]:
    """What `notes` says, why cells are not `ok` (rule E9), and what words of the columns mean."""
    yield from notes(lines, shorten, quote)
    for line in lines:
        if line["reason"]:
            yield f"{attack(line, shorten)} against {shorten('defense', line['defense'])}: {quote(line['reason'])}"
    for each in chosen.values():
        if each.says:
            yield f"{each.heading}: {each.says}"
    chances = [line["chance"] for line in lines if line["chance"]]
    if "reidentified_rate" in chosen and chances:
        yield f"chance re-identifies {max(chances):.2g}"
    if any(line["n_ok"] < line["n_tried"] for line in lines):
        yield STRICT
