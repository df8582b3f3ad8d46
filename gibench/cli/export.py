"""`gibench export`: stored rows as one file for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gibench.cli.console import note, warn
from gibench.cli.options import Debug, Experiment, Results, TrackingUri


def export(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Write there.")],
    suite: Annotated[
        Path | None,
        typer.Option("--suite", metavar="SUITE", help="Only its cells: a file, or the name of one of ours."),
    ] = None,
    results: Results = None,
    tracking_uri: TrackingUri = None,
    experiment: Experiment = None,
    debug: Debug = False,
) -> None:
    """Write stored rows, their per-image tables and where they come from into one file; nothing is run.

    gibench check-submission checks it, and gibench leaderboard --from shows it.
    """
    from importlib.metadata import version

    from gibench.errors import UsageError
    from gibench.stored import Stored
    from gibench.submission.content import written
    from gibench.submission.export import export as exported
    from gibench.sweep import named

    found = exported(Stored(results, tracking_uri, experiment), None if suite is None else named.find(suite))
    content = written(found.submission, version("gibench"))
    try:
        output.write_bytes(content)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror or error}: choose another --output") from None
    if found.missing:
        warn(f"{found.missing} of the suite's {found.wanted} cells are not stored: gibench sweep {suite} runs them")
    note(f"{len(found.submission.rows)} rows are in {output}: gibench check-submission {output} checks them")
