"""Every attack on a GPU against the CPU's result: `python tests/benchmarks/gpu.py`; sizes are in `reach.py`.

A GPU draws other random numbers and rounds otherwise, but status, exact images and certificates must be those of the
CPU, else the exit code is 1. Without CUDA it is refused; `--device cpu` is for a trial run.
"""

from __future__ import annotations

import argparse
import sys

import torch

from gibench import device
from gibench.errors import UsageError
from gibench.experiment import run_cell
from gibench.registry import entries
from gibench.result import Row
from gibench.sweep.suite import Suite

ITERATIONS = "max_iterations=3"
FAST = {  # settings with which an attack takes about a second
    "spear": "draws=2000",
    "cocktailparty": "max_iterations=10",
    "wrong-gradient": "attack=layer-pair",
    **dict.fromkeys(["spearpp-pruned", "spearpp-local-steps"], "rounds=1"),
    "spearpp-quantized": "rounds=1,without=next-layer/splitting",
    **dict.fromkeys(
        ["sme", "invertinggradients", "invertinggradients-adaptive", "modern", "gradinversion"], ITERATIONS
    ),
    **dict.fromkeys(["idlg", "dlg-adaptive"], f"{ITERATIONS},optimizer=adam"),  # lbfgs evaluates each 20 times
    "dlg": "max_iterations=1",
}
DEFENDED = {  # what the attack is there for
    "sme": "fedavg:epochs=2",
    "spearpp-local-steps": "fedavg:epochs=2,lr=0.1",
    "spearpp-pruned": "pruning:sparsity=0.3",
    "spearpp-quantized": "quantize",
    "dlg-adaptive": "fedavg:epochs=2+dp:noise_multiplier=0",
    "invertinggradients-adaptive": "pruning:sparsity=0.3+clip",
}
MODELS = {  # in place of a chain of linear layers
    **dict.fromkeys(["april", "token-span"], "vit-tiny:patch=16,depth=2"),
    "r-gap": "lenet",
}
SINGLE = ("april", "r-gap")  # for an update of one image


def attacks() -> dict[str, str]:
    """Every attack of this project as a small spec, with the defense that it meets."""
    names = [entry.name for entry in entries("attack") if entry.distribution == "gibench"]
    return {f"{name}:{FAST[name]}" if name in FAST else name: DEFENDED.get(name, "none") for name in names}


def attacked(attack: str, on: str, defense: str) -> Row:
    """The row of one cell, its update of five hidden layers."""
    name = attack.partition(":")[0]
    axes = {"attack": attack, "defense": defense, "device": on, "batch_size": 1 if name in SINGLE else 4}
    model = MODELS.get(name, "mlp:width=100,depth=5")
    (cell,) = Suite.from_settings("gpu", {**axes, "model": model}).cells()
    return run_cell(cell, lambda message, fraction=None: None).row


def compare(on: str) -> list[str]:
    """Print a line for each attack, and give those whose result is not the CPU's."""
    print("| attack | defense | status | exact | certified | false | PSNR dB, CPU | PSNR dB | seconds | same |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    differing = []
    for attack, defense in attacks().items():
        here, there = attacked(attack, "cpu", defense), attacked(attack, on, defense)
        same = outcome(here) == outcome(there)
        differing += [] if same else [f"{attack}: {outcome(here)} on the CPU, {outcome(there)} here ({there.reason})"]
        told = [attack, defense, *outcome(there), *map(number, (here.psnr_median, there.psnr_median, there.runtime_s))]
        print("|", " | ".join(map(str, [*told, "yes" if same else "no"])), "|", flush=True)
    return differing


def outcome(row: Row) -> tuple[str, str, str, str]:
    """What may not depend on the device."""
    return row.status, number(row.exact_rate), number(row.certified_rate), number(row.false_certificates)


def number(value: float | None) -> str:
    """To two decimals, or a dash."""
    return "-" if value is None else f"{value:.2f}"


def main() -> None:
    """Print the table under the device's name."""
    parser = argparse.ArgumentParser(description="Every attack on a GPU against the CPU.")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    given = parser.parse_args()
    try:
        on = device.choose(given.device)
    except UsageError as refusal:
        print(refusal, "for a trial run", file=sys.stderr)
        sys.exit(2)
    print(f"{device.hardware(on)}, torch {torch.__version__}, photos, mlp of five hidden layers, seed 0\n")
    differing = compare(on.type)
    if differing:
        sys.exit("\n".join(["", "not the CPU's result:", *differing]))


if __name__ == "__main__":
    main()
