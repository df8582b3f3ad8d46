"""`gibench sweep`: the cells of a suite file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gibench.cell import CellAxes
from gibench.cli import options
from gibench.sweep.how import How


@options.takes_axes(CellAxes, "device", "threads")
def sweep(
    axes: dict[str, Any],
    how: How,
    suite: Annotated[Path, typer.Argument(metavar="SUITE", help="A file, or a name that gibench list suites shows.")],
    timeout: options.Timeout = None,
    results: options.Results = None,
    tracking_uri: options.TrackingUri = None,
    experiment: options.Experiment = None,
    only: options.Only = None,
    shard: options.Shard = None,
    limit: options.Limit = None,
    force: options.Force = False,
    no_pictures: options.NoPictures = False,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
    debug: options.Debug = False,
) -> None:
    """Run the cells of a suite, one after the other; finished ones are not run again.

    Its keys are the options of gibench run with underscores, and a name; a key with a list is an axis. Options given
    here take the place of the file's.
    """
    from gibench.cli.grid import run_request
    from gibench.sweep import named
    from gibench.sweep.choice import Choice
    from gibench.sweep.suite import Suite

    choice = Choice.of_options(only or (), shard, limit)
    given = axes | options.given(timeout=timeout, results=results, tracking_uri=tracking_uri, experiment=experiment)
    loaded = Suite.read(named.find(suite), given)
    run_request(loaded, how, choice, force=force, pictures=not no_pictures, as_json=as_json, dry_run=dry_run)
