"""What clients send of BatchNorm's running statistics is what torch leaves there, and tells the batch's statistics."""

import copy
import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from gibench import batch_norm, client, seeds
from gibench.attack import Context
from gibench.axes import canonical_defense
from gibench.datasets.base import Images, Split
from gibench.errors import AttackError, NotApplicableError
from gibench.registry import create
from gibench.spec import parse_chain
from gibench.threat_model import ThreatModel

INFERRED = ThreatModel.parse("batch_size,local_hyperparameters,bn_statistics=inferred")
EXACT = ThreatModel.parse("bn_statistics")
RUNNING = ("running_mean", "running_var", "num_batches_tracked")


def photographs(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 3, 8, 8), generator=generator) / 255
    split = Split(pixels, torch.arange(count) % 3)
    return Images(split, split, split, split, tuple("abc"), torch.full((3,), 0.4), torch.full((3,), 0.2))


def network(one=None, two=None, trained=0, seed=0):
    """With a layer of either kind, in float64, after so many steps on other images."""
    with seeds.isolated(seed, "model"):
        one, two = one or nn.BatchNorm1d(5), two or nn.BatchNorm2d(4)
        convolution, linear = nn.Conv2d(3, 4, 3, stride=2), nn.Linear(36, 5)
        model = nn.Sequential(convolution, two, nn.ReLU(), nn.Flatten(), linear, one, nn.ReLU(), nn.Linear(5, 3))
        model = model.double().train()
        for _ in range(trained):
            model(torch.randn(6, 3, 8, 8).double())
    return model


def observed(model, images, defense="none", knows=INFERRED, clients=1, **more):
    chain = [create("defense", spec) for spec in parse_chain(canonical_defense(defense))]
    noise, size = seeds.generator(0, "defense"), len(images.private) // clients
    return client.observe(model, images, images.private, chain, knows, noise, size, **more).observation


def by_torch(model, images, epochs=1, clients=1, lr=0.1):
    """What torch's own training leaves in the buffers, minus what was there, averaged over clients."""
    inputs = images.normalize(images.private.images.double())
    total = {}
    for part, labels in zip(inputs.chunk(clients), images.private.labels.chunk(clients), strict=True):
        local = copy.deepcopy(model)
        optimizer = torch.optim.SGD(local.parameters(), lr)
        for _ in range(epochs):
            optimizer.zero_grad()
            functional.cross_entropy(local(part), labels).backward()
            optimizer.step()
        for (name, left), received in zip(local.named_buffers(), model.buffers(), strict=True):
            total[name] = total.get(name, 0) + (left - received) / clients
    return total


def assert_alike(found, due):
    assert set(found) == set(due)
    for name, value in due.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9, check_dtype=False, msg=name)


@pytest.mark.parametrize(
    ("defense", "how"),
    [
        ("none", {}),
        ("fedavg:epochs=1,lr=0.1", {}),
        ("fedavg:epochs=3,lr=0.1", {"epochs": 3}),
        ("fedavg:epochs=2,lr=0.1,clients=3", {"epochs": 2, "clients": 3}),
    ],
)
def test_buffers_are_those_of_torchs_own_training(defense, how):
    model, images = network(trained=2), photographs(12)
    before = copy.deepcopy(model.state_dict())
    sent = observed(model, images, defense, clients=how.get("clients", 1)).update.buffers
    assert_alike(sent, by_torch(model, images, **how))
    counted = [value for name, value in sent.items() if name.endswith("num_batches_tracked")]
    assert [(each.dtype, int(each)) for each in counted] == [(torch.int64, how.get("epochs", 1))] * 2
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_client_whose_weights_do_not_move_is_still_one_client():
    model, images = network(), photographs(6)
    sent = observed(model, images, "fedavg:epochs=4,lr=1e-15").update.buffers
    assert int(sent["1.num_batches_tracked"]) == 4


@pytest.mark.parametrize("momentum", [0.1, 0.013, 1.0, None])
@pytest.mark.parametrize("defense", ["none", "fedavg:epochs=1,lr=0.1,clients=3", "pruning+quantize:bits=4+noise"])
def test_statistics_of_the_batch_are_inferred_in_closed_form(momentum, defense):
    clients = 3 if "clients" in defense else 1
    layers = nn.BatchNorm1d(5, momentum=momentum), nn.BatchNorm2d(4, momentum=momentum)
    model, images = network(*layers, trained=3), photographs(12)
    found, due = (observed(model, images, defense, knows, clients).bn_statistics for knows in (INFERRED, EXACT))
    assert set(due) == {"1.mean", "1.var", "5.mean", "5.var"}
    assert_alike(found, due)


@given(
    momentum=st.one_of(st.none(), st.floats(0.01, 1)),
    trained=st.integers(0, 4),
    steps=st.integers(1, 4),
    size=st.integers(2, 5),
    seed=st.integers(0, 99),
)
@profile(max_examples=15)
def test_steps_that_leave_the_weights_alone_have_the_statistics_of_one(momentum, trained, steps, size, seed):
    layers = nn.BatchNorm1d(5, momentum=momentum), nn.BatchNorm2d(4, momentum=momentum)
    model, images = network(*layers, trained=trained, seed=seed), photographs(size, seed)
    sent = observed(model, images, f"fedavg:epochs={steps},lr=1e-15")
    assert_alike(sent.bn_statistics, observed(model, images, knows=EXACT).bn_statistics)


