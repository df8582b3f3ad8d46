"""The options that verbs share, each defined once. An option left out is None, and `Suite` has the default."""

from __future__ import annotations

from typing import Annotated

import typer

Attacks = Annotated[list[str] | None, typer.Option("--attack", metavar="SPEC", help="Attack; repeat for several.")]
Defenses = Annotated[
    list[str] | None,
    typer.Option("--defense", metavar="SPEC", show_default="none", help="Defense; + composes several."),
]
Datasets = Annotated[
    list[str] | None, typer.Option("--dataset", metavar="SPEC", show_default="photos", help="Images to attack.")
]
Models = Annotated[
    list[str] | None, typer.Option("--model", metavar="SPEC", show_default="mlp", help="Network the gradient is of.")
]
TrainSteps = Annotated[
    list[int] | None,
    typer.Option("--train-steps", metavar="N", show_default="0", help="Training steps on the training split before."),
]
BatchSizes = Annotated[
    list[int] | None,
    typer.Option("--batch-size", metavar="N", show_default="20", help="Private images of each client."),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--labels", metavar="iid|unique|same", show_default="iid", help="Composition of the batch's labels."),
]
Knows = Annotated[
    list[str] | None,
    typer.Option(
        "--knows",
        metavar="FACTS",
        show_default="batch_size,local_hyperparameters,prior",
        help="What the server knows: some of batch_size, labels, local_hyperparameters, bn_statistics, prior, "
        "surrogate_data, joined by commas, or nothing.",
    ),
]
Seeds = Annotated[
    list[str] | None, typer.Option("--seed", metavar="N|N-M", show_default="0", help="A number, or a range as 0-9.")
]
Devices = Annotated[
    list[str] | None, typer.Option("--device", metavar="auto|cpu|cuda", show_default="auto", help="Where to compute.")
]
Dtypes = Annotated[
    list[str] | None,
    typer.Option("--dtype", metavar="float32|float64", show_default="float32", help="Of model and gradient."),
]
Timeout = Annotated[
    float | None, typer.Option("--timeout", metavar="SECONDS", help="Wall clock of each attack; none without it.")
]
TrackingUri = Annotated[
    str | None, typer.Option("--tracking-uri", metavar="URI", help="MLflow store or server; local SQLite without it.")
]
Experiment = Annotated[
    str | None, typer.Option("--experiment", metavar="NAME", show_default="gibench", help="MLflow experiment.")
]
Force = Annotated[bool, typer.Option("--force", help="Run finished cells again.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and print the cells without running them.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
