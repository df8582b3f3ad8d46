"""`gibench utility`: what a defense costs, by training with it and without."""

from __future__ import annotations

from typing import Any

from gibench.cli import options
from gibench.sweep.how import How
from gibench.utility.job import TrialAxes


@options.takes_axes(TrialAxes)
def utility(
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
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
    debug: options.Debug = False,
) -> None:
    """Train with and without defenses: test accuracy, loss, overhead of a round, bytes of an update.

    Clients hold images of the training split, and the private split is the test split. What is stored is not run
    again, and gibench leaderboard joins the accuracy to the rows of the same defense, model and batch size.
    """
    from gibench.cli.grid import run_request
    from gibench.sweep.choice import Choice
    from gibench.utility.request import Utility

    choice = Choice.of_options(only or (), shard, limit)
    given = axes | options.given(timeout=timeout, results=results, tracking_uri=tracking_uri, experiment=experiment)
    asked = Utility.from_settings("gibench utility", given)
    run_request(asked, how, choice, force=force, as_json=as_json, dry_run=dry_run)
