"""SPEAR++ on what several local steps leave of the first layer's gradient."""

from dataclasses import replace

import pytest
import torch

from gibench import batches, client, seeds
from gibench.attacks.adaptive.local_steps import LocalStepsSpearPP
from gibench.attacks.exact.linear_layer import read_gradient
from gibench.attacks.spearpp import SpearPP
from gibench.chain import client_count
from gibench.models.mlp import MLP
from gibench.observation import ThreatModel
from gibench.registry import create
from gibench.spec import parse_chain

BATCH = 8


@pytest.fixture
def train(see, photos):
    """Function that gives the observation of clients that train, and its truth."""

    def trained(chain, seed=0):
        defenses = [create("defense", spec) for spec in parse_chain(chain)]
        truth = batches.draw(photos, BATCH, "iid", client_count(defenses), seeds.generator(seed, "data"))
        with seeds.isolated(seed, "model"):
            model = MLP(width=200, depth=5).build(photos.image_shape, photos.num_classes)
        generator = seeds.generator(seed, "defense")
        release = client.observe(model, photos, truth, defenses, ThreatModel(), generator, BATCH)
        return replace(see(BATCH, seed=seed), truth=truth, observation=release.observation)

    return trained


@pytest.mark.parametrize("chain", ["fedavg:epochs=5,lr=0.1,local_batch_size=2", "fedavg:epochs=1,lr=0.1,clients=2"])
def test_the_rank_is_the_number_of_images_whatever_the_steps(train, chain):
    seen = train(chain)
    gradient = read_gradient(seen.observation, torch.Generator().manual_seed(0))
    assert gradient.factors.rank == len(seen.truth)
    assert gradient.factors.gap > 100


@pytest.mark.parametrize("chain", ["fedavg:epochs=1,lr=1e-3", "fedavg:epochs=1,lr=0.1,clients=2"])
def test_spearpp_itself_sees_through_one_epoch(train, context, chain):
    seen = train(chain)
    assert bool(seen.exact(SpearPP()(seen.observation, context()).reconstruction.images).all())


def test_supports_that_are_no_patterns_do_not_hide_images(train, context):
    seen = train("fedavg:epochs=20,lr=0.25", seed=24)
    found = LocalStepsSpearPP()(seen.observation, context()).reconstruction
    assert bool(seen.exact(found.images).all())
    assert not found.certified.any()


@pytest.mark.parametrize(
    ("chain", "images"), [("fedavg:epochs=1,lr=0.1,clients=8", 64), ("fedavg:epochs=3,lr=0.05", 8)]
)
def test_the_next_layer_tells_the_images_of_many_clients_without_a_search_for_sparse_columns(
    train, context, monkeypatch, chain, images
):
    monkeypatch.setattr("gibench.attacks.adaptive.local_steps._either", None)
    seen = train(chain)
    found = LocalStepsSpearPP()(seen.observation, context()).reconstruction
    assert found.diagnostics["rounds"] == 0
    assert int(seen.exact(found.images).sum()) == images
    assert found.certified.sum() >= images // 2
    assert not (found.certified & ~seen.exact(found.images)).any()


def test_a_search_that_finds_nothing_gives_up(train, context, monkeypatch):
    monkeypatch.setattr("gibench.attacks.adaptive.local_steps._pure", lambda recovery, found, known: known)
    found = LocalStepsSpearPP(without="next-layer")(train("fedavg:epochs=10,lr=0.25").observation, context())
    assert found.reconstruction.diagnostics["rounds"] < 30


@pytest.mark.slow
@pytest.mark.parametrize("seed", [24, 27])  # about every other seed hides them so
def test_where_they_hide_images_from_spearpp(train, context, seed):
    seen = train("fedavg:epochs=20,lr=0.25", seed)
    found = LocalStepsSpearPP()(seen.observation, context()).reconstruction
    assert bool(seen.exact(found.images).all())
    assert not found.certified.any()
    assert found.diagnostics["sparsity_matching"] < 0.9  # the patterns of one step would not have told them
    plain = SpearPP(rounds=2, without="next-layer")(seen.observation, context()).reconstruction
    assert not seen.exact(plain.images).all()


def test_missing_directions_are_said_and_certify_nothing(train, context):
    seen = train("fedavg:epochs=5,lr=0.1,local_batch_size=2,clients=2")
    found = LocalStepsSpearPP(rounds=1)(seen.observation, context()).reconstruction
    assert "not found" in found.diagnostics["finding"]
    assert len(found.images) == 2 * BATCH
    assert not found.certified.any()


def test_the_published_recipe_stays_what_it_is(train, context):
    seen = train("fedavg:epochs=1,lr=1e-3")
    runs = [attack(preset="paper", rounds=1)(seen.observation, context()) for attack in (SpearPP, LocalStepsSpearPP)]
    assert torch.equal(*[run.reconstruction.images for run in runs])


def test_it_is_registered_as_adaptive():
    assert create("attack", "spearpp-local-steps").adaptive
