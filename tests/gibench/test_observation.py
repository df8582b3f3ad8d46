"""What the server sees: threat models, gradient sign and scale, pixels and inputs."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gibench.errors import UsageError
from gibench.observation import (
    ImagePrior,
    LocalTraining,
    Observation,
    SurrogateData,
    Update,
)
from gibench.threat_model import DEFAULT_KNOWLEDGE, KNOWLEDGE, ThreatModel


@pytest.fixture
def observation():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    update = Update({name: torch.full_like(value, 2.0) for name, value in model.named_parameters()})
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 1.0, 2.0])
    return Observation(model, update, (3, 2, 2), mean, std, 2, ThreatModel())


def as_delta(observation, local=None):
    return replace(observation, update=replace(observation.update, kind="weight_delta"), local_hyperparameters=local)


@given(st.sets(st.sampled_from(KNOWLEDGE)), st.randoms())
def test_a_threat_model_is_read_back_from_its_text_whatever_the_order(facts, rng):
    listed = sorted(facts)
    rng.shuffle(listed)
    parsed = ThreatModel.parse(" , ".join(listed) or "nothing")
    assert parsed.knows == facts
    assert ThreatModel.parse(str(parsed)) == parsed
    assert str(parsed) == (",".join(fact for fact in KNOWLEDGE if fact in facts) or "nothing")


@pytest.mark.parametrize(
    ("text", "source", "canonical"),
    [
        ("bn_statistics", "exact", "bn_statistics"),
        ("prior,bn_statistics=exact", "exact", "bn_statistics,prior"),
        ("bn_statistics=inferred, labels", "inferred", "labels,bn_statistics=inferred"),
        ("bn_statistics=running", "running", "bn_statistics=running"),
        ("labels,bn_statistics=none", "none", "labels"),
        ("bn_statistics=none", "none", "nothing"),
        ("nothing", "none", "nothing"),
    ],
)
def test_where_batchnorms_statistics_are_from_is_part_of_the_threat_model(text, source, canonical):
    parsed = ThreatModel.parse(text)
    assert parsed.bn_statistics == source
    assert ("bn_statistics" in parsed.knows) == (source != "none")
    assert str(parsed) == canonical
    assert ThreatModel.parse(canonical) == parsed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bn_statistics=guessed", "one of exact, inferred, running and none, not 'guessed'"),
        ("bn_statistics=", "one of exact, inferred, running and none, not ''"),
        ("bn_statistics,bn_statistics=running", "told to be exact and running: keep one of them"),
        ("bn_statistics=none,bn_statistics=inferred", "told to be inferred and none: keep one of them"),
        ("labels=exact", "unknown knowledge 'labels=exact'"),
    ],
)
def test_statistics_that_there_are_not_or_of_two_kinds_are_refused(text, words):
    with pytest.raises(UsageError, match=words):
        ThreatModel.parse(text)


def test_the_default_threat_model_is_that_of_the_design():
    assert str(ThreatModel()) == "batch_size,local_hyperparameters,prior"
    assert ThreatModel().knows == set(DEFAULT_KNOWLEDGE)


@pytest.mark.parametrize("text", ["truth", "", "labels,", "labels,nothing", "Labels"])
def test_unknown_knowledge_is_refused_with_what_there_is(text):
    with pytest.raises(UsageError, match=r"unknown knowledge '.*': list some of batch_size, .*, or 'nothing'"):
        ThreatModel.parse(text)


def test_a_gradient_is_given_as_it_is(observation):
    assert observation.scale_known
    assert all(torch.equal(value, torch.full_like(value, 2.0)) for value in observation.gradient().values())


def test_a_weight_delta_is_given_in_gradient_sign(observation):
    delta = as_delta(observation)
    assert not delta.scale_known
    assert all(torch.equal(value, torch.full_like(value, -2.0)) for value in delta.gradient().values())


def test_known_local_training_gives_a_weight_delta_the_scale_of_the_gradient(observation):
    local = LocalTraining(epochs=2, local_batch_size=5, lr=0.1, momentum=0.0, clients=1, total_lr=0.4)
    delta = as_delta(observation, local)
    assert delta.scale_known
    for value in delta.gradient().values():
        torch.testing.assert_close(value, torch.full_like(value, -5.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pixels_and_inputs_turn_into_each_other(observation, dtype):
    pixels = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=dtype)
    inputs = observation.normalize(pixels)
    assert inputs.dtype == dtype
    torch.testing.assert_close(inputs[:, 1], pixels[:, 1] - torch.tensor(0.2).to(dtype))
    torch.testing.assert_close(observation.denormalize(inputs), pixels)


def test_an_observation_cannot_be_changed(observation):
    with pytest.raises(FrozenInstanceError):
        observation.labels = torch.zeros(3)


def test_moving_an_observation_moves_every_tensor_in_it(observation):
    full = replace(
        observation,
        labels=torch.zeros(2),
        update=replace(observation.update, buffers={"1.running_mean": torch.zeros(2)}),
        bn_statistics={"1.mean": torch.zeros(2)},
        prior=ImagePrior(torch.zeros(3, 2, 2), torch.ones(3, 2, 2)),
        surrogate_data=SurrogateData(torch.zeros(5, 3, 2, 2), torch.zeros(5)),
    )
    moved = full.to(torch.device("meta"))
    tensors = [
        *moved.model.parameters(),
        *moved.update.tensors.values(),
        *moved.update.buffers.values(),
        *moved.bn_statistics.values(),
        *vars(moved.prior).values(),
        *vars(moved.surrogate_data).values(),
        *(moved.mean, moved.std, moved.labels),
    ]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_moving_leaves_what_was_withheld_withheld(observation):
    moved = observation.to(torch.device("cpu"))
    assert [name for name in KNOWLEDGE if getattr(moved, name) is not None] == []
