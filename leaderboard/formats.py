"""Tables as text: the rows as CSV and strict JSON, the summary for a terminal and as Markdown. Pure functions."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from gibench.jsonable import array_of
from gibench.result import mixture
from gibench.text import code, prose, visible

from .ranks import SCENARIO
from .reported import compare

Shorten = Callable[[str, str], str]  # kind of plugin and canonical spec to what people read
_Quote = Callable[[str], str]  # what others wrote, to text that does nothing but be read
_Show = Callable[[dict[str, Any], Shorten], str]  # a line of the summary to one of its cells
WORDS = ("defense", "attack", "rank", "from", "budget", "hardware")  # the columns that are no numbers
_PROSE = ("from", "budget", "hardware")  # of these, what files, attacks and machines are called in words


def in_full(kind: str, spec: str) -> str:
    """The spec as it is stored, every setting included."""
    return spec


def to_csv(table: pd.DataFrame) -> str:
    """Comma-separated values, null as an empty field, truth values as `true` and `false`."""
    return "".join(map(_csv_line, [list(table), *(line.values() for line in records(table))]))


def _csv_line(values: Iterable[Any]) -> str:
    """One line, which ends in a line feed; a carriage return within a text is quoted."""
    stream = io.StringIO()
    csv.writer(stream).writerow(str(each).lower() if isinstance(each, bool) else each for each in values)
    return stream.getvalue().removesuffix("\r\n") + "\n"


def to_json(table: pd.DataFrame) -> str:
    """A JSON array of objects; what does not apply is null, never NaN or infinity."""
    return array_of(records(table)) + "\n"


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The table's lines as plain Python values, nulls as None."""
    columns = {str(name): [None if _null(value) else value for value in table[name].tolist()] for name in table}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def to_markdown(summary: pd.DataFrame, shorten: Shorten = in_full) -> str:
    """A section for each scenario and threat model, with what did not end `ok` below its table."""
    parts = []
    quoted = _quoting(shorten, code)
    for scenario, lines in sections(summary, code):
        columns = shown(lines)
        header = [heading for heading, _ in columns]
        body = [
            [prose(show(line, quoted)) if heading in _PROSE else show(line, quoted) for heading, show in columns]
            for line in lines
        ]
        table = markdown_table(header, body)
        below = "\n".join(f"- {note}" for note in [*notes(lines, quoted, prose), *_reasons(lines, quoted, prose)])
        parts.append("\n\n".join(filter(None, (f"### {scenario}", table, below))))
    return "\n\n".join([*parts, *_reported(summary, shorten)] or ["No stored rows."]) + "\n"


def _quoting(shorten: Shorten, quote: _Quote) -> Shorten:
    return lambda kind, spec: quote(shorten(kind, spec))


def _reported(summary: pd.DataFrame, shorten: Shorten) -> Iterator[str]:
    if table := reported_lines(summary, shorten):
        yield f"### What papers report, and what was measured here\n\n{table}"


def reported_lines(summary: pd.DataFrame, shorten: Shorten) -> str:
    """What papers report beside what was measured here, as Markdown; nothing where nothing of it was."""
    lines = records(compare(summary, shorten))
    header = ["", "attack", "images", "batch", "width", "what", "value", "seconds", ""]
    body = [["-" if value is None else prose(_plain(value)) for value in line.values()] for line in lines]
    return markdown_table(header, body) if body else ""


