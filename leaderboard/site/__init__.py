"""The leaderboard as a static site: plain files that a browser opens from a folder, without a network.

A file a job: `place` owns the folder, `rows` says which rows there are and what lies beside them, `overview` makes the
table, `heat` the heat maps, `curves` says which rows a curve is of and `chart` draws it, `cell` makes the page of one
row, `pages` fills the templates.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gibench.leaderboard.formats import sections
from gibench.leaderboard.table import newest, summarize
from gibench.result import Row
from gibench.text import visible

from . import cell, curves, heat, overview
from .pages import asset, render
from .place import Place
from .rows import Shown

_ASSETS = ("style.css", "script.js")


def build(folder: Path, shown: Shown) -> list[Row]:
    """Write the site, in the place of an older one; returns the rows that it shows.

    Of several rows for one cell the newest counts. The pages of rows are written first and the index last, each at
    once, so that whoever ends this leaves an index whose pages are all there.

    Args:
        folder: made if need be; empty, or a site of ours.
        shown: the rows, and what lies beside each.

    Raises:
        UsageError: the folder holds something else, or cannot be written.
    """
    with Place(folder) as place:
        rows = newest(shown.rows)
        pages = [(row, cell.name_of(row)) for row in rows]
        shared = _shared(shown.source, rows, pages)
        for row, name in pages:
            beside = shown.beside(row)
            if beside and beside.picture is not None:
                place.write(f"rows/{name}.png", beside.picture)
            place.write(f"rows/{name}.html", cell.page(row, name, beside))
        for file, content in shared.items():
            place.write(file, content)
    return rows


def _shared(source: str, rows: Sequence[Row], pages: Sequence[tuple[Row, str]]) -> dict[str, bytes]:
    """The files that are of all rows, the index last."""
    summary = list(sections(summarize(rows), visible))
    days = sorted({row.started[:10] for row in rows})
    when = " to ".join(dict.fromkeys((*days[:1], *days[-1:])))
    about = f"{len(rows)} cells of {source}" + (f", run {when}" if when else "")
    return {
        **{name: asset(name) for name in _ASSETS},
        "map.html": render("map.html", title="Heat map", maps=list(heat.maps(summary))),
        "curves.html": render("curves.html", title="Curves", groups=curves.groups(summary)),
        "index.html": render("index.html", title="Leaderboard", about=about, **overview.table(summary, pages)),
    }
