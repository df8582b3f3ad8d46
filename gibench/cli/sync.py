"""`gibench sync`: what is finished, into MLflow."""

from __future__ import annotations

import typer

from gibench.cli.console import note, warn
from gibench.cli.options import Debug, Experiment, Results, TrackingUri


def sync(
    results: Results = None,
    tracking_uri: TrackingUri = None,
    experiment: Experiment = None,
    debug: Debug = False,
) -> None:
    """Deliver to MLflow what it has not got of the results folder: of one experiment, or without one named of all.

    Every run and sweep does so for its own experiment. Nothing is delivered twice.
    """
    from gibench.address import shown
    from gibench.cli.progress import waiting
    from gibench.delivery import Delivery
    from gibench.mlflow_store import check_address
    from gibench.results import Results as Folder
    from gibench.results.place import experiments

    check_address(tracking_uri)
    delivered = 0
    for name in [experiment] if experiment else experiments(results):
        folder = Folder(results, name, create=True)
        with waiting() as working, Delivery(folder, tracking_uri, None, warn, working) as each:
            pass
        delivered += each.delivered
        if each.problem:
            note(f"{delivered} rows delivered, the others when the tracking store can be used again")
            raise typer.Exit(1)
    note(f"{delivered} rows delivered to {shown(tracking_uri)}")