def _plain(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def markdown_table(header: list[str], body: list[list[str]]) -> str:
    """A table in Markdown; what would break it is escaped."""
    return "\n".join(f"| {' | '.join(map(_escape, line))} |" for line in (header, ["---"] * len(header), *body))


def to_terminal(summary: pd.DataFrame, shorten: Shorten = in_full) -> Group:
    """The same sections for rich to print."""
    parts: list[Table | Text] = []
    quoted = _quoting(shorten, visible)
    for scenario, lines in sections(summary, visible):
        columns = shown(lines)
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        for heading, _ in columns:
            if heading in WORDS:
                table.add_column(heading, overflow="fold")
            else:
                table.add_column(heading, justify="right", no_wrap=True)
        for line in lines:
            table.add_row(*(Text(visible(show(line, quoted))) for _, show in columns))
        blank = [Text()] if parts else []
        parts += [
            *blank,
            Text(scenario, "bold"),
            Text(),
            table,
            *(Text(note) for note in [*notes(lines, quoted, visible), *_reasons(lines, quoted, visible)]),
        ]
    return Group(*(parts or [Text("no stored rows")]))


def sections(summary: pd.DataFrame, quote: _Quote) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The lines of each scenario and threat model, with what they share in words."""
    scenarios: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in records(summary):
        scenarios.setdefault(tuple(line[name] for name in SCENARIO), []).append(line)
    for lines in scenarios.values():
        yield scenario(lines, quote), lines


def scenario(lines: Sequence[dict[str, Any]], quote: _Quote) -> str:
    """What the lines share, which may differ in their batch size: rules E1 and E10."""
    line = lines[0]
    steps = line["train_steps"]
    state = f"{quote(line['model'])} {f'after {steps} training steps' if steps else 'untrained'}"
    accuracies = [each["model_accuracy"] for each in lines if each["model_accuracy"] is not None]
    if accuracies:
        state += f" (accuracy {sum(accuracies) / len(accuracies):.2f})"
    batch = f"batch {', '.join(map(str, sorted({each['batch_size'] for each in lines})))} {line['labels']}"
    source = quote(line["dataset"]) + ("" if line["split"] == "private" else f", {line['split']} split")
    return "; ".join([source, state, batch, f"server knows {line['knows']}", f"{line['dtype']} on {line['device']}"])


def notes(lines: list[dict[str, Any]], shorten: Shorten, quote: _Quote) -> Iterator[str]:
    """The hardware where all times are from one, versions that are mixed, and where there is no control."""
    if len(hardware := _hardware(lines)) == 1:
        yield f"seconds of the attack alone on {quote(hardware.pop())}"
    if mixed := mixture(version for line in lines for version in (line["torch"] or "").split("; ")):
        yield mixed
    controlled = {line["defense"] for line in lines if line["control"] and line["n_tried"]}
    if without := dict.fromkeys(line["defense"] for line in lines if line["defense"] not in controlled):
        yield f"no control was run against {', '.join(shorten('defense', each) for each in without)}"


def _reasons(lines: list[dict[str, Any]], shorten: Shorten, quote: _Quote) -> Iterator[str]:
    """Why cells are not `ok` (rule E9)."""
    for line in lines:
        if line["reason"]:
            yield f"{attack_of(line, shorten)} against {shorten('defense', line['defense'])}: {quote(line['reason'])}"


def _hardware(lines: list[dict[str, Any]]) -> set[str]:
    return {line["hardware"] for line in lines if line["hardware"]}


def shown(lines: list[dict[str, Any]]) -> tuple[tuple[str, _Show], ...]:
    """The columns for people: promises, budgets and utility where there are such, and machines where they differ."""
    optional = [(head, show) for name, head, show in _OPTIONAL if any(line[name] is not None for line in lines)]
    columns = (*_SHOWN, *optional)
    return (*columns, ("hardware", _text("hardware"))) if len(_hardware(lines)) > 1 else columns


def place(line: dict[str, Any], shorten: Shorten) -> str:
    """The rank, or why there is none; what is not better than chance says so."""
    place = line["unranked"] if line["rank"] is None else str(line["rank"])
    return f"{place}, not above the control" if line["above_control"] is False else str(place)


def within(value: str, low: str, high: str, digits: int) -> _Show:
    """A figure and its interval."""

    def show(line: dict[str, Any], shorten: Shorten) -> str:
        if line[value] is None:
            return "-"
        between = "" if line[low] is None else f" [{line[low]:.{digits}f}, {line[high]:.{digits}f}]"
        return f"{line[value]:.{digits}f}{between}"

    return show


def certified(line: dict[str, Any], digits: int) -> str:
    """The share that is certified; a control claims nothing of the batch it is scored on."""
    value = None if line["control"] else line["certified_rate"]
    return "-" if value is None else f"{value:.{digits}f}"


def claims(line: dict[str, Any], shorten: Shorten) -> str:
    """How many certificates are false, of how many, and what rate that leaves open."""
    if line["n_certified"] is None or line["control"]:  # a control's claims are of what it was given
        return "-"
    bound = line["false_rate_at_most"]
    counted = f"{line['false_certificates']} of {line['n_certified']}"
    return counted if bound is None else f"{counted} (< {100 * bound:.2g} %)"


def _promise(line: dict[str, Any], shorten: Shorten) -> str:
    return "-" if line["epsilon"] is None else f"{line['epsilon']:.4g}, {_plain(line['delta'])}"


def _run_promise(line: dict[str, Any], shorten: Shorten) -> str:
    if line["run_epsilon"] is None:
        return "-"
    return f"{line['run_epsilon']:.4g}, {_plain(line['delta'])}; {line['run_steps']}"


def _mechanism(line: dict[str, Any], shorten: Shorten) -> str:
    return "-" if line["max_grad_norm"] is None else f"{line['max_grad_norm']:.4g}, {line['noise_multiplier'] or 0:.4g}"


def trials(line: dict[str, Any], shorten: Shorten) -> str:
    """How many cells ended `ok`, of those whose attack ran."""
    return f"{line['n_ok']} / {line['n_tried']}"


def attack_of(line: dict[str, Any], shorten: Shorten) -> str:
    """The attack, with what sets it apart from others."""
    marks = [flag for flag in ("adaptive", "oracle") if line[flag]]
    return " ".join([shorten("attack", line["attack"]), *(f"({mark})" for mark in marks)])


def number(name: str, digits: int) -> _Show:
    """A figure, a dash where there is none."""

    def show(line: dict[str, Any], shorten: Shorten) -> str:
        return "-" if line[name] is None else f"{line[name]:.{digits}f}"

    return show


def _text(name: str) -> _Show:
    return lambda line, shorten: "-" if line[name] is None else str(line[name])


_SHOWN: tuple[tuple[str, _Show], ...] = (
    ("defense", lambda line, shorten: shorten("defense", line["defense"])),
    ("attack", attack_of),
    ("rank", place),
    ("ok / tried", trials),
    ("exact [95 %]", within("exact_rate", "exact_low", "exact_high", 3)),
    ("median PSNR dB [95 %]", within("psnr_median", "psnr_low", "psnr_high", 2)),
    ("SSIM", number("ssim_mean", 3)),
    ("LPIPS", number("lpips_mean", 3)),
    ("certified", lambda line, shorten: certified(line, 3)),
    ("false certificates", claims),
    ("seconds", number("runtime_s", 3)),
)
_OPTIONAL: tuple[tuple[str, str, _Show], ...] = (  # the column that says whether there is something to show
    ("source", "from", _text("source")),
    ("budget", "budget", _text("budget")),
    ("max_grad_norm", "clip norm, noise", _mechanism),
    ("epsilon", "epsilon, delta", _promise),
    ("run_epsilon", "of the run; steps", _run_promise),
    ("utility_accuracy", "utility", number("utility_accuracy", 3)),
)


def _escape(text: str) -> str:
    return text.replace("|", r"\|")


def _null(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value))
