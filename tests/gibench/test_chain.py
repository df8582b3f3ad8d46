"""Composed defenses: their canonical order, what they do to an update, what they promise together."""

from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from gibench import chain
from gibench.chain import canonical_chain
from gibench.defense import Batch, Defense, DefenseContext, Guarantee, Sampler
from gibench.errors import UsageError
from gibench.observation import LocalTraining, Update
from gibench.registry import create
from gibench.spec import format_chain, parse_chain

CONTEXT = DefenseContext(torch.Generator(), 2, 10)
PROJECT = """
[project]
name = "gibench-composed"
version = "1.0"

[project.entry-points."gibench.defenses"]
local = "composed:Local"
elsewhere = "composed:Local"
masked = "composed:Masked"
kept = "composed:Masked"
both = "composed:Both"
"""
CODE = """
from gibench.defense import Defense

class Local(Defense):
    def update(self, step, parameters, batches, context):
        return super().update(step, parameters, batches, context)

class Masked(Defense):
    def release(self, update, context):
        return update

class Both(Masked):
    def step(self, gradient, parameters, batch, context):
        return gradient(parameters, batch.inputs, batch.labels)
"""


@pytest.fixture(scope="module")
def composed_site(pip_install, tmp_path_factory):
    project = tmp_path_factory.mktemp("composed")
    (project / "pyproject.toml").write_text(PROJECT)
    (project / "composed.py").write_text(CODE)
    return pip_install(project)


@pytest.fixture
def composed(composed_site, monkeypatch):
    """Defenses of another distribution, with every kind of hook."""
    monkeypatch.syspath_prepend(str(composed_site))


class Scaled(Defense):
    """Multiplies the gradient of each step."""

    by: float

    def step(self, gradient, parameters, batch, context):
        found = super().step(gradient, parameters, batch, context)
        return {name: value * self.by for name, value in found.items()}

    def guarantee(self, context):
        return Guarantee(costs={f"scaled_{self.by:g}": True})


class Shifted(Defense):
    """Adds to the gradient of each step."""

    def step(self, gradient, parameters, batch, context):
        return {name: value + 1 for name, value in gradient(parameters, batch.inputs, batch.labels).items()}

    def guarantee(self, context):
        return Guarantee(epsilon=2.0, delta=1e-5, accountant="by hand", sampling="one release", costs={"shift": 1})


class Averaged(Defense):
    """The mean of all clients' steps, as a weight delta."""

    client_count: ClassVar[int] = 2

    def update(self, step, parameters, batches, context):
        steps = [step(parameters, batch) for batch in batches]
        mean = {name: -sum(each[name] for each in steps) / len(steps) for name in parameters}
        return Update(mean, "weight_delta"), LocalTraining(1, 2, 1.0, 0.0, len(batches), 1.0)


class Negated(Defense):
    """Changes the sign of what is sent."""

    def release(self, update, context):
        return Update({name: -value for name, value in update.tensors.items()}, update.kind)


def gradient(parameters, inputs, labels):
    return {name: inputs.sum() + 0 * value for name, value in parameters.items()}


def run(*defenses, sums=(3.0,)):
    batches = [Batch(torch.tensor([value]), torch.zeros(1)) for value in sums]
    return chain.run(defenses, gradient, {"weight": torch.zeros(2)}, batches, CONTEXT)


def canonical(text):
    return format_chain(canonical_chain(parse_chain(text)))


@pytest.mark.parametrize(
    ("written", "acts"),
    [
        ("none", "none"),
        ("none+none", "none"),
        ("none+dp", "dp"),
        ("dp:delta=1e-3", "dp:delta=1e-3"),
        ("masked+local+dp", "dp+local+masked"),
        ("masked+none+dp", "dp+masked"),
        ("masked+kept+dp", "dp+masked+kept"),
        ("kept+masked+dp", "dp+kept+masked"),
        ("masked+both", "both+masked"),
        ("both+dp", "both+dp"),
        ("dp+both", "dp+both"),
    ],
)
def test_a_chain_is_stored_as_steps_then_update_then_release(written, acts, composed):
    assert canonical(written) == acts
    assert canonical(acts) == acts


@pytest.mark.parametrize("text", ["dp+dp", "dp:delta=1e-3+masked+dp:delta=1e-6"])
def test_a_defense_named_twice_is_refused(text, composed):
    with pytest.raises(UsageError, match="names dp twice: keep one of them"):
        canonical(text)


def test_two_defenses_that_make_the_update_are_refused(composed):
    with pytest.raises(UsageError, match="local and elsewhere cannot be composed"):
        canonical("local+dp+elsewhere")


def test_an_unknown_defense_is_refused_with_what_there_is():
    with pytest.raises(UsageError, match=r"unknown defense 'dpp' .*: there are clip, dp, fedavg"):
        canonical("none+dpp")


