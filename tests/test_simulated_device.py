"""Attacks and defenses on a device that is not the CPU: nothing mixes, nothing differs, and waits are bounded."""

import pandas as pd
import pytest
import torch

from gibench import batches, chain, client, seeds
from gibench.attack import Context
from gibench.axes import canonical_defense
from gibench.registry import create, entries
from gibench.spec import parse_chain
from gibench.threat_model import KNOWLEDGE, ThreatModel
from tests.benchmarks.gpu import attacks
from tests.simulated_device import NAME, simulated

DEFENSES = {
    "fedavg": "fedavg:epochs=2,local_batch_size=2,momentum=0.5,clients=2",
    "quantize": "quantize:bits=1",
    "noise": "noise:distribution=laplacian",
}
DEFENDED = [DEFENSES.get(entry.name, entry.name) for entry in entries("defense") if entry.distribution == "gibench"]
DEFENDED += ["dp:on=update,clipping=per-layer", "fedavg:local_batch_size=2+dp", "pruning:scope=global,choice=random"]
BATCH = 4


@pytest.fixture(scope="module")
def digits():
    return create("dataset", "digits").load()


def observe(device, images, defense="none", model="mlp:width=80,depth=3"):
    """What a server sees of one batch of digits whose client is on the device, and grants everything."""
    defenses = [create("defense", spec) for spec in parse_chain(canonical_defense(defense))]
    truth = batches.draw(images, BATCH, "iid", chain.client_count(defenses), seeds.generator(1, "data"))
    with seeds.isolated(0, "model"):
        network = create("model", model).build(images.image_shape, images.num_classes).to(device)
    noise = seeds.generator(0, "defense", device)
    return client.observe(network, images, truth, defenses, ThreatModel(KNOWLEDGE), noise, BATCH).observation


def attacked(name, device, images, defense="none"):
    observation = observe(device, images, defense)
    observation.__dict__["foreign"] = name.startswith("wrong-gradient")
    generator = seeds.generator(0, "attack", device)
    return create("attack", name)(observation, Context(generator, torch.device(device)))


def values(tensor):
    """On the CPU, whatever it is on."""
    return getattr(tensor, "inner", tensor).detach()
