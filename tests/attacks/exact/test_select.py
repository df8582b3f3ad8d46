"""The choice of B directions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gibench.attacks.exact.assemble import assemble
from gibench.attacks.exact.refine import Directions, zero_rows
from gibench.attacks.exact.select import independent, swap


def unit(*shape, seed=0):
    vectors = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return vectors / vectors.norm(dim=0)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(2, 8), st.integers(0, 6), st.randoms(use_true_random=False))
def test_a_combination_of_earlier_ones_is_left_out(dimension, repeated, random):
    basis = unit(dimension, dimension, seed=dimension)
    members = [random.randrange(dimension) for _ in range(repeated)]
    vectors = torch.cat([basis, basis[:, members]], dim=1)
    order = list(range(dimension + repeated))
    random.shuffle(order)
    kept = independent(vectors, torch.tensor(order), dimension)
    assert len(kept) == dimension
    assert torch.linalg.matrix_rank(vectors[:, kept]) == dimension
    assert kept == sorted(kept, key=order.index)


def test_the_first_of_the_order_are_kept_until_there_are_enough():
    assert independent(unit(6, 6), torch.tensor([4, 2, 0, 5]), 3) == [4, 2, 0]


def test_a_mixture_after_its_parts_is_left_out_and_before_them_is_kept():
    vectors = unit(6, 6)
    mixed = vectors[:, :1] + vectors[:, 1:2]
    vectors = torch.cat([vectors, mixed / mixed.norm()], dim=1)
    assert independent(vectors, torch.tensor([0, 1, 6, 2]), 6) == [0, 1, 2]
    assert independent(vectors, torch.tensor([6, 0, 1, 2]), 6) == [6, 0, 2]


@pytest.mark.parametrize(("spread", "kept"), [(1e-4, [0, 1]), (1e-2, [0])])
def test_a_residual_that_noise_explains_is_none(spread, kept):
    vectors = torch.eye(3, dtype=torch.float64)[:, [0, 0]] + 1e-3 * unit(3, 2)
    vectors = vectors / vectors.norm(dim=0)
    assert independent(vectors, torch.arange(2), 3, torch.full((2,), spread)) == kept


def assembler(planted, factors):
    return lambda directions: assemble(planted.gradient(factors), directions)


@pytest.mark.parametrize("partner", [(0, 1), (7, 3)])
def test_a_mixture_is_swapped_for_the_true_direction(plant, partner):
    planted = plant(10, 200, 60)
    factors = planted.factors()
    truth = planted.truth(factors)
    one, other = partner
    mixed = 0.9 * truth.vectors[:, [one]] + 0.4 * truth.vectors[:, [other]]
    mixed = mixed / mixed.norm()
    candidates = truth.join(Directions(mixed, zero_rows(factors, mixed)))
    members = [index for index in range(11) if index != one]
    chosen, batch = swap(candidates, members, [one], assembler(planted, factors))
    assert sorted(chosen) == list(range(10))
    assert batch.matches
    torch.testing.assert_close(batch.inputs, planted.inputs[chosen], rtol=0, atol=1e-8)


def test_a_mixture_never_replaces_a_true_direction(plant):
    planted = plant(10, 200, 60)
    factors = planted.factors()
    truth = planted.truth(factors)
    mixed = unit(10, 5)
    candidates = truth.join(Directions(mixed, zero_rows(factors, mixed)))
    chosen, batch = swap(candidates, list(range(10)), list(range(10, 15)), assembler(planted, factors))
    assert chosen == list(range(10))
    assert batch.matches
