"""`gibench site`: the leaderboard as a static site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gibench.cli.console import note
from gibench.cli.options import Debug, Experiment, Results, TrackingUri
from gibench.errors import UsageError


def site(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder to write: new, empty, or a site of an earlier call.")
    ],
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Rows of gibench export or a CSV of rows, instead of what is stored; repeat for several.",
        ),
    ] = None,
    results: Results = None,
    tracking_uri: TrackingUri = None,
    experiment: Experiment = None,
    debug: Debug = False,
) -> None:
    """Write what is stored as a static site that a browser opens from its folder, without a network or a server.

    It has the summary to sort and to filter, heat maps, curves, and a page for each row with its pictures, the scores
    of its images, its settings and where it comes from.
    """
    from gibench.leaderboard.site import build
    from gibench.leaderboard.site.rows import of_files, of_store
    from gibench.stored import Stored

    if files and (results or tracking_uri or experiment):
        raise UsageError("--from is instead of what is stored: leave out --results, --tracking-uri and --experiment")
    shown = of_files(files) if files else of_store(Stored(results, tracking_uri, experiment))
    rows = build(folder, shown)
    note(f"{folder / 'index.html'}: {len(rows)} cells")
