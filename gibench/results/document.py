"""The files of one finished cell, and the row that is read back from them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from gibench.axes import axes_of
from gibench.jsonable import jsonable
from gibench.result import Column, Result, StoredRow, columns_of
from gibench.text import text_of

RESULT, IMAGES, GRID = "result.json", "images.csv", "images.png"
_RUN_ID = re.compile("[0-9a-f]{32}")

AnyRow = TypeVar("AnyRow", bound=StoredRow)


class DamagedError(ValueError):
    """A file that holds no row, or one that nobody can have measured."""


def files_of(result: Result, row: StoredRow, grid: str | None, pictures: bool) -> dict[str, bytes]:
    """The content of each file by its name.

    Args:
        result: what is stored.
        row: its row, with `run_id` and `started`.
        grid: the id of the grid it was run in.
        pictures: whether to keep the image grid.
    """
    # Each by itself, so that none is cut short for another's size.
    beside = {name: jsonable(getattr(result, name)) for name in ("diagnostics", "provenance", "seconds")}
    document = {"row": jsonable(_fitting(row)), "grid": grid, **beside}
    files = {RESULT: (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()}
    if result.images is not None:
        files[IMAGES] = result.images.to_csv(index=False).encode()
    if result.grid_png is not None and pictures:
        files[GRID] = result.grid_png
    return files


def _fitting(row: StoredRow) -> dict[str, Any]:
    """The columns, those of text as text, whatever a plugin gave."""
    columns = columns_of(type(row))
    texts = {name for name, column in columns.items() if column.type is str}
    values = row.as_dict()
    return values | {name: text_of(value) for name, value in values.items() if name in texts and value is not None}


def parsed(text: str | bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DamagedError: it is none, or holds NaN or infinity.
    """
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"it is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise DamagedError("it is no JSON object")
    return found


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is none of its numbers")


def row_of(kind: type[AnyRow], values: Any) -> AnyRow:
    """The row of a kind that the values of its columns make; what columns there were not or by another name is mended.

    Raises:
        DamagedError: a value is none of its column.
    """
    if not isinstance(values, dict) or not values.get(kind.key_column):
        raise DamagedError(f"it has no '{kind.key_column}'")
    if not _RUN_ID.fullmatch(str(values.get("run_id"))) or not isinstance(values.get("started"), str):
        raise DamagedError("it does not say which run it is, and of when")
    get, types = values.get, _types_of(kind)
    # Written out, as there are thousands of rows, which share few texts.
    row: dict[str, Any] = {
        name: sys.intern(str(value)) if column is str and value is not None else value
        for name, column in types.items()
        if (value := get(name)) is None or type(value) is column
    }
    row |= {name: _converted(name, get(name), types[name]) for name in types if name not in row}
    row = _meant(kind, row, lambda name, column: _converted(name, get(name), column.type))
    return kind(**row, run_id=values["run_id"], started=values["started"])


def _types_of(kind: Any) -> dict[str, type]:
    return _kept_types_of(kind)


@cache
def _kept_types_of(kind: Any) -> dict[str, type]:
    return {name: column.type for name, column in columns_of(kind).items()}


def filled(kind: type[StoredRow], look_up: Callable[[str, Column], Any]) -> dict[str, Any]:
    """The columns of a row; of one stored before there was an axis or by another name, what it meant."""
    return _meant(kind, {name: look_up(name, column) for name, column in columns_of(kind).items()}, look_up)


def _meant(kind: type[StoredRow], values: dict[str, Any], look_up: Callable[[str, Column], Any]) -> dict[str, Any]:
    """The same of columns that are looked up already."""
    columns = columns_of(kind)
    for name, axis in axes_of(kind).items():
        if values[name] is None and axis.formerly:
            values[name] = look_up(axis.formerly, columns[name])
        if values[name] is None:
            values[name] = axis.before
    return values


def _converted(name: str, value: Any, column: type) -> Any:
    if value is None or type(value) is column:
        return value
    if column is float and type(value) is int:
        return float(value)
    raise DamagedError(f"{name}={value!r} is no {column.__name__}")


def beside(document: Mapping[str, Any]) -> dict[str, float]:
    """What was noted in numbers, by the names that MLflow has for them: `diagnostics.KEY`, `seconds.STAGE`."""
    noted = {part: document.get(part) for part in ("diagnostics", "seconds")}
    numbers = {name: value for name, value in leaves(noted) if isinstance(value, int | float)}
    return {name: float(numbers[name]) for name in sorted(numbers) if abs(numbers[name]) <= sys.float_info.max}


def leaves(values: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """The single values of nested mappings of JSON, with dotted keys."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += leaves(value, f"{prefix}{key}.")
        elif value is not None and not isinstance(value, list):
            found.append((prefix + key, value))
    return found
