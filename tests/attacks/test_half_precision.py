"""Updates sent in half precision: every attack takes them, and what is read off them allows for their rounding."""

from dataclasses import replace

import pytest
import torch

from gibench import batches, client, seeds
from gibench.attack import Context
from gibench.attacks.exact.linear_layer import read_gradient
from gibench.experiment import load
from gibench.registry import create
from gibench.spec import parse_chain
from gibench.threat_model import ThreatModel
from tests.benchmarks.gpu import SINGLE, attacks
from tests.test_simulated_device import MODELS

HALVES = [torch.bfloat16, torch.float16]


def observe(dataset, sent, batch_size, model, defense="none", seed=0):
    """What a server sees of one batch, and the images."""
    images = load(dataset)
    truth = batches.draw(images, batch_size, "iid", 1, seeds.generator(seed, "data"))
    with seeds.isolated(seed, "model"):
        network = create("model", model).build(images.image_shape, images.num_classes)
    chain = [create("defense", spec) for spec in parse_chain(defense)]
    noise = seeds.generator(seed, "defense")
    seen = client.observe(network, images, truth, chain, ThreatModel(), noise, batch_size, sent=sent).observation
    return seen, truth.images


def attacked(attack, observation):
    """The result of an attack."""
    observation = replace(observation, foreign=attack.startswith("wrong-gradient"))
    return create("attack", attack)(observation, Context(seeds.generator(0, "attack"), torch.device("cpu")))


@pytest.mark.parametrize("sent", HALVES)
@pytest.mark.parametrize(("attack", "defense"), attacks().items())
def test_every_attack_takes_half_precision(attack, defense, sent):
    name = attack.partition(":")[0]
    model = MODELS.get(name, "mlp:width=60,depth=3")
    observation, _ = observe("digits", sent, 1 if name in SINGLE else 3, model, defense)
    run = attacked(attack, observation)
    assert run.status in ("ok", "budget_exhausted"), run.reason
    assert run.reconstruction.images.dtype == torch.float32


@pytest.mark.parametrize("sent", HALVES)
@pytest.mark.parametrize("batch_size", [8, 14, 20])
@pytest.mark.parametrize("defense", ["none", "fedavg:epochs=1,lr=0.1"])
def test_the_rank_is_the_batch_size(batch_size, sent, defense):
    for seed in range(2):
        observation, _ = observe("photos", sent, batch_size, "mlp:width=200,depth=5", defense, seed)
        assert read_gradient(observation, torch.Generator().manual_seed(0)).factors.rank == batch_size


@pytest.mark.parametrize(("sent", "certified"), [(torch.bfloat16, 2), (torch.float16, 8)])
def test_certificates_allow_for_the_rounding(sent, certified):
    observation, truth = observe("photos", sent, 8, "mlp:width=200,depth=5")
    found = attacked("layer-pair", observation).reconstruction
    distances = (found.images[:, None] - truth).abs().flatten(2).amax(dim=2).amin(dim=1)
    assert int(found.certified.sum()) >= certified
    assert bool((distances[found.certified] < 1 / 510).all())
