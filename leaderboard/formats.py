"""Tables as text: rows as CSV and strict JSON, what is for people as Markdown. Pure functions."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from gibench.jsonable import array_of
from gibench.text import code, prose

from .columns import Shorten, plain
from .reported import compare
from .sections import Report, in_full, of_summary, quoting, sections
from .table import records

_PROSE = ("source", "budget", "hardware")  # the columns of what files, attacks and machines say in words


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


def to_markdown(summary: pd.DataFrame, shorten: Shorten = in_full) -> str:
    """The summary as `markdown` has it, with the usual columns."""
    return markdown(of_summary(summary), shorten)


def markdown(report: Report, shorten: Shorten = in_full) -> str:
    """A section for each scenario and threat model, with what is to be said of it below its table.

    A summary ends with what papers report beside what was measured here.

    Args:
        report: from `gibench.leaderboard.sections.of_summary` or `gibench.leaderboard.paired.of_pairs`.
        shorten: kind of plugin and canonical spec to what is shown.
    """
    quoted = quoting(shorten, code)
    parts = []
    for section in sections(report, quoted, code, prose):
        header = [each.heading for each in report.chosen.values()]
        body = [
            [_worded(name, each.show(line, quoted)) for name, each in report.chosen.items()] for line in section.lines
        ]
        notes = "\n".join(f"- {note}" for note in section.notes)
        parts.append("\n\n".join(filter(None, (f"### {section.title}", markdown_table(header, body), notes))))
    if report.is_summary:
        parts += _reported(report.lines, shorten)
    return "\n\n".join(parts or ["No stored rows."]) + "\n"


def _worded(name: str, text: str) -> str:
    return prose(text) if name in _PROSE else text


def _reported(summary: pd.DataFrame, shorten: Shorten) -> Iterator[str]:
    if table := reported_lines(summary, shorten):
        yield f"### What papers report, and what was measured here\n\n{table}"


def reported_lines(summary: pd.DataFrame, shorten: Shorten) -> str:
    """What papers report beside what was measured here, as Markdown; nothing where nothing of it was."""
    lines = records(compare(summary, shorten))
    header = ["", "attack", "images", "batch", "width", "what", "value", "seconds", ""]
    body = [["-" if value is None else prose(plain(value)) for value in line.values()] for line in lines]
    return markdown_table(header, body) if body else ""


def markdown_table(header: list[str], body: list[list[str]]) -> str:
    """A table in Markdown; what would break it is escaped."""
    return "\n".join(f"| {' | '.join(map(_escape, line))} |" for line in (header, ["---"] * len(header), *body))


def _escape(text: str) -> str:
    return text.replace("|", r"\|")
