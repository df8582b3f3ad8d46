"""Adversaries sent through whole attacks: what they must not certify, and beside it what they must."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from gibench import batches, client, seeds
from gibench.attacks.analytic import Analytic
from gibench.attacks.layer_pair import LayerPair
from gibench.chain import client_count
from gibench.datasets.base import Split
from gibench.datasets.hostile import Hostile
from gibench.defenses.none import NoDefense
from gibench.models.mlp import MLP
from gibench.observation import ThreatModel
from gibench.registry import create
from gibench.spec import parse_chain
from tests.attacks.test_certificates import ATTACKS, claims


@pytest.fixture
def near(see):
    """Function that gives a batch of 8 of which two images differ at so many neurons of the first layer."""

    def drawn(differing, seed, same_label):
        seen = see(9, seed)
        images, labels = seen.truth.images[:8].clone(), seen.truth.labels[:8].clone()
        inputs, layer = seen.observation.normalize(seen.truth.images).flatten(1), seen.observation.model[1]
        start, step = (
            layer(inputs[0]).detach().double(),
            (inputs[8] - inputs[0]).double() @ layer.weight.detach().double().T,
        )
        crossings = -start / step  # how far along the step each neuron changes sides
        crossings = torch.cat([crossings.new_zeros(1), crossings[crossings > 0].sort().values])
        share = float(crossings[differing : differing + 2].mean())
        images[1] = images[0] + share * (seen.truth.images[8] - images[0])
        labels[1] = labels[0] if same_label else (labels[0] + 1) % 10
        near = see(8, seed, truth=Split(images, labels))
        patterns = layer(near.observation.normalize(images).flatten(1)) > 0
        assert int((patterns[0] ^ patterns[1]).sum()) == differing
        return near

    return drawn


@pytest.mark.parametrize("attack", ["spearpp", "layer-pair"])
@pytest.mark.parametrize("differing", [5, 20, 50])
def test_near_duplicates_are_told_apart_and_certified(near, context, attack, differing):
    for seed, same_label in ((0, True), (1, False)):
        assert claims(attack, near(differing, seed, same_label), context)[:3] == (8, 8, 0)


@pytest.mark.parametrize("attack", ["spearpp", "layer-pair"])
@pytest.mark.parametrize("differing", [1, 2])
def test_what_differs_at_a_neuron_or_two_is_not_certified_and_the_rest_is(near, context, attack, differing):
    for seed, same_label in ((0, True), (1, False)):
        exact, certified, false, _ = claims(attack, near(differing, seed, same_label), context)
        assert exact >= 7
        assert (certified, false) == (6, 0)


@pytest.mark.parametrize(("part", "seed"), [(0, 25), (13, 22)])
def test_a_point_among_three_near_duplicates_is_not_certified(part, seed, context):
    images = Hostile(part=part).load()
    with seeds.isolated(seed, "model"):
        model = MLP(width=200, depth=5).build(images.image_shape, images.num_classes)
    truth = batches.draw(images, 20, "iid", 1, seeds.generator(seed, "data"))
    noise = seeds.generator(seed, "defense")
    observation = client.observe(model, images, truth, [NoDefense()], ThreatModel(), noise, 20).observation
    largest = []
    for search in range(8):  # each ends at such a point or at the image beside it, as rounding has it
        found = LayerPair()(observation, context(search)).reconstruction
        errors = (found.images[:, None] - truth.images).abs().flatten(2).amax(dim=2).amin(dim=1)
        assert found.diagnostics["solved"] == 20  # such a point satisfies all equations too
        assert int(found.certified.sum()) >= 12
        assert errors[found.certified].max() < 1 / 510
        largest.append(errors.max())
    assert max(largest) >= 1 / 510


@pytest.mark.parametrize("attack", ["spearpp", "layer-pair"])
def test_a_near_duplicate_that_is_not_told_apart_is_not_certified(near, context, attack):
    assert claims(attack, near(2, 3, same_label=True), context)[1:3] == (6, 0)


@pytest.mark.parametrize("attack", ["spearpp", "layer-pair"])
@pytest.mark.parametrize("seed", range(2))
def test_of_two_images_of_one_pattern_no_point_of_their_line_is_certified(near, context, attack, seed):
    _, certified, false, _ = claims(attack, near(0, seed, same_label=False), context)
    assert (certified, false) == (6, 0)


def through(photos, chain, batch_size, seed=0, width=200):
    """The truth of a batch, all clients' images, and what the server sees of it behind a chain of defenses."""
    defenses = [create("defense", spec) for spec in parse_chain(chain)]
    clients = client_count(defenses)
    truth = batches.draw(photos, batch_size, "iid", clients, seeds.generator(seed, "data"))
    with seeds.isolated(seed, "model"):
        model = MLP(width=width, depth=5).build(photos.image_shape, photos.num_classes)
    generator = seeds.generator(seed, "defense")
    return truth, client.observe(model, photos, truth, defenses, ThreatModel(), generator, batch_size).observation


