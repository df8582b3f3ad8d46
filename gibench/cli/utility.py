"""`gibench utility`: what a defense costs, by training with it and without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gibench.cli import options
from gibench.cli.console import note, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gibench.result import Row
    from gibench.utility.request import Utility


def utility(
    defense: options.Defenses = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", metavar="SPEC", show_default="digits", help="Images to train and to test on."),
    ] = None,
    model: options.Models = None,
    batch_size: options.BatchSizes = None,
    rounds: Annotated[
        int | None, typer.Option("--rounds", metavar="N", show_default="300", help="Updates that the server takes.")
    ] = None,
    seed: Annotated[
        list[str] | None,
        typer.Option("--seed", metavar="N|N-M", show_default="0-2", help="A number, or a range as 0-9."),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="auto|cpu|cuda", show_default="auto", help="Where to compute.")
    ] = None,
    tracking_uri: options.TrackingUri = None,
    experiment: options.Experiment = None,
    force: options.Force = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Train with and without defenses: test accuracy, loss, overhead of a round, bytes of an update.

    Clients hold images of the training split, and the private split is the test split. What is stored is not run again,
    and gibench leaderboard joins the accuracy to the rows of the same defense, model and batch size.
    """
    from gibench.utility.request import Utility

    given = {
        "defense": defense,
        "dataset": dataset,
        "model": model,
        "batch_size": batch_size,
        "rounds": rounds,
        "seed": seed,
        "device": device,
        "tracking_uri": tracking_uri,
        "experiment": experiment,
    }
    request = Utility.from_settings(
        "gibench utility", {key: value for key, value in given.items() if value is not None}
    )
    try:
        rows = train([request], force)
    except KeyboardInterrupt:
        note("interrupted: finished training runs are stored, and the same command goes on from there")
        raise typer.Exit(130) from None
    if as_json:
        print_json(rows)
    else:
        print_table(rows)


def train(requests: Sequence[Utility], force: bool = False) -> list[Row]:
    """Run what is asked for, with a line a training run on standard error; requests share one store."""
    import sys
    from contextlib import redirect_stdout

    from gibench.cli.leaderboard import short
    from gibench.utility.run import prepare, run_trials
    from gibench.utility.store import COLUMNS, UtilityStore

    def finished(number: int, row: Row, stored_before: bool) -> None:
        outcome = row["status"] if row["accuracy"] is None else f"{row['status']}, accuracy {row['accuracy']:.3f}"
        title = (
            f"utility of {short('defense', row['defense'])} | {short('dataset', row['dataset'])} | seed {row['seed']}"
        )
        note(f"[{number}/{len(trials)}] {title}: {'stored before' if stored_before else outcome}")

    with redirect_stdout(sys.stderr):  # standard output is for the rows, whatever a plugin prints
        trials = prepare(requests)
        store = UtilityStore(requests[0].tracking_uri, requests[0].experiment)
        rows = run_trials(trials, store, finished, lambda message, fraction: None, force)
    return [{name: row.get(name) for name in (*COLUMNS, "run_id")} for row in rows]


def print_table(rows: Sequence[Row]) -> None:
    """One table for each data set, model, batch size and number of rounds: means over the seeds."""
    from gibench.cli.leaderboard import short
    from gibench.leaderboard.utility import SCENARIO, summarize

    sections: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in summarize(rows):
        sections.setdefault(tuple(line[name] for name in SCENARIO), []).append(line)
    for (dataset, model, batch_size, rounds, device), lines in sections.items():
        where = f"{short('dataset', dataset)}; {short('model', model)}; batch {batch_size}; {rounds} rounds on {device}"
        typer.echo(f"{where}; {', '.join(sorted({row['hardware'] for row in rows}))}\n")
        _print(lines, short)


def _print(lines: Sequence[dict[str, Any]], short: Any) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("defense", overflow="fold")
    for heading in (
        "ok / tried",
        "accuracy",
        "least - most",
        "lost",
        "loss",
        "ms a round",
        "overhead",
        "kB",
        "of none",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        numbers = [
            f"{line['n_ok']} / {line['n_tried']}" if line["n_tried"] else "skipped",
            _number(line["accuracy"], "{:.3f}"),
            "-" if line["accuracy"] is None else f"{line['accuracy_low']:.3f} - {line['accuracy_high']:.3f}",
            _number(line["accuracy_lost"], "{:.3f}"),
            _number(line["loss"], "{:.3f}"),
            _number(line["round_s"], "{:.2f}", 1000),
            _number(line["overhead"], "{:.1f}x"),
            _number(line["round_bytes"], "{:.1f}", 1e-3),
            _number(line["bytes_share"], "{:.0%}"),
        ]
        table.add_row(Text(short("defense", line["defense"])), *numbers)
    Console(highlight=False, width=160).print(table, "")
    for line in lines:
        if line["reason"]:
            typer.echo(f"{short('defense', line['defense'])}: {line['reason']}")


def _number(value: float | None, form: str, factor: float = 1) -> str:
    return "-" if value is None else form.format(value * factor)
