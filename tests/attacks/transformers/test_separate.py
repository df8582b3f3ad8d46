"""Tokens told apart, against planted ones, and patches grouped, against planted images."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gibench.attacks.transformers.grouping import grouped
from gibench.attacks.transformers.separate import TokenEquations, determined, separate


def planted(rank, neurons, activation, seed=0, width=64):
    """Normalised tokens, and the equations that they satisfy."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tokens = normal(rank, width) + normal(1, width)  # as of photographs, all have something in common
    tokens = F.layer_norm(tokens, (width,))
    weight, bias = 0.3 / width**0.5 * normal(neurons, width), 0.05 * normal(neurons)
    rows = torch.linalg.svd(tokens, full_matrices=False).Vh.T
    ones = torch.linalg.solve(tokens @ rows, torch.ones(rank, dtype=torch.float64))
    active = torch.linalg.qr(activation(tokens @ weight.T + bias).T).Q
    features = weight @ rows + torch.outer(bias, ones)
    return tokens @ rows, TokenEquations(features, active, ones, activation, 0.3)


def length(points):
    return points.norm(dim=1) / 8  # of 64 numbers with variance 1


@pytest.mark.parametrize(("rank", "neurons"), [(1, 20), (5, 60), (16, 200)])
@pytest.mark.parametrize("activation", [F.gelu, F.silu])
@pytest.mark.parametrize("seed", range(2))
def test_every_token_is_found_and_no_other(rank, neurons, activation, seed):
    truth, equations = planted(rank, neurons, activation, seed)
    found = separate(equations, length, torch.Generator().manual_seed(seed), lambda: False)
    assert len(found) == rank
    assert float(torch.cdist(truth, found).amin(dim=1).max()) < 1e-7 * 8


def test_time_that_is_up_is_kept():
    _, equations = planted(16, 200, F.gelu)
    assert len(separate(equations, length, torch.Generator().manual_seed(0), lambda: True)) == 0


def test_only_as_many_tokens_are_determined_as_the_products_allow():
    assert [determined(rank, 768) for rank in (1, 37, 38)] == [True, True, False]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 4), st.integers(1, 4), st.randoms(use_true_random=False))
def test_patches_that_attend_to_one_another_are_one_image(images, count, random):
    tokens = [(image, position) for image in range(images) for position in range(count)]
    random.shuffle(tokens)
    affinity = [
        [random.uniform(0.1, 1) if one[0] == other[0] else random.uniform(0, 0.05) for other in tokens]
        for one in tokens
    ]
    found = grouped([position for _, position in tokens], affinity, count)
    assert sorted(len(each) for each in found) == [count] * images
    assert all(len({tokens[token][0] for token in each}) == 1 for each in found)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 4), max_size=15), st.randoms(use_true_random=False))
def test_no_image_has_two_patches_at_one_position(positions, random):
    affinity = [[random.uniform(0, 1) for _ in positions] for _ in positions]
    found = grouped(positions, affinity, 5)
    assert sorted(token for each in found for token in each) == list(range(len(positions)))
    assert all(len({positions[token] for token in each}) == len(each) for each in found)
    assert [len(each) for each in found] == sorted(map(len, found), reverse=True)
