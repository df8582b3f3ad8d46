"""Attacks that know the defense put candidates through what the client did."""

import copy
import re
from dataclasses import replace

import pytest
import torch

from gibench.attack import Context
from gibench.attacks.adaptive.gradient_matching import AdaptiveDLG, AdaptiveInvertingGradients
from gibench.attacks.optimization.dlg import DLG
from gibench.attacks.optimization.invertinggradients import InvertingGradients
from gibench.attacks.optimization.matching import PlainMatching
from gibench.attacks.optimization.protocol import Protocol, ProtocolMatching
from gibench.registry import create

WHOLE_BATCHES = [
    "pruning:sparsity=0.6",
    "pruning:sparsity=0.9,scope=global",
    "clip:max_norm=0.01",
    "pruning+clip:max_norm=0.01",
    "clip:max_norm=0.01+pruning",
    "dp:noise_multiplier=0,max_grad_norm=0.1",
    "dp:noise_multiplier=0,max_grad_norm=0.3,clipping=per-layer",
    "fedavg:epochs=3,lr=0.5,momentum=0.9",
    "fedavg:epochs=2,lr=0.5,clients=2",
    "fedavg:epochs=2,lr=0.5,clients=2+dp:on=update,noise_multiplier=0,max_grad_norm=0.2",
    "dp:noise_multiplier=0,max_grad_norm=0.1+fedavg:epochs=2,lr=0.5+clip:max_norm=0.01+pruning:sparsity=0.5",
]


def matching(scene, objective="l2", simulate="steps", watched=()):
    observation = scene.observation
    protocol = Protocol.read(observation, simulate, scaled=True)
    return ProtocolMatching(protocol, observation.model, observation.gradient(), objective, watched)


def value(match, scene, images=None):
    inputs = scene.observation.normalize(scene.images if images is None else images)
    return match(inputs[None], scene.labels[None]).value.item()


def fresh():
    return Context(torch.Generator().manual_seed(0), torch.device("cpu"))


@pytest.mark.parametrize("defense", WHOLE_BATCHES)
def test_the_true_images_give_the_observed_update(see, defense):
    scene = see(defense)
    assert value(matching(scene), scene) < 1e-20
    plain = PlainMatching(scene.observation.model, scene.observation.gradient(), "l2")
    assert value(plain, scene) > 1e-5


def test_local_steps_are_simulated_without_dropout(see):
    scene = see("dp:noise_multiplier=0,max_grad_norm=0.1+fedavg:epochs=2,lr=0.5")
    dropping = copy.deepcopy(scene.observation.model)
    dropping.register_forward_pre_hook(lambda _, arguments: (torch.nn.functional.dropout(arguments[0]),))
    scene = replace(scene, observation=replace(scene.observation, model=dropping))
    assert value(matching(scene), scene) < 1e-20
    name = next(name for name, each in dropping.named_modules() if isinstance(each, torch.nn.Linear))
    images, labels = scene.observation.normalize(scene.images)[None], scene.labels[None]
    entered = [matching(scene, watched=[name])(images, labels).inputs[name] for _ in range(2)]
    assert torch.equal(*entered)


def test_the_true_images_in_the_order_that_the_client_drew_give_its_local_steps(see):
    scene = see("fedavg:epochs=1,lr=1.0,local_batch_size=3,momentum=0.5")
    order = torch.randperm(4, generator=torch.Generator().manual_seed(0))  # as the client draws it
    drawn = replace(scene, images=scene.images[order], labels=scene.labels[order])
    assert value(matching(drawn), drawn) < 1e-20
    weaker = [value(matching(drawn, simulate=strength), drawn) for strength in ("epochs", "none")]
    assert min(weaker) > 1e-4


def test_weaker_simulation_takes_fewer_steps_that_are_longer(see):
    scene = see("fedavg:epochs=2,lr=0.1,local_batch_size=1,momentum=0.5")
    training = scene.observation.local_hyperparameters
    found = {
        strength: Protocol.read(scene.observation, strength, scaled=True).training for strength in ("epochs", "none")
    }
    assert (found["epochs"].epochs, found["epochs"].local_batch_size) == (2, 4)
    assert found["epochs"].lr * (1 + 1.5) == pytest.approx(training.total_lr)
    assert (found["none"].epochs, found["none"].local_batch_size) == (1, 4)
    assert found["none"].lr == pytest.approx(training.total_lr)


def test_no_simulation_reads_the_delta_as_a_gradient(see):
    scene = see("fedavg:epochs=4,lr=0.5,local_batch_size=2")
    plain = PlainMatching(scene.observation.model, scene.observation.gradient(), "l2")
    moved = scene.images.flip(3)
    assert value(matching(scene, simulate="none"), scene, moved) == pytest.approx(value(plain, scene, moved), rel=1e-9)


