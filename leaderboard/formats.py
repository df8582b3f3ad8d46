"""Tables as text: the rows as CSV and strict JSON, the summary for a terminal and as Markdown. Pure functions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

from .table import SCENARIO

Shorten = Callable[[str, str], str]  # kind of plugin and canonical spec to what people read


def in_full(kind: str, spec: str) -> str:
    """The spec as it is stored, every setting included."""
    return spec


def to_csv(table: pd.DataFrame) -> str:
    """Comma-separated values, null as an empty field, truth values as `true` and `false`."""
    flags = table.select_dtypes("boolean").columns
    return table.assign(**{name: table[name].map({True: "true", False: "false"}) for name in flags}).to_csv(index=False)


def to_json(table: pd.DataFrame) -> str:
    """A JSON array of objects; what does not apply is null, never NaN or infinity."""
    return json.dumps(records(table), indent=2, allow_nan=False) + "\n"


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The table's lines as plain Python values, nulls as None."""
    columns = {str(name): [None if _null(value) else value for value in table[name].tolist()] for name in table}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def to_markdown(summary: pd.DataFrame, shorten: Shorten = in_full) -> str:
    """A section for each scenario and threat model, with what did not end `ok` below its table."""
    sections = []
    for scenario, lines in _sections(summary):
        header = [heading for heading, _ in _SHOWN]
        body = [[show(line, shorten) for _, show in _SHOWN] for line in lines]
        cells = [header, ["---"] * len(header), *body]
        table = "\n".join(f"| {' | '.join(map(_escape, values))} |" for values in cells)
        notes = "\n".join(f"- {_escape(note)}" for note in _notes(lines, shorten))
        sections.append("\n\n".join(filter(None, (f"### {_escape(scenario)}", table, notes))))
    return "\n\n".join(sections or ["No stored rows."]) + "\n"


def to_terminal(summary: pd.DataFrame, shorten: Shorten = in_full) -> Group:
    """The same sections for rich to print."""
    parts: list[Table | Text] = []
    for scenario, lines in _sections(summary):
        table = Table(title=Text(scenario), title_justify="left", header_style="bold")
        for number, (heading, _) in enumerate(_SHOWN):
            table.add_column(heading, justify="left" if number < 2 else "right", overflow="fold")
        for line in lines:
            table.add_row(*(Text(show(line, shorten)) for _, show in _SHOWN))
        parts += [table, *(Text(note) for note in _notes(lines, shorten))]
    return Group(*(parts or [Text("no stored rows")]))


def _sections(summary: pd.DataFrame) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    sections: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in records(summary):
        sections.setdefault(tuple(line[name] for name in SCENARIO), []).append(line)
    for lines in sections.values():
        yield _scenario(lines[0]), lines


def _scenario(line: dict[str, Any]) -> str:
    steps = line["train_steps"]
    return " | ".join(
        [
            line["dataset"],
            f"{line['model']} {f'after {steps} steps' if steps else 'untrained'}",
            f"batch {line['batch_size']}, labels {line['labels_policy']}",
            f"server knows {line['threat_model']}",
            f"{line['dtype']} on {line['device']}",
        ]
    )


def _notes(lines: list[dict[str, Any]], shorten: Shorten) -> Iterator[str]:
    for line in lines:
        if line["reason"]:
            yield f"{_attack(line, shorten)} against {line['defense']}: {line['reason']}"


def _attack(line: dict[str, Any], shorten: Shorten) -> str:
    marks = [flag for flag in ("adaptive", "oracle") if line[flag]]
    return " ".join([shorten("attack", line["attack"]), *(f"({mark})" for mark in marks)])


def _number(name: str, digits: int) -> Callable[[dict[str, Any], Shorten], str]:
    def show(line: dict[str, Any], shorten: Shorten) -> str:
        return "-" if line[name] is None else f"{line[name]:.{digits}f}"

    return show


def _text(name: str) -> Callable[[dict[str, Any], Shorten], str]:
    return lambda line, shorten: "-" if line[name] is None else str(line[name])


def _compact(name: str) -> Callable[[dict[str, Any], Shorten], str]:
    return lambda line, shorten: "-" if line[name] is None else f"{line[name]:.4g}"


# The columns for people: heading, and what it shows of a line of the summary.
_SHOWN: tuple[tuple[str, Callable[[dict[str, Any], Shorten], str]], ...] = (
    ("defense", lambda line, shorten: shorten("defense", line["defense"])),
    ("attack", _attack),
    ("rank", _text("rank")),
    ("ok / tried", lambda line, shorten: f"{line['n_ok']} / {line['n_tried']}"),
    ("PSNR dB", _number("psnr_mean", 2)),
    ("SSIM", _number("ssim_mean", 3)),
    ("LPIPS", _number("lpips_mean", 3)),
    ("exact", _number("exact_rate", 3)),
    ("certified", _number("certified_rate", 3)),
    ("false certificates", _text("false_certificates")),
    ("seconds", _number("runtime_s", 2)),
    ("epsilon", _compact("epsilon")),
)


def _escape(text: str) -> str:
    return text.replace("|", r"\|")


def _null(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value))
