"""Copies of neurons, planted, are counted once."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gibench.attacks.exact.neurons import distinct_neurons

CASES = settings(max_examples=20, deadline=None, derandomize=True)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@CASES
@given(st.integers(1, 40), st.integers(1, 6), st.sampled_from([0.0, 1e-6, 0.1, 0.2]), st.integers(0, 1000))
def test_copies_scaled_negated_and_near_are_one_neuron(count, copies, noise, seed):
    rows = normal(seed, count, 61)
    order = torch.randperm(count * copies, generator=torch.Generator().manual_seed(seed))
    source = (torch.arange(count * copies) % count)[order]
    factors = normal(seed + 1, len(source), 1).sign() * normal(seed + 2, len(source), 1).exp()
    made = factors * (rows[source] + noise * normal(seed + 3, len(source), 61))
    numbers = distinct_neurons(made[:, :-1], made[:, -1])
    assert torch.equal(numbers[:, None] == numbers, source[:, None] == source)
    assert numbers.unique().tolist() == list(range(count))


@CASES
@given(st.integers(1, 300), st.integers(40, 200), st.integers(0, 1000))
def test_neurons_drawn_apart_are_distinct(count, size, seed):
    assert torch.equal(distinct_neurons(normal(seed, count, size), normal(seed + 1, count)), torch.arange(count))


@pytest.mark.parametrize("chunk", [1, 7])
def test_what_is_worked_on_at_once_changes_nothing(monkeypatch, chunk):
    rows = normal(0, 30, 3)
    whole = distinct_neurons(rows, normal(1, 30))
    monkeypatch.setattr("gibench.attacks.exact.chunks._CPU", chunk * 2**17)
    assert torch.equal(distinct_neurons(rows, normal(1, 30)), whole)
    assert 3 < len(whole.unique()) < 30


@pytest.mark.parametrize(("rank", "most"), [(1, 1), (2, 7)])
def test_a_wide_layer_of_low_rank_has_few(rank, most):
    weight = normal(0, 500, rank) @ normal(1, rank, 100)
    assert len(distinct_neurons(weight, torch.zeros(500)).unique()) <= most


def test_neurons_without_weights_are_one():
    weight, bias = normal(0, 9, 20), normal(1, 9)
    weight[3:] = 0
    bias[6:] = 0
    assert distinct_neurons(weight, bias).tolist() == [0, 1, 2, 3, 3, 3, 3, 3, 3]


def test_rows_of_copies_count_once(plant):
    factors = replace(plant(4, 6).factors(), neurons=torch.tensor([0, 1, 0, 1, 2, 2]))
    rows = torch.tensor([[True, False, True, False, False, False], [False] * 6, [False, True, True, True, True, True]])
    assert factors.distinct(rows.T).tolist() == [1, 0, 3]
