"""The page of one row: its pictures, the scores of its images, its settings, and what was noted beside it."""

from __future__ import annotations

import csv
import hashlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from gibench.axes import axes_of
from gibench.cell import CellAxes
from gibench.errors import DataWarning
from gibench.registry import readable
from gibench.result import Row
from gibench.text import outline

from .pages import render

_BESIDE = ("diagnostics", "provenance", "seconds")
_ABOUT = ("status", "reason")  # stand above the table of columns


def name_of(row: Row) -> str:
    """Of the page; whatever the row's ids hold, it is a name of ours."""
    return hashlib.sha256(f"{row.key} {row.run_id}".encode("utf-8", "backslashreplace")).hexdigest()[:16]


def page(row: Row, name: str, beside: Mapping[str, Any]) -> tuple[bytes, bytes | None]:
    """The page, and the picture that it shows, if there is one.

    Args:
        row: as it is stored.
        name: from `name_of`.
        beside: what `gibench.stored.Stored.details` gives; nothing where only the row is known.
    """
    picture = _read(beside.get("grid"))
    columns = row.as_dict()
    axes = axes_of(CellAxes)
    made = render(
        "cell.html",
        root="../",
        title=f"{readable('attack', row.attack)} against {readable('defense', row.defense)}, seed {row.seed}",
        row=row,
        name=name,
        has_files=bool(beside),
        size=_size(picture),
        has_picture=picture is not None,
        images=list(_images(_read(beside.get("images")))),
        settings=[(each, _text(columns[each])) for each in reversed(axes)],
        columns=[(each, _text(value)) for each, value in columns.items() if each not in axes and each not in _ABOUT],
        noted=[(each, list(outline(beside[each]))) for each in _BESIDE if beside.get(each)],
    )
    return made, picture


def _read(file: str | None) -> bytes | None:
    """A file's content; None where there is none, or it is gone."""
    if file is None:
        return None
    try:
        return Path(file).read_bytes()
    except OSError as error:
        warnings.warn(f"{file} cannot be read and is left out: {error.strerror or error}", DataWarning, stacklevel=2)
        return None


def _size(picture: bytes | None) -> tuple[int, int] | None:
    """Width and height in pixels; None where it is no picture."""
    try:
        return Image.open(io.BytesIO(picture)).size if picture else None
    except (OSError, Image.DecompressionBombError):
        return None


def _images(table: bytes | None) -> Iterator[Sequence[str]]:
    """The lines of a per-image table, its head first, numbers short enough to read."""
    for line in csv.reader(io.StringIO((table or b"").decode("utf-8", "backslashreplace"), newline="")):
        yield [_short(value) for value in line]


def _short(text: str) -> str:
    try:
        return text if len(text) < 7 else f"{float(text):.4g}"
    except ValueError:
        return text


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