def test_without_defenses_the_update_is_the_gradient():
    update, training = run()
    assert update == Update({"weight": update.tensors["weight"]}, "gradient")
    assert update.tensors["weight"].tolist() == [3, 3]
    assert training is None


def test_step_defenses_act_in_the_order_they_are_written():
    assert run(Scaled(by=10), Shifted())[0].tensors["weight"].tolist() == [31, 31]
    assert run(Shifted(), Scaled(by=10))[0].tensors["weight"].tolist() == [40, 40]


def test_all_hooks_act_in_their_order():
    update, training = run(Scaled(by=10), Averaged(), Negated(), sums=(1.0, 3.0))
    assert update.kind == "weight_delta"
    assert update.tensors["weight"].tolist() == [20, 20]
    assert training.clients == 2


class Doubled(Defense):
    """The sum of the clients' updates, each made alone, where others take the mean."""

    def average(self, update, parameters, batches, context):
        made = [update(parameters, [batch]) for batch in batches]
        return Update({"weight": sum(sent.tensors["weight"] for sent, _ in made)}, made[0][0].kind), made[0][1]


def test_how_clients_are_averaged_comes_after_their_updates_and_before_the_release():
    update, training = run(Scaled(by=10), Averaged(), Doubled(), Negated(), sums=(1.0, 3.0))
    assert update.tensors["weight"].tolist() == [40, 40]  # -(-10 - 30)
    assert (update.kind, training.clients) == ("weight_delta", 1)


def test_the_context_says_how_many_clients_there_are_and_how_often_an_image_is_used():
    chain_of = [create("defense", spec) for spec in ("dp", "fedavg:epochs=3,clients=2", "pruning")]
    context = chain.context_of(chain_of, torch.Generator(), 20, 360)
    assert (context.clients, context.passes, context.batch_size, context.dataset_size) == (2, 3, 20, 360)
    assert (context.rounds, context.sampler, context.slots) == (None, Sampler(), 20)
    assert chain.context_of([], torch.Generator(), 20, 360).clients == 1


@pytest.mark.parametrize(
    ("spec", "sampler", "slots"),
    [
        ("dp", Sampler("poisson", "images"), 360),
        ("dp:sampling=fixed", Sampler("fixed", "images"), 20),
        ("dp:on=update", Sampler("poisson", "clients"), 20),
        ("dp:on=update,sampling=fixed", Sampler("fixed", "clients"), 20),
        ("dp:noise_multiplier=0", Sampler(), 20),
        ("pruning", Sampler(), 20),
    ],
)
@pytest.mark.parametrize("others", ["", "+fedavg:clients=2+quantize"])
def test_a_training_run_draws_its_batches_as_the_private_defense_wants_them(spec, sampler, slots, others):
    chain_of = [create("defense", each) for each in (spec + others).split("+")]
    context = chain.context_of(chain_of, torch.Generator(), 20, 360, rounds=7)
    assert (context.rounds, context.sampler, context.slots) == (7, sampler, slots)


class Seen(Defense):
    """Notes the public size of every batch it is shown."""

    hooks = frozenset({"step"})
    sizes: ClassVar[list[int | None]] = []

    def step(self, gradient, parameters, batch, context):
        self.sizes.append(batch.size)
        return super().step(gradient, parameters, batch, context)


def test_every_step_defense_is_told_the_public_size_of_a_local_batch():
    inputs, labels = torch.ones(3, 2), torch.zeros(3)
    fedavg = create("defense", "fedavg:epochs=1,local_batch_size=2")
    context = DefenseContext(torch.Generator(), 5, 10)  # two of the five are missing
    Seen.sizes.clear()
    chain.run(
        [Seen(), Scaled(by=2), Seen(), fedavg], gradient, {"weight": torch.zeros(2)}, [Batch(inputs, labels)], context
    )
    assert Seen.sizes == [2, 2, 2, 2, 1, 1]


def test_an_update_of_no_clients_is_zero():
    for made in ([], [create("defense", "fedavg")]):
        update, _ = chain.run(made, gradient, {"weight": torch.zeros(2)}, [], CONTEXT)
        assert update.tensors["weight"].tolist() == [0, 0]
        assert update.kind == ("weight_delta" if made else "gradient")


def test_a_chain_promises_what_its_private_defense_does_and_costs_what_all_do():
    promised = chain.guarantee([Scaled(by=10), Shifted(), Negated()], CONTEXT)
    assert promised == replace(Shifted().guarantee(CONTEXT), costs={"scaled_10": True, "shift": 1})


def test_a_chain_without_a_private_defense_promises_nothing():
    assert chain.guarantee([Scaled(by=10), Negated()], CONTEXT) == Guarantee(costs={"scaled_10": True})
