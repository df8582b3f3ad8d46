"""`gibench plot`: a figure of what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gibench.cli.console import note
from gibench.cli.options import Debug, Experiment, Filter, Results, TrackingUri
from gibench.errors import UsageError
from gibench.registry import readable

_SUFFIXES = (".png", ".svg", ".pdf")
_DPI = 150  # of a PNG


def plot(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="scaling, wall, hard_batches, training, objectives, ablation, privacy_utility, noise or matrix.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="The file to write: .png, .svg or .pdf.")],
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="SPEC", help="Only rows of this network: --filter model=SPEC."),
    ] = None,
    attacks: Annotated[
        list[str] | None,
        typer.Option("--attack", metavar="SPEC", help="Only rows of this attack: --filter attack=SPEC."),
    ] = None,
    filters: Filter = None,
    results: Results = None,
    tracking_uri: TrackingUri = None,
    experiment: Experiment = None,
    debug: Debug = False,
) -> None:
    """Draw a figure of what is stored, without running anything.

    A plot takes the rows of the experiment that it is of: those of its attacks (spearpp, and spear for wall; any for
    privacy_utility, noise and matrix), in the one scenario that has most points to show. It never mixes data sets,
    threat models or hardware; the newest row of a cell counts. --model, --attack and --filter say which of the rows it
    may be of. leaderboard/suites has a suite for each plot; for a figure of one suite alone, run it under an
    --experiment of its own.
    """
    from gibench.leaderboard import choose, plots
    from gibench.leaderboard.pick import describe
    from gibench.leaderboard.table import newest, table
    from gibench.leaderboard.utility import joined
    from gibench.result import Row
    from gibench.results.place import experiment_name
    from gibench.stored import Stored
    from gibench.utility.job import TrialRow

    if name not in plots.PLOTS:
        raise UsageError(f"there is no plot '{name}': there are {', '.join(plots.PLOTS)}")
    if output.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"{output} has no suffix that says what to write: end it in {', '.join(_SUFFIXES)}")
    kind = plots.PLOTS[name]
    named = {"model": models or (), "attack": attacks or ()}
    specs = [f"{axis}={spec}" for axis, given in named.items() for spec in given]
    wanted = choose.wanted([*specs, *(filters or ())])
    stored = Stored(results, tracking_uri, experiment)
    rows = newest(joined(stored.rows(Row, diagnostics=True), stored.rows(TrialRow)))
    chosen = choose.filtered(rows, wanted)
    picked = kind.pick(describe(table(chosen), readable))
    if picked.empty:
        here = f" among the {len(chosen)} rows asked for" if wanted else ""
        raise UsageError(
            f"the experiment '{experiment_name(experiment)}' has nothing{here} for the plot {name}, which needs rows "
            f"of {kind.needs}: run its suite, or see --experiment"
        )
    by_run = {row.run_id: row for row in rows}
    images = [stored.images(by_run[run] for run in picked["run_id"])] if kind.images else []
    figure = plots.draw(kind, picked, *images)
    try:
        figure.savefig(output, dpi=_DPI)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror or error}: choose another --output") from None
    note(f"{output}: {len(picked)} of {len(rows)} stored cells")
