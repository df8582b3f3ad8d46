"""How far exact recovery reaches, and how many times its floor it takes: `python tests/benchmarks/reach.py`.

A line for each attack on each batch: images exact, certified and falsely certified, seconds, memory beyond what model
and update take, and the seconds as a multiple of the floor. The floor is what no attack on the gradients of two layers
can do without: their singular value decompositions, truncated where the ranks show, and one least squares for the
images, all as the attacks compute them. Seconds are of the processor on one thread, so that other work does not count;
on a GPU they are of the clock.

Batches are tiles of photographs: of the private split, and of the training split too where that is not enough, as the
networks are at their initial weights. Sizes are BATCHxWIDTH or BATCHxWIDTHxDEPTH, of five hidden layers if not said:

    python tests/benchmarks/reach.py --device cuda --seeds 0 1 2 --sizes 64x1000 512x8000x3

`--output` adds the lines to a file of rows, as `leaderboard/results/reach.csv` is, which `make results` renders.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from gibench import batches, client, device, seeds
from gibench.attack import Context
from gibench.attacks.exact.layers import InputLayer, find_input_layer, next_linear
from gibench.attacks.exact.linear_layer import solve_inputs
from gibench.attacks.exact.low_rank import factorize
from gibench.attacks.layer_pair import LayerPair
from gibench.attacks.spearpp import SpearPP
from gibench.datasets.base import Images, Split
from gibench.datasets.photos import Photos
from gibench.defenses.none import NoDefense
from gibench.models.mlp import MLP
from gibench.observation import Observation, ThreatModel

ATTACKS = {"layer-pair": LayerPair, "spearpp": SpearPP}
SIZES = ["64x200", "64x1000", "128x2000", "210x4000", "300x8000x3", "512x8000x3"]
AXES = ["batch", "width", "depth", "seed"]
COLUMNS = ["attack", *AXES, "exact", "certified", "false", "seconds", "MiB", "floor", "times floor"]


def observe(images: Images, size: Sequence[int], seed: int, on: torch.device) -> tuple[Observation, Split]:
    """What the server sees of one batch, and the batch."""
    batch_size, width, depth = size
    with seeds.isolated(seed, "model"):
        model = MLP(width=width, depth=depth).build(images.image_shape, images.num_classes).to(on)
    drawn = seeds.generator(seed, "data")
    truth = images.private
    if batch_size <= len(truth):
        truth = batches.draw(images, batch_size, "iid", 1, drawn)
    else:
        pixels, labels = (torch.cat(parts) for parts in zip(_parts(truth), _parts(images.training), strict=True))
        chosen = torch.randperm(len(labels), generator=drawn)[:batch_size]
        truth = Split(pixels[chosen], labels[chosen])
    noise = seeds.generator(seed, "defense", on)
    release = client.observe(model, images, truth, [NoDefense()], ThreatModel(), noise, batch_size, batch_size)
    return release.observation, truth


def _parts(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    return split.images, split.labels


def seconds(call: Callable[[], object], on: torch.device) -> float:
    """Of the processor, or of the clock on a GPU."""
    clock = time.process_time if on.type == "cpu" else time.perf_counter
    device.synchronize(on)
    start = clock()
    call()
    device.synchronize(on)
    return clock() - start


def floor(observation: Observation, on: torch.device) -> float:
    """Seconds of both decompositions and the least squares."""
    layer = find_input_layer(observation.model, observation.image_shape)
    assert isinstance(layer, InputLayer)
    gradient = observation.gradient()
    (weight, bias), second = layer.of(gradient), gradient[f"{next_linear(observation.model, layer)}.weight"]
    generator = torch.Generator(on).manual_seed(0)
    columns = []

    def decompose() -> None:
        for matrix, ones in ((weight, bias), (second, second[:, 0])):
            factors = factorize(matrix, ones, generator)
            assert factors is not None
            columns.append(factors.basis)

    return seconds(decompose, on) + seconds(lambda: solve_inputs(columns[0], weight), on)


def measured(name: str, images: Images, size: Sequence[int], seed: int, on: torch.device) -> list[str]:
    """The line of one attack on one batch."""
    observation, truth = observe(images, size, seed, on)
    least = floor(observation, on)
    context, found = Context(seeds.generator(seed, "attack", on), on), []
    with device.PeakMemory(on) as memory:
        taken = seconds(lambda: found.append(ATTACKS[name]().reconstruct(observation, context)), on)
    recovered, certified = found[0].images.double().cpu().flatten(1), found[0].certified
    assert certified is not None
    wanted = truth.images.double().flatten(1)
    close = torch.stack([(image - wanted).abs().amax(dim=1) < 1 / 510 for image in recovered])
    false = int((certified.cpu() & ~close.any(dim=1)).sum())
    counts = int(close.any(dim=0).sum()), int(certified.sum()), false
    peak = "-" if memory.peak_mb is None else f"{memory.peak_mb:.0f}"
    return [name, *map(str, (*size, seed, *counts)), f"{taken:.1f}", peak, f"{least:.1f}", f"{taken / least:.1f}"]


def parsed(size: str) -> list[int]:
    """The batch, the width and the depth of a size as it is written."""
    numbers = [int(number) for number in size.split("x")]
    return numbers if len(numbers) == 3 else [*numbers, 5]


def lines(
    images: Images,
    sizes: Sequence[str],
    seeds_: Sequence[int],
    on: torch.device,
    attacks: Sequence[str] = tuple(ATTACKS),
) -> Iterator[list[str]]:
    """Print the lines as a table while they come, and give them."""
    print("|", " | ".join(COLUMNS), "|")
    print("|", " --- |" * len(COLUMNS), sep="")
    for size in map(parsed, sizes):
        for seed in seeds_:
            for name in attacks:
                line = measured(name, images, size, seed, on)
                print("|", " | ".join(line), "|", flush=True)
                yield line


def main() -> None:
    """Print the table under the device's name."""
    parser = argparse.ArgumentParser(description="How far exact recovery reaches.")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cpu")
    parser.add_argument("--sizes", nargs="*", default=SIZES, metavar="BATCHxWIDTH[xDEPTH]")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--attacks", nargs="*", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    on = device.choose(given.device)
    if on.type == "cpu":
        torch.set_num_threads(1)
    machine = f"{device.hardware(on)}, torch {torch.__version__}"
    print(f"{machine}, photos, networks at their initial weights\n")
    for line in lines(Photos().load(), given.sizes, given.seeds, on, given.attacks):
        if given.output:
            new = not given.output.exists()
            with given.output.open("a", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([["machine", *COLUMNS]] * new + [[machine, *line]])


if __name__ == "__main__":
    main()