def test_the_mean_of_local_batches_is_inferred_with_their_size():
    model, images = network(nn.BatchNorm1d(5, momentum=None), nn.BatchNorm2d(4, momentum=None)), photographs(12)
    seen = observed(model, images, "fedavg:epochs=1,lr=1e-15,local_batch_size=4")
    order = torch.randperm(12, generator=seeds.generator(0, "defense"))
    inputs = images.normalize(images.private.images.double())
    assert_alike(seen.bn_statistics, batch_norm.of_batches(model, inputs[order].split(4)))


def test_without_the_batch_size_variances_are_the_unbiased_ones():
    model, images = network(), photographs(4)
    blind = observed(model, images, knows=ThreatModel.parse("bn_statistics=inferred")).bn_statistics
    due = observed(model, images, knows=EXACT).bn_statistics
    torch.testing.assert_close(blind["1.var"], due["1.var"] * 36 / 35)
    torch.testing.assert_close(blind["5.var"], due["5.var"] * 4 / 3)
    torch.testing.assert_close(blind["1.mean"], due["1.mean"])


def test_layers_that_keep_none_send_none_and_tell_none():
    model = network(nn.BatchNorm1d(5, track_running_stats=False), nn.BatchNorm2d(4, momentum=0.0))
    seen = observed(model, photographs(6))
    assert set(seen.update.buffers) == {f"1.{name}" for name in RUNNING}
    assert seen.bn_statistics == {}
    only = ThreatModel.parse("bn_statistics=running")
    assert set(observed(model, photographs(6), knows=only).bn_statistics) == {"1.mean", "1.var"}


def test_in_eval_mode_nothing_moves_and_nothing_is_told():
    seen = observed(network(trained=2), photographs(6), training=False)
    assert not any(bool(value.any()) for value in seen.update.buffers.values())
    assert seen.bn_statistics == {}


@pytest.mark.parametrize("source", ["exact", "running", "none"])
def test_buffers_are_sent_where_statistics_are_inferred_alone(source):
    model = network(trained=2)
    seen = observed(model, photographs(6), knows=ThreatModel.parse(f"bn_statistics={source}"))
    assert seen.update.buffers == {}
    if source == "running":
        assert torch.equal(seen.bn_statistics["5.var"], model[5].running_var)
        assert seen.bn_statistics["5.var"] is not seen.model[5].running_var
    assert (seen.bn_statistics is None) == (source == "none")


def test_a_layer_that_is_called_twice_has_the_mean_of_both():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head = nn.BatchNorm2d(3), nn.Linear(192, 3)

        def forward(self, images):
            return self.head(self.norm(2 * self.norm(images) + 1).flatten(1))

    with seeds.isolated(0, "model"):
        model, images = Twice().double(), photographs(6)
    inputs = images.normalize(images.private.images.double())
    exact = observed(model, images, knows=EXACT).bn_statistics
    torch.testing.assert_close(exact["norm.mean"], (inputs.mean((0, 2, 3)) + 1) / 2, rtol=1e-6, atol=1e-6)
    sent = observed(model, images)
    assert int(sent.update.buffers["norm.num_batches_tracked"]) == 2
    weighted = (0.9 * inputs.mean((0, 2, 3)) + 1) / 1.9  # the later call, on what has mean 1, moved them by more
    torch.testing.assert_close(sent.bn_statistics["norm.mean"], weighted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("defense", ["dp:noise_multiplier=0", "dp:on=update", "dp:on=update+fedavg:clients=2"])
def test_dp_sends_no_buffers(defense):
    model, on_update = network(trained=2), "on=update" in defense
    clients = 2 if "clients" in defense else 1
    small = defense.replace("on=update", "on=update,delta=1e-9")
    seen = observed(model, photographs(6), small, clients=clients, training=on_update)
    assert seen.update.buffers == {}
    assert seen.bn_statistics == {}


def test_buffers_are_sent_in_the_numbers_of_the_update_and_counters_whole():
    seen = observed(network().float(), photographs(6), sent=torch.float16)
    kinds = {name: value.dtype for name, value in seen.update.buffers.items()}
    assert {kinds[f"1.{name}"] for name in RUNNING[:2]} == {torch.float16}
    assert kinds["1.num_batches_tracked"] == torch.int64
    due = observed(network().float(), photographs(6), knows=EXACT).bn_statistics
    for name, value in seen.bn_statistics.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, due[name], rtol=2e-3, atol=2e-3)


def test_buffers_that_do_not_fit_what_is_sent_are_refused_as_the_rest_is():
    model, words = network().float(), r"does not fit float16.*'1\.running_var' become infinite"
    with torch.no_grad():
        model[0].weight.mul_(3e3)
    with pytest.raises(NotApplicableError, match=words):
        observed(model, photographs(6), sent=torch.float16)


@pytest.mark.parametrize(
    ("buffers", "words"),
    [
        ({"9.running_mean": torch.zeros(4)}, "the model has no such buffer"),
        ({"1.running_mean": torch.zeros(3)}, r"the model has \[4\]"),
    ],
)
def test_buffers_of_another_network_are_refused(buffers, words):
    seen = observed(network(), photographs(6))
    wrong = replace(seen, update=replace(seen.update, buffers=buffers))
    run = create("attack", "random")(wrong, Context(torch.Generator(), torch.device("cpu")))
    assert run.status == "skipped"
    assert re.search(words, run.reason)


def test_buffers_that_are_not_finite_are_no_observation():
    seen = observed(network(), photographs(6))
    buffers = {**seen.update.buffers, "1.running_var": torch.full((4,), torch.inf)}
    wrong = replace(seen, update=replace(seen.update, buffers=buffers))
    with pytest.raises(AttackError, match=r"holds NaN or infinity at '1\.running_var'"):
        create("attack", "random")(wrong, Context(torch.Generator(), torch.device("cpu")))
