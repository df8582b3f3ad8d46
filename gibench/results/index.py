"""The rows of one experiment's folder, read fast: a line a row in a file that is rebuilt where missing or stale.

The folders of the cells are the truth. A line of the index counts only as long as the file that it was made from has
the same size and time of change, so that nothing depends on the index having been written.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gibench.errors import DataWarning
from gibench.results.document import RESULT, DamagedError, parsed
from gibench.results.durable import append_line, write_file

_NAME = ".index.jsonl"

Stamp = tuple[int, int]  # of a file: nanoseconds, bytes


class Entry(NamedTuple):
    """What the index holds of a cell: from which file, and the columns of its row as JSON has them."""

    stamp: Stamp  # of the file
    row: dict[str, Any]  # what is null may be missing


def entries(folder: Path) -> dict[str, Entry]:
    """Every cell in the folder by its key; one that is damaged is left out with a warning that names it."""
    lines = _lines(folder / _NAME)
    found = _found(folder, lines)
    if found != lines:
        _rebuild(folder, found)
    return found


def changes(folder: Path, known: Mapping[str, Stamp]) -> tuple[dict[str, Entry], set[str]]:
    """What differs from what was read before.

    Args:
        folder: of an experiment.
        known: of each cell the stamp that was read with it.

    Returns:
        The cells that are new or written anew, and the keys of those that are gone.
    """
    stamps = _stamps(folder)
    new = {key: stamp for key, stamp in stamps.items() if known.get(key) != stamp}
    return _entries(folder, new), known.keys() - stamps.keys()


def read(folder: Path) -> dict[str, Entry]:
    """The same of a folder that stays as it is."""
    return _found(folder, _lines(folder / _NAME))


def _found(folder: Path, lines: dict[str, Entry]) -> dict[str, Entry]:
    stamps = _stamps(folder)
    known = {key: entry for key, entry in lines.items() if stamps.get(key) == entry.stamp}
    return known | _entries(folder, {key: stamps[key] for key in stamps.keys() - known.keys()})


def _entries(folder: Path, stamps: Mapping[str, Stamp]) -> dict[str, Entry]:
    """What the cells' own files say."""
    rows = {key: row_at(folder, key) for key in stamps}
    return {key: Entry(stamps[key], row) for key, row in rows.items() if row}


def add(folder: Path, key: str, entry: Entry) -> None:
    """Note a cell that has just been written; where that fails it is found without."""
    with contextlib.suppress(OSError):
        append_line(folder / _NAME, _line(key, entry))


def _stamps(folder: Path) -> dict[str, Stamp]:
    """When each cell was written, by its key."""
    found = {}
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return {}
    for key in names:
        if not key.startswith("."):
            with contextlib.suppress(OSError):  # it is no cell, or has just been taken away
                found[key] = stamp(f"{folder}/{key}/{RESULT}")
    return found


def stamp(file: str | Path) -> Stamp:
    """What changes when a file is written anew, and stays when it is renamed: nanoseconds, bytes."""
    status = os.stat(file)
    return status.st_mtime_ns, status.st_size


def _lines(file: Path) -> dict[str, Entry]:
    found = {}
    with contextlib.suppress(OSError), file.open("rb") as stream:
        for line in stream:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # cut off half-way, or of another time
                entry = json.loads(line)
                found[entry["key"]] = Entry(tuple(entry["stamp"]), entry["row"])
    return found


def row_at(folder: Path, key: str) -> dict[str, Any] | None:
    """The columns of a cell's row as its file has them; None where there is none, or a damaged one, with a warning."""
    try:
        row = parsed((folder / key / RESULT).read_bytes()).get("row")
        if not isinstance(row, dict):
            raise DamagedError("it has no row")
    except FileNotFoundError:  # taken away or replaced just now
        return None
    except (OSError, DamagedError) as error:
        warn_of(folder / key, error)
        return None
    return row


def warn_of(folder: Path, error: Exception) -> None:
    """Say why a cell is left out."""
    warnings.warn(
        f"{folder} is damaged and left out ({error}): delete it, and its cell is run again", DataWarning, stacklevel=2
    )


def _line(key: str, entry: Entry) -> str:
    row = {name: value for name, value in entry.row.items() if value is not None}  # the nulls would be a third of it
    return json.dumps({"key": key, "stamp": entry.stamp, "row": row}, allow_nan=False)


def _rebuild(folder: Path, found: dict[str, Entry]) -> None:
    text = "".join(f"{_line(key, entry)}\n" for key, entry in found.items())
    with contextlib.suppress(OSError):  # a folder that may only be read is read without
        write_file(folder / _NAME, text.encode(), f".index.{os.getpid()}.new")