@pytest.mark.parametrize("objective", ["l2", "cosine"])
@pytest.mark.parametrize(
    "defense",
    [
        "fedavg:epochs=2,lr=0.5,local_batch_size=3,momentum=0.5",
        "dp:noise_multiplier=0,max_grad_norm=0.3+fedavg:epochs=2,lr=0.5,clients=2+clip:max_norm=0.01+pruning",
        "fedavg:epochs=2,lr=0.5,clients=2+dp:on=update,noise_multiplier=0,max_grad_norm=0.1,clipping=per-layer",
    ],
)
def test_slopes_through_the_protocol_agree_with_finite_differences(see, defense, objective):
    scene = see(defense)
    match, labels = matching(scene, objective), scene.labels.expand(2, -1)
    generator = torch.Generator().manual_seed(1)
    images, *ways = (torch.randn(2, 4, 3, 8, 8, generator=generator, dtype=torch.float64) for _ in range(4))
    images.requires_grad_()
    found = match(images, labels)
    (slope,) = torch.autograd.grad(found.outputs, [images], found.weights)
    for way in ways:
        step = 1e-5 * way
        rise = (match(images + step, labels).value - match(images - step, labels).value) / 2e-5
        torch.testing.assert_close((slope * way).sum((1, 2, 3, 4)), rise.detach(), rtol=1e-5, atol=1e-9)


def test_watched_layers_see_the_candidates_before_any_local_step(see):
    scene = see("fedavg:epochs=2,lr=0.5")
    images = torch.randn(2, 4, 3, 8, 8, dtype=torch.float64)
    seen = matching(scene, watched=["3"])(images, scene.labels.expand(2, -1)).inputs["3"]
    assert torch.allclose(seen, torch.stack([scene.observation.model[:3](batch) for batch in images]))


@pytest.mark.parametrize(
    ("pair", "defense"),
    [
        ((DLG, AdaptiveDLG), "none"),
        ((DLG, AdaptiveDLG), "noise:std=1e-3"),
        ((InvertingGradients, AdaptiveInvertingGradients), "quantize"),
        ((InvertingGradients, AdaptiveInvertingGradients), "clip:max_norm=0.01"),
        ((InvertingGradients, AdaptiveInvertingGradients), "fedavg:epochs=1"),
    ],
)
def test_where_nothing_can_be_simulated_it_is_the_attack_that_is_not_adaptive(see, pair, defense):
    scene = see(defense)
    plain, adaptive = (attack(max_iterations=3)(scene.observation, fresh()).reconstruction for attack in pair)
    assert torch.equal(plain.images, adaptive.images)


@pytest.mark.parametrize("defense", ["fedavg:epochs=3", "fedavg:epochs=1,clients=2"])
def test_without_simulation_local_training_changes_nothing(see, defense):
    scene = see(defense)
    plain = InvertingGradients(max_iterations=3)(scene.observation, fresh()).reconstruction
    adaptive = AdaptiveInvertingGradients(max_iterations=3, simulate="none")(scene.observation, fresh()).reconstruction
    assert torch.equal(plain.images, adaptive.images)


def psnr(run, scene):
    return -10 * torch.log10((run.reconstruction.images - scene.images).square().mean()).item()


@pytest.mark.parametrize(
    "defense",
    ["pruning:sparsity=0.5", "clip:max_norm=0.01", "fedavg:epochs=5,lr=1.0", "dp:noise_multiplier=0,max_grad_norm=0.3"],
)
def test_it_finds_what_the_attack_that_is_not_adaptive_does_not(see, defense):
    scene = see(defense)
    plain, adaptive = (attack(max_iterations=5)(scene.observation, fresh()) for attack in (DLG, AdaptiveDLG))
    assert psnr(adaptive, scene) > psnr(plain, scene) + 3


def test_noise_on_top_of_pruning_is_skipped_with_the_reason(see):
    run = AdaptiveDLG()(see("pruning+noise").observation, fresh())
    assert run.status == "skipped"
    assert "which entries were kept" in run.reason
    assert AdaptiveDLG(max_iterations=1)(see("noise+pruning").observation, fresh()).status == "ok"


def test_more_local_steps_than_there_is_memory_for_are_skipped_before_anything_runs(see, monkeypatch):
    observation = see("fedavg:epochs=500,lr=1e-4,local_batch_size=2").observation  # 1000 steps
    weights = sum(parameter.numel() * 8 for parameter in observation.model.parameters()) / 2**20
    monkeypatch.setattr("gibench.device.memory_mb", lambda _: 2000 * weights)
    run = AdaptiveDLG()(observation, fresh())
    assert run.status == "skipped"
    assert re.search("simulating 1000 local steps takes about .* use simulate=epochs or none", run.reason)
    assert AdaptiveDLG(simulate="epochs").supports(observation) is None  # 500 steps
    assert AdaptiveDLG(simulate="epochs", restarts=2).supports(observation) is not None


def test_it_needs_to_know_the_local_hyperparameters(see):
    run = AdaptiveInvertingGradients()(see("pruning", knows=("batch_size", "labels")).observation, fresh())
    assert run.status == "skipped"
    assert "local_hyperparameters" in run.reason


@pytest.mark.parametrize("name", ["dlg", "invertinggradients"])
def test_it_has_every_other_setting_of_the_attack_that_is_not_adaptive(name):
    adaptive = create("attack", f"{name}-adaptive")
    assert adaptive.adaptive
    plain = create("attack", name).settings() | {"label_strategy": "counts"}
    assert adaptive.settings() == plain | {"simulate": "steps"}
