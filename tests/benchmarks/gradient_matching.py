"""Iterations per second of the gradient-matching attacks: python tests/benchmarks/gradient_matching.py [--seconds 5].

One JSON object a line: model, batch size, attack, threads, iterations per second of a whole attack, its start aside.
Two budgets are run and subtracted, three times; the best counts, since other work on the machine only slows it down.
"""

import argparse
import json
import time

import torch

from gibench import batches, client, seeds
from gibench.attack import Context
from gibench.defenses.none import NoDefense
from gibench.experiment import load
from gibench.observation import ThreatModel
from gibench.registry import create

MODELS = ["mlp:width=200,depth=5", "lenet", "convnet"]
ATTACKS = ["invertinggradients", "modern", "dlg"]
INNER = 20  # evaluations in one step of L-BFGS, each an iteration here


def observe(model, batch_size):
    """A client's undefended gradient, with everything granted that the attacks use."""
    images = load("photos")
    with seeds.isolated(0, "model"):
        network = create("model", model).build(images.image_shape, images.num_classes)
    truth = batches.draw(images, batch_size, "iid", 1, seeds.generator(0, "data"))
    knows = ThreatModel.parse("batch_size,labels")
    generator = seeds.generator(0, "defense")
    return client.observe(network, images, truth, [NoDefense()], knows, generator, batch_size).observation


def seconds(attack, observation, iterations):
    """What so many iterations take."""
    plugin = create("attack", f"{attack}:max_iterations={iterations}")
    start = time.perf_counter()
    plugin.reconstruct(observation, Context(seeds.generator(0, "attack"), torch.device("cpu")))
    return time.perf_counter() - start


def rate(attack, observation, budget):
    """Iterations per second, measured over about so many seconds."""
    steps = 1 if attack == "dlg" else INNER  # of about one cost
    seconds(attack, observation, steps)
    more = max(2 * steps, int(budget / 3 * steps / seconds(attack, observation, steps)))
    times = [seconds(attack, observation, more) - seconds(attack, observation, steps) for _ in range(3)]
    return (more - steps) * (INNER if attack == "dlg" else 1) / min(times)


def main():
    """Print one line for every model, batch size and attack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each line, about")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 8])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for model in MODELS:
        for batch_size in options.batch_sizes:
            observation = observe(model, batch_size)
            for attack in ATTACKS:
                found = round(rate(attack, observation, options.seconds), 1)
                line = {"model": model, "batch_size": batch_size, "attack": attack, "threads": options.threads}
                print(json.dumps({**line, "iterations_per_second": found}), flush=True)


if __name__ == "__main__":
    main()
