"""The page of one row: its pictures, the scores of its images, its settings, and what was noted beside it."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image

from gibench.axes import axes_of
from gibench.cell import CellAxes
from gibench.registry import readable
from gibench.result import Row
from gibench.text import outline

from .pages import render
from .rows import Beside

_ABOUT = ("status", "reason")  # stand above the table of columns


def name_of(row: Row) -> str:
    """Of the page; whatever the row's ids hold, it is a name of ours."""
    return hashlib.sha256(f"{row.key} {row.run_id}".encode("utf-8", "backslashreplace")).hexdigest()[:16]


def page(row: Row, name: str, beside: Beside | None) -> bytes:
    """The page.

    Args:
        row: as it is stored.
        name: from `name_of`; its picture has it too.
        beside: its files; None where only the row is known.
    """
    columns = row.as_dict()
    axes = axes_of(CellAxes)
    picture, images, noted = beside or (None, None, {})
    return render(
        "cell.html",
        root="../",
        title=f"{readable('attack', row.attack)} against {readable('defense', row.defense)}, seed {row.seed}",
        row=row,
        name=name,
        has_files=beside is not None,
        has_picture=picture is not None,
        size=_size(picture),
        images=list(_images(images)),
        settings=[(each, _text(columns[each])) for each in reversed(axes)],
        columns=[(each, _text(value)) for each, value in columns.items() if each not in axes and each not in _ABOUT],
        noted=[(part, list(outline(values))) for part, values in noted.items()],
    )


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
