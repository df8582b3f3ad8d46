"""`gibench show`: one stored row in full."""

from __future__ import annotations

from typing import Annotated

import typer

from gibench.cli.console import print_json, say
from gibench.cli.options import Debug, Experiment, Json, Results, TrackingUri
from gibench.text import outline


def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run_id, or how it begins.")],
    results: Results = None,
    tracking_uri: TrackingUri = None,
    experiment: Experiment = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show one stored row in full: columns, the image grid's path, diagnostics, provenance, seconds by stage."""
    from gibench.result import Row
    from gibench.stored import Stored

    row, details = Stored(results, tracking_uri, experiment).row(Row, run)
    if as_json:
        print_json([{**row.as_dict(), **details}])
        return
    for line in outline({**row.as_dict(), **details}):
        say(line)
