"""How many times its floor `spearpp` takes: `python tests/benchmarks/floor.py`, or with batch sizes and widths.

The floor is what no attack on the rank of the first layer's gradient can do without: its singular value decomposition,
truncated where the rank shows since the batch size is not told, and one least squares for the images, both as the
attack computes them. Beside it stands the same with a decomposition truncated to a batch size that is told. Seconds are
of the processor, on one thread, so that other work does not count. `photos`, no defense, five hidden layers:

    python tests/benchmarks/floor.py 20x200 64x1000 128x2000
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

import torch

from gibench import batches, client, seeds
from gibench.attack import Context
from gibench.attacks.exact.layers import InputLayer, find_input_layer
from gibench.attacks.exact.linear_layer import solve_inputs
from gibench.attacks.exact.low_rank import factorize
from gibench.attacks.spearpp import SpearPP
from gibench.datasets.photos import Photos
from gibench.defenses.none import NoDefense
from gibench.models.mlp import MLP
from gibench.observation import Observation, ThreatModel

SIZES, SEEDS, REPEATS, SPARE = ["20x200", "64x1000"], 3, 5, 8


def observe(batch_size: int, width: int, seed: int) -> Observation:
    """What the server sees of one batch."""
    images = Photos().load()
    truth = batches.draw(images, batch_size, "iid", 1, seeds.generator(seed, "data"))
    with seeds.isolated(seed, "model"):
        model = MLP(width=width, depth=5).build(images.image_shape, images.num_classes)
    noise = seeds.generator(seed, "defense")
    return client.observe(model, images, truth, [NoDefense()], ThreatModel(), noise, batch_size).observation


def seconds(call: Callable[[], object], repeats: int = REPEATS) -> float:
    """The median of several calls."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return median(times)


def floors(observation: Observation, batch_size: int) -> tuple[float, float]:
    """Seconds of the decomposition and the least squares, the batch size untold and told."""
    layer = find_input_layer(observation.model, observation.image_shape)
    assert isinstance(layer, InputLayer)
    weight, bias = layer.of(observation.gradient())
    untold = seconds(lambda: factorize(weight, bias, torch.Generator().manual_seed(0)))
    told = seconds(lambda: torch.svd_lowrank(weight.double(), q=batch_size + SPARE))
    columns = torch.svd_lowrank(weight.double(), q=batch_size)[0]
    solved = seconds(lambda: solve_inputs(columns, weight))
    return untold + solved, told + solved


def attacked(observation: Observation, context: Context) -> int:
    """How many images the attack certifies."""
    found = SpearPP().reconstruct(observation, context)
    assert found.certified is not None
    return int(found.certified.sum())


def main() -> None:
    """Print a line for each seed of each size."""
    torch.set_num_threads(1)
    certified: list[int] = []
    for size in sys.argv[1:] or SIZES:
        batch_size, width = map(int, size.split("x"))
        for seed in range(SEEDS):
            observation = observe(batch_size, width, seed)
            untold, told = floors(observation, batch_size)
            context = Context(seeds.generator(seed, "attack"), torch.device("cpu"))
            whole = seconds(lambda: certified.append(attacked(observation, context)), repeats=1)  # noqa: B023
            print(
                f"B {batch_size}, width {width}, seed {seed}: {whole:.2f} s, {whole / untold:.1f} times the floor of "
                f"{untold:.3f} s ({whole / told:.1f} times the {told:.3f} s of a batch size that is told), "
                f"{certified[-1]} images certified",
                flush=True,
            )


if __name__ == "__main__":
    main()
