"""`gibench run`: one cell, or the grid that repeated options make."""

from __future__ import annotations

from gibench.cli import options


def run(
    attack: options.Attacks = None,
    defense: options.Defenses = None,
    dataset: options.Datasets = None,
    model: options.Models = None,
    train_steps: options.TrainSteps = None,
    batch_size: options.BatchSizes = None,
    labels: options.Labels = None,
    knows: options.Knows = None,
    seed: options.Seeds = None,
    device: options.Devices = None,
    dtype: options.Dtypes = None,
    timeout: options.Timeout = None,
    tracking_uri: options.TrackingUri = None,
    experiment: options.Experiment = None,
    force: options.Force = False,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
    debug: options.Debug = False,
) -> None:
    """Run attacks against defenses and print the table; a repeated option makes a grid.

    A SPEC is name or name:key=value,key=value, as in dp:noise_multiplier=1e-4; see gibench list NAME.
    """
    from gibench.cli.grid import run_suite
    from gibench.sweep.suite import Suite

    given = {
        "attack": attack,
        "defense": defense,
        "dataset": dataset,
        "model": model,
        "train_steps": train_steps,
        "batch_size": batch_size,
        "labels": labels,
        "knows": knows,
        "seed": seed,
        "device": device,
        "dtype": dtype,
        "timeout": timeout,
        "tracking_uri": tracking_uri,
        "experiment": experiment,
    }
    suite = Suite.from_settings("gibench run", {key: value for key, value in given.items() if value is not None})
    run_suite(suite, force=force, as_json=as_json, dry_run=dry_run)
