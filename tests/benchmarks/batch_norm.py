"""What BatchNorm's statistics and the group are worth to `gradinversion`: `python tests/benchmarks/batch_norm.py`.

For each source of statistics, with group consistency and without: the PSNR of five batches of digits (the median image
of each, their mean and range) and the lowest objective, from as many restarts. The network is small and half trained,
so that its running statistics are of something. `--split tuning --set total_variation=0.1` tries another setting where
defaults are chosen. Half an hour on one core.
"""

from __future__ import annotations

import argparse
import time
from statistics import mean

import torch
from torch import nn

from gibench import batches, client, seeds, training
from gibench.attack import Context
from gibench.datasets.base import Images
from gibench.datasets.digits import Digits
from gibench.defenses.none import NoDefense
from gibench.registry import create
from gibench.scoring import score
from gibench.threat_model import ThreatModel

SOURCES, BATCH_SIZE, STEPS = ("exact", "inferred", "running", "none"), 4, 30


def network(images: Images, seed: int) -> nn.Module:
    """Two convolutions with BatchNorm, and a linear layer."""
    with seeds.isolated(seed, "model"):
        first = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        second = nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU()
        model = nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(256, images.num_classes))
        training.train(model, images, STEPS, torch.default_generator)
    return model


def attacked(images: Images, split: str, spec: str, source: str, seed: int) -> tuple[float, float]:
    """The median PSNR of a batch, and the attack's own objective."""
    truth = batches.draw(images, BATCH_SIZE, "unique", 1, seeds.generator(seed, "data"), split)
    knows = ThreatModel.parse(f"batch_size,local_hyperparameters,prior,bn_statistics={source}")
    noise = seeds.generator(seed, "defense")
    seen = client.observe(network(images, seed), images, truth, [NoDefense()], knows, noise, BATCH_SIZE).observation
    run = create("attack", spec)(seen, Context(torch.Generator().manual_seed(seed), torch.device("cpu")))
    found = run.reconstruction
    summary = score(truth.images, found, truth.labels, getattr(images, split).images).summary
    return summary["psnr_median"], float(found.diagnostics.get("objective", 0.0))


def main() -> None:
    """Print a line for each source and weight of the group."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", default="private")
    parser.add_argument("--set", default="", help="other settings, key=value,...")
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--sources", default=",".join(SOURCES))
    parser.add_argument("--groups", default="default,0")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    images = Digits().load()
    for source in given.sources.split(","):
        for group in given.groups.split(","):
            settings = [f"max_iterations={given.iterations}", given.set, "" if group == "default" else f"group={group}"]
            spec = f"gradinversion:{','.join(filter(None, settings))}"
            start = time.perf_counter()
            psnr, objective = zip(
                *(attacked(images, given.split, spec, source, seed) for seed in range(given.seeds)), strict=True
            )
            seconds = (time.perf_counter() - start) / given.seeds
            print(
                f"{source:8} group {group:7} PSNR {mean(psnr):5.2f} [{min(psnr):5.2f}, {max(psnr):5.2f}] dB  "
                f"objective {mean(objective):.4f}  {seconds:5.1f} s  {spec}",
                flush=True,
            )


if __name__ == "__main__":
    main()
