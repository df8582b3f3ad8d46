"""`gibench audit`: what a server can read out of a user's own update."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gibench.cli import options
from gibench.cli.console import note, print_json, results_alone, say_all


def audit(
    update: Annotated[Path, typer.Argument(metavar="UPDATE", help="What the client sent: .safetensors, .pt or .npz.")],
    model: Annotated[
        str, typer.Option("--model", metavar="MODULE:FACTORY", help="Or FILE.py:FACTORY(key=value). Its code is run.")
    ],
    image_shape: Annotated[
        str | None, typer.Option("--image-shape", metavar="C,H,W", help="Of what the model takes.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help="The weights that the client received.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="auto, gradient, delta or weights. Default: auto.")
    ] = None,
    mean: Annotated[str | None, typer.Option("--mean", metavar="M,..", help="Of the pixels. Default: 0.")] = None,
    std: Annotated[str | None, typer.Option("--std", metavar="S,..", help="Of the pixels. Default: 1.")] = None,
    protocol: Annotated[
        Path | None,
        typer.Option("--protocol", metavar="FILE", help="The facts of the round as YAML; options go first."),
    ] = None,
    optimizer: Annotated[str | None, typer.Option("--optimizer", metavar="NAME", help="sgd or adam.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", metavar="RATE", help="Learning rate of the client.")] = None,
    weight_decay: Annotated[
        float | None, typer.Option("--weight-decay", metavar="W", help="Weight decay of the client.")
    ] = None,
    momentum: Annotated[float | None, typer.Option("--momentum", metavar="M", help="Momentum of the client.")] = None,
    local_steps: Annotated[
        int | None, typer.Option("--local-steps", metavar="N", help="Steps that the update is of.")
    ] = None,
    local_epochs: Annotated[
        int | None, typer.Option("--local-epochs", metavar="N", help="Times that these go through the images.")
    ] = None,
    clients: Annotated[
        int | None, typer.Option("--clients", metavar="N", help="Whose updates are averaged in it.")
    ] = None,
    loss: Annotated[str | None, typer.Option("--loss", metavar="LOSS", help="ce, or ce-smooth=SHARE.")] = None,
    reduction: Annotated[
        str | None, typer.Option("--reduction", metavar="NAME", help="Of the loss over the batch: mean or sum.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", metavar="N", help="Images that the update is of.")
    ] = None,
    mode: Annotated[str | None, typer.Option("--mode", metavar="MODE", help="Of the model: train or eval.")] = None,
    defense: Annotated[
        str | None, typer.Option("--defense", metavar="SPEC", help="Of the client; + composes several.")
    ] = None,
    attack: Annotated[
        list[str] | None, typer.Option("--attack", metavar="SPEC", help="Repeat for several. Default: what suits.")
    ] = None,
    budget: Annotated[float, typer.Option("--budget", metavar="MINUTES", help="For all attacks together.")] = 10.0,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu or cuda.")] = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="Write audit.md, audit.html and audit.json there.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option("--truth", metavar="FILE", help="The images, to score only; no attack sees them.")
    ] = None,
    fail_on: Annotated[
        str, typer.Option("--fail-on", metavar="WHAT", help="certified, or suspect too, ends with its exit code.")
    ] = "suspect",
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Put what is recovered into the report.")
    ] = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show what a server can read out of an update that your client sent; no truth is needed.

    Exit codes: 0 nothing shown, 3 certified leak, 4 suspect, 2 refused, 1 error. Nothing is sent anywhere.
    """
    from gibench.audit import render
    from gibench.audit.protocol import Protocol
    from gibench.audit.run import audit as run
    from gibench.errors import UsageError

    if fail_on not in ("certified", "suspect"):
        raise UsageError(f"--fail-on {fail_on} is refused: use certified or suspect")
    if not budget > 0:
        raise UsageError(f"--budget {budget} is refused: give minutes above 0")
    training = options.given(
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        momentum=momentum,
        local_steps=local_steps,
        local_epochs=local_epochs,
        clients=clients,
        loss=loss,
        reduction=reduction,
        batch_size=batch_size,
        mode=mode,
        defense=defense,
    )
    told: dict[str, Any] = {"mean": 0.0, "std": 1.0, "kind": "auto"} | (Protocol.read(protocol) if protocol else {})
    told |= options.given(image_shape=image_shape, mean=mean, std=std, kind=kind) | training
    if "image_shape" not in told:
        raise UsageError("the shape of the images is not told: give --image-shape C,H,W")
    if output:
        _make(output)
    note(f"running the code of {model}, which must be your own or trusted")
    first = {name: told.pop(name) for name in ("image_shape", "mean", "std", "kind")}
    with results_alone():  # whatever a model prints
        report = run(
            model,
            update,
            first["image_shape"],
            first["mean"],
            first["std"],
            weights=weights,
            kind=first["kind"],
            training=told,
            attacks=attack,
            budget=budget,
            device=device,
            truth=truth,
            progress=_progress,
        )
    if output:
        render.write(report, output, images)
        note(f"the report is in {output / 'audit.html'}, and beside it as .md and .json")
    if as_json:
        print_json(report.as_dict(images))
    else:
        say_all(render.text(report).splitlines())
    limit: Literal["certified", "suspect"] = "certified" if fail_on == "certified" else "suspect"
    raise typer.Exit(report.exit_code(limit))


def _make(folder: Path) -> None:
    """The folder of the report, before anything is computed for it."""
    from gibench.errors import UsageError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output {folder} cannot be made ({error.strerror}): name another folder") from error


def _progress(message: str, fraction: float | None = None) -> None:
    """A line for each attack that begins; what an attack says of its rounds is for bars."""
    if message.startswith("trying "):
        note(message)
