"""The rows that are published, committed as CSV under `results/`: read back as they were stored, to the last bit."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from gibench.errors import UsageError
from gibench.result import Column, StoredRow, columns_of
from gibench.results.document import filled

_LAST = ("run_id", "started")

AnyRow = TypeVar("AnyRow", bound=StoredRow)


def read(kind: type[AnyRow], file: Path) -> list[AnyRow]:
    """The rows of a kind in a file that `gibench leaderboard --format csv` wrote; what was not measured then is null,
    and an axis that there was not yet has the value that was meant.

    Raises:
        UsageError: the file has other columns, or a value is none of its column.
    """
    columns = columns_of(kind)
    with file.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        found = set(reader.fieldnames or ())
        axes = {name for name, column in columns.items() if column.axis and column.axis.before is None}
        needed = axes | {kind.key_column}
        wrong = (found - {*columns, *_LAST}) | ({*needed, *_LAST} - found)
        if wrong:
            raise UsageError(f"{file} has other columns than rows have now ({', '.join(sorted(wrong))}): run it anew")
        return [_row(kind, line, f"{file}, line {reader.line_num}") for line in reader]


def _row(kind: type[AnyRow], line: dict[str, str], where: str) -> AnyRow:
    try:
        values = filled(kind, lambda name, column: _value(line.get(name, ""), column))
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{where} is no row: {error}") from None
    return kind(**values, run_id=line["run_id"], started=line["started"])


def _value(text: str, column: Column) -> Any:
    if text == "":
        return None
    if column.type is bool:
        return {"true": True, "false": False}[text]
    return column.type(text)


def seeds(numbers: Iterable[int]) -> str:
    """Seeds as people write them: `0-4, 9`."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
