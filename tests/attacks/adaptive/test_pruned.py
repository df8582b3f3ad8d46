"""SPEAR++ on gradients of photographs of which entries are missing."""

from dataclasses import replace

import pytest
import torch

from gibench.attacks.adaptive.pruned import PrunedSpearPP
from gibench.attacks.spearpp import SpearPP
from gibench.buffers import mean_gradient
from gibench.defense import DefenseContext
from gibench.defenses.pruning import Pruning
from gibench.local import local_sgd
from gibench.observation import Update
from gibench.registry import create, resolve

BATCH, WIDTH = 8, 120


@pytest.fixture
def prune(see):
    """Function that gives the observation of a batch with a share of the entries dropped, and its truth."""

    def pruned(seed=0, knows=None, **settings):
        seen = see(BATCH, seed=seed, knows=knows, width=WIDTH)
        context = DefenseContext(torch.Generator().manual_seed(seed), BATCH, 1000)
        update = Pruning(**settings).release(seen.observation.update, context)
        return replace(seen, observation=replace(seen.observation, update=update))

    return pruned


def attack(seen, context, settings=None):
    run = (settings or PrunedSpearPP())(seen.observation, context())
    assert run.status == "ok"
    return run.reconstruction


@pytest.mark.parametrize("settings", [{}, {"scope": "global"}, {"choice": "random"}], ids=str)
def test_half_of_the_entries_are_enough(prune, context, settings):
    seen = prune(sparsity=0.5, **settings)
    found = attack(seen, context)
    assert found.diagnostics["completed_rank"] == BATCH
    assert bool(seen.exact(found.images).all())
    assert bool(found.certified.all())


@pytest.mark.slow
def test_the_batch_size_need_not_be_known(prune, context):
    seen = prune(sparsity=0.5, knows="nothing", seed=1)
    assert bool(seen.exact(attack(seen, context).images).all())


@pytest.mark.slow
def test_spearpp_alone_finds_nothing_there(prune, context):
    seen = prune(sparsity=0.5)
    assert not seen.exact(attack(seen, context, SpearPP(rounds=1, iterations=10, without="next-layer")).images).any()


def test_an_unpruned_gradient_is_left_as_it_is(see, context):
    seen = see(BATCH, width=WIDTH)
    found = attack(seen, context)
    assert bool(seen.exact(found.images).all())
    assert found.diagnostics["pixels_undetermined"] == 0


def test_a_pixel_of_which_too_little_is_kept_costs_the_certificates(prune, context):
    seen = prune(sparsity=0.5)
    update = seen.observation.update
    name, weight = next(iter(update.tensors.items()))
    weight = weight.clone()
    kept = weight[:, 100].abs().topk(BATCH - 1).indices
    weight[:, 100] = torch.zeros_like(weight[:, 100]).scatter(0, kept, weight[kept, 100])
    tensors = dict(update.tensors) | {name: weight}
    seen = replace(seen, observation=replace(seen.observation, update=replace(update, tensors=tensors)))
    found = attack(seen, context)
    assert found.diagnostics["pixels_undetermined"] == 1
    assert not found.certified.any()
    right = (found.images[:, None] - seen.truth.images[None]).flatten(2).abs() < 1 / 510
    assert bool((right.sum(dim=2).amax(dim=1) >= 3 * 32 * 32 - 1).all())  # of each image all but the pixel


def test_hardly_anything_kept_is_no_error_and_no_certificate(prune, context):
    for sparsity in (0.95, 1.0):
        seen = prune(sparsity=sparsity)
        found = attack(seen, context, PrunedSpearPP(rounds=1))
        assert found.certified is None or not found.certified.any()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_half_of_a_weight_delta_is_enough(see, context, seed):
    seen = see(BATCH, seed)
    model, images = seen.observation.model, seen.observation.normalize(seen.truth.images)
    start = {name: value.detach() for name, value in model.named_parameters()}
    gradient = mean_gradient(model)
    end = local_sgd(lambda at, batch: gradient(at, *batch), start, [(images, seen.truth.labels)] * 2, lr=0.03)
    delta = Update({name: end[name] - start[name] for name in start}, "weight_delta")
    noise = DefenseContext(torch.Generator().manual_seed(0), BATCH, 1000)
    update = Pruning(sparsity=0.5).release(delta, noise)
    found = attack(replace(seen, observation=replace(seen.observation, update=update)), context)
    assert found.diagnostics["rank"] == BATCH
    assert bool(seen.exact(found.images).all())


def test_it_is_registered_as_adaptive():
    assert str(resolve("attack", "spearpp-pruned")).startswith("spearpp-pruned")
    assert create("attack", "spearpp-pruned").adaptive
    assert not create("attack", "spearpp").adaptive
