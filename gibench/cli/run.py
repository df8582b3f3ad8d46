"""`gibench run`: one cell, or the grid that repeated options make."""

from __future__ import annotations

from typing import Any

from gibench.cell import CellAxes
from gibench.cli import options
from gibench.sweep.how import How


@options.takes_axes(CellAxes)
def run(
    axes: dict[str, Any],
    how: How,
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
    """Run attacks against defenses and print the table; a repeated option makes a grid.

    A SPEC is name or name:key=value,key=value, as in dp:noise_multiplier=1e-4; see gibench list NAME.
    """
    from gibench.cli.grid import run_request
    from gibench.sweep.choice import Choice
    from gibench.sweep.suite import Suite

    choice = Choice.of_options(only or (), shard, limit)
    given = axes | options.given(timeout=timeout, results=results, tracking_uri=tracking_uri, experiment=experiment)
    run_request(
        Suite.from_settings("gibench run", given),
        how,
        choice,
        force=force,
        pictures=not no_pictures,
        as_json=as_json,
        dry_run=dry_run,
    )