CLIENTS = {  # what becomes of the update of 8 images, and how many of them must be certified
    "fedavg:epochs=1,lr=0.1,clients=4": 2,
    "clip:max_norm=0.01": 8,
    "dp:noise_multiplier=0,max_grad_norm=0.1": 8,
    "dp:noise_multiplier=0,max_grad_norm=0.1,clipping=per-layer": 8,  # a scale of its own for each image
    "dp:noise_multiplier=0,max_grad_norm=0.1,clipping=per-layer+fedavg:epochs=1,lr=0.1,clients=2": 6,
}


@pytest.mark.parametrize("attack", ["spearpp", "layer-pair"])
@pytest.mark.parametrize("chain", CLIENTS)
def test_averaged_and_clipped_clients_certify_what_is_exact_and_nothing_false(see, context, photos, attack, chain):
    size = 8 // client_count([create("defense", spec) for spec in parse_chain(chain)])
    truth, observation = through(photos, chain, size)
    seen = replace(see(8), truth=truth, observation=observation)
    _, certified, false, _ = claims(attack, seen, context)
    assert false == 0
    assert certified >= CLIENTS[chain]


class Moved(nn.Module):
    """The network of `Sequential`, fed images whose pixels have been moved."""

    def __init__(self, network, move):
        super().__init__()
        self.first, self.second, self.third = (network[place] for place in (1, 3, 5))
        self.move = move

    def forward(self, images):
        hidden = torch.relu(self.first(self.move(images).flatten(1)))
        return self.third(torch.relu(self.second(hidden)))


MOVES = {
    "not at all": lambda images: images,
    "channels in another order": lambda images: images[:, [2, 1, 0]],
    "rows for columns": lambda images: images.mT,
    "a column twice and another not at all": lambda images: torch.cat([images[..., :1], images[..., :-1]], dim=-1),
}


@pytest.mark.parametrize("attack", [*ATTACKS, "analytic"])
@pytest.mark.parametrize("move", MOVES)
def test_pixels_are_put_back_where_they_were_and_what_is_lost_gives_no_certificate(see, context, photos, attack, move):
    network = MLP(width=200, depth=2).build(photos.image_shape, photos.num_classes)
    seen = see(1 if attack == "analytic" else 4, model=Moved(network, MOVES[move]))
    run = ATTACKS.get(attack, Analytic())(seen.observation, context())
    if "twice" not in move:
        assert run.reconstruction.certified.all()
        assert seen.exact(run.reconstruction.images).all()
    elif attack not in ("spearpp", "layer-pair"):
        assert run.status == "skipped"
        assert "fed by the" in run.reason
    else:  # what moves them is a part of the network like another, and undone
        assert not run.reconstruction.certified.any()  # fewer equations than unknowns
