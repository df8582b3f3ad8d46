"""The rows that are published, committed as CSV under `results/`: read back as they were stored, to the last bit."""

from __future__ import annotations

import csv
import io
import math
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
        UsageError: there is no such file, it is empty or has other columns, or a value is none of its column.
    """
    try:
        text = file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{file} cannot be read ({getattr(error, 'strerror', None) or error}): give a file of rows"
        ) from None
    return read_text(kind, text, str(file))


def read_text(kind: type[AnyRow], text: str, where: str) -> list[AnyRow]:
    """The same of the text of such a file, which `where` names in errors."""
    if not text.strip():
        raise UsageError(f"{where} is empty: give a file of rows, as gibench leaderboard --format csv writes it")
    columns = columns_of(kind)
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        found = list(reader.fieldnames or ())
        axes = {name for name, column in columns.items() if column.axis and column.axis.before is None}
        needed = axes | {kind.key_column}
        wrong = (set(found) - {*columns, *_LAST}) | ({*needed, *_LAST} - set(found))
        if wrong or len(set(found)) < len(found):
            told = ", ".join(sorted(wrong)) or "one of them twice"
            raise UsageError(f"{where} has other columns than rows have now ({told}): run it anew")
        return [_row(kind, line, f"{where}, line {reader.line_num}") for line in reader]
    except csv.Error as error:
        raise UsageError(f"{where}, line {reader.line_num} is no row: {error}") from None


def _row(kind: type[AnyRow], line: dict[Any, Any], where: str) -> AnyRow:
    try:
        if None in line or None in line.values():
            raise ValueError("it has not as many fields as there are columns")
        values = filled(kind, lambda name, column: _value(line.get(name, ""), column))
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise UsageError(f"{where} is no row: {error}") from None
    return kind(**values, run_id=line["run_id"], started=line["started"])


def _value(text: str, column: Column) -> Any:
    if text == "":
        return None
    if column.type is bool:
        return {"true": True, "false": False}[text]
    value = column.type(text)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{text} is none of its numbers")
    return value


def seeds(numbers: Iterable[int]) -> str:
    """Seeds as people write them: `0-4, 9`."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
