"""A client neither trains nor sends what is frozen, whatever the defense."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from gibench import batches, chain, client, seeds, training
from gibench.axes import canonical_defense, expand
from gibench.errors import NotApplicableError
from gibench.experiment import load
from gibench.observation import ThreatModel
from gibench.registry import create
from gibench.spec import parse_chain
from gibench.utility import trial as module
from gibench.utility.job import Trial
from gibench.utility.trial import run_trial

FROZEN = {"1.weight", "1.bias", "3.bias"}
DEFENSES = ["none", "dp", "dp:clipping=per-layer", "fedavg:epochs=2,lr=0.1", "dp:on=update+fedavg:clients=2", "pruning"]
DEFENSES += ["pruning:scope=global", "quantize", "quantize:bits=1", "noise", "clip:max_norm=0.01"]


def build(frozen=FROZEN):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 11), nn.ReLU(), nn.Linear(11, 10))
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return net


def observe(net, defense="none", size=4):
    specs = parse_chain(canonical_defense(defense))
    defenses, images = [create("defense", spec) for spec in specs], load("digits")
    truth = batches.draw(images, size, "iid", chain.client_count(defenses), seeds.generator(0, "data"))
    noise = seeds.generator(0, "defense")
    return client.observe(net, images, truth, defenses, ThreatModel(), noise, size), images, truth


@pytest.mark.parametrize("defense", DEFENSES)
def test_an_update_holds_the_parameters_that_train_and_no_others(defense):
    net = build()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    update = observe(net, defense)[0].observation.update.tensors
    shapes = {name: value.shape for name, value in net.named_parameters() if name not in FROZEN}
    assert {name: value.shape for name, value in update.items()} == shapes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_the_gradient_is_that_of_torch_and_its_norm_is_of_it_alone():
    net = build()
    release, images, truth = observe(net)
    functional.cross_entropy(net(images.normalize(truth.images)), truth.labels).backward()
    sent = {name: value.grad for name, value in net.named_parameters() if value.grad is not None}
    for name, value in release.observation.update.tensors.items():
        torch.testing.assert_close(value, sent.pop(name))
    assert not sent
    flat = torch.cat([value.flatten() for value in release.observation.update.tensors.values()])
    assert release.grad_norm == pytest.approx(float(flat.norm()), rel=1e-5)


def test_federated_averaging_trains_what_torch_trains():
    net, twin = build(), build()
    release, images, truth = observe(net, "fedavg:epochs=3,lr=0.1,momentum=0.9")
    optimizer = torch.optim.SGD([value for value in twin.parameters() if value.requires_grad], lr=0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        functional.cross_entropy(twin(images.normalize(truth.images)), truth.labels).backward()
        optimizer.step()
    start = dict(net.named_parameters())
    for name, after in twin.named_parameters():
        if name in FROZEN:
            assert torch.equal(after, start[name])
        else:
            torch.testing.assert_close(release.observation.update.tensors[name], (after - start[name]).detach())


def test_a_wholly_frozen_model_is_refused_by_client_and_training():
    net = build(dict(build().named_parameters()))
    with pytest.raises(NotApplicableError, match="every parameter of the model is frozen"):
        observe(net)
    with pytest.raises(NotApplicableError, match="every parameter of the model is frozen"):
        training.train(net, load("digits"), 1, torch.Generator())


def test_a_model_without_parameters_is_refused_too():
    with pytest.raises(NotApplicableError, match="every parameter of the model is frozen"):
        observe(nn.Sequential(nn.AvgPool2d(2), nn.Flatten()))


def test_training_changes_all_that_is_not_frozen():
    net, before = build(), build()
    training.train(net, load("digits"), 3, torch.Generator().manual_seed(0))
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, before.get_parameter(name)) == (name in FROZEN)


@pytest.mark.parametrize("defense", ["none", "dp", "fedavg:epochs=1,lr=0.1"])
def test_a_utility_run_trains_all_that_is_not_frozen(defense, monkeypatch):
    nets = []
    monkeypatch.setattr(module, "build", lambda *arguments: nets.append(build()) or nets[-1])
    row = run_trial(trial(defense), lambda message, fraction: None).row
    assert row.status == "ok"
    for name, parameter in nets[0].named_parameters():
        assert torch.equal(parameter, build().get_parameter(name)) == (name in FROZEN)


def test_a_utility_run_of_a_wholly_frozen_model_is_skipped_with_the_reason(monkeypatch):
    monkeypatch.setattr(module, "build", lambda *arguments: build(dict(build().named_parameters())))
    row = run_trial(trial("none"), lambda message, fraction: None).row
    assert row.status == "skipped"
    assert "every parameter of the model is frozen" in row.reason


def trial(defense):
    (made,) = expand(Trial, {"defense": [defense], "batch_size": [8], "rounds": [3], "seed": [0], "device": ["cpu"]})
    return made
