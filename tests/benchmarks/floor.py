"""How many times its floor `spearpp` takes: `python tests/benchmarks/floor.py`, or with batch sizes and widths.

The floor is what no attack on the rank of the first layer's gradient can do without: its singular value decomposition,
truncated to the batch size, and one least squares for the images. Both are timed on the same gradient, in float64, as
the attack computes them; the attack is timed whole, by the harness. One thread, undefended `photos`, five
hidden layers:

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
from gibench.attacks.linear_layer import InputLayer, find_input_layer, solve_inputs
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


def seconds(call: Callable[[], object]) -> float:
    """The median of several calls."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


def floor(observation: Observation, batch_size: int) -> float:
    """Seconds of the truncated decomposition and of the least squares."""
    layer = find_input_layer(observation.model)
    assert isinstance(layer, InputLayer)
    weight = layer.of(observation.gradient())[0].double()
    decomposed = seconds(lambda: torch.svd_lowrank(weight, q=batch_size + SPARE))
    columns = torch.svd_lowrank(weight, q=batch_size)[0]
    return decomposed + seconds(lambda: solve_inputs(columns, weight))


def main() -> None:
    """Print a line for each seed of each size."""
    torch.set_num_threads(1)
    for size in sys.argv[1:] or SIZES:
        batch_size, width = map(int, size.split("x"))
        for seed in range(SEEDS):
            observation = observe(batch_size, width, seed)
            least = floor(observation, batch_size)
            run = SpearPP()(observation, Context(seeds.generator(seed, "attack"), torch.device("cpu")))
            assert run.reconstruction is not None
            assert run.runtime_s is not None
            certified = int(run.reconstruction.certified.sum())
            print(
                f"B {batch_size}, width {width}, seed {seed}: {run.runtime_s:.2f} s, {run.runtime_s / least:.1f} times "
                f"the floor of {least:.3f} s, {certified} images certified",
                flush=True,
            )


if __name__ == "__main__":
    main()
