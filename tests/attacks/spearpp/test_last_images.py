"""The last directions from the subspace that the found ones leave."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gibench.attacks.exact.linear_layer import features
from gibench.attacks.exact.select import complement
from gibench.attacks.spearpp.last_images import last_directions


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(1, 12), st.data())
def test_the_complement_is_an_orthonormal_basis_of_what_is_left(dimension, data):
    found = data.draw(st.integers(0, dimension))
    vectors = torch.randn(dimension, found, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rest = complement(vectors)
    assert rest.shape == (dimension, dimension - found)
    torch.testing.assert_close(rest.T @ rest, torch.eye(dimension - found, dtype=torch.float64))
    torch.testing.assert_close(vectors.T @ rest, torch.zeros(found, dimension - found, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("shape", "missing"), [((20, 200, 300), 1), ((20, 200, 300), 2), ((32, 400, 300), 4)])
def test_the_missing_directions_are_found(plant, distance, shape, missing, seed):
    planted = plant(*shape, seed)
    factors = planted.factors()
    truth = planted.truth(factors).vectors
    generator = torch.Generator().manual_seed(0)
    found = last_directions(factors, features(factors, planted.layer), truth[:, missing:], generator)
    assert distance(truth[:, :missing], found.vectors).max() < 1e-10


@pytest.mark.parametrize("missing", [1, 2])
def test_the_missing_directions_are_found_under_noise(plant, distance, missing):
    planted = plant(20, 200, 300, sigma=1e-6)
    factors = planted.factors()
    truth = planted.truth(factors).vectors
    generator = torch.Generator().manual_seed(0)
    found = last_directions(factors, features(factors, planted.layer), truth[:, missing:], generator)
    assert distance(truth[:, :missing], found.vectors).max() < 1e-3


def test_candidates_depend_on_the_seed_alone(plant):
    planted = plant(20, 200, 300)
    factors = planted.factors()
    known = planted.truth(factors).vectors[:, 3:]
    one, same = (
        last_directions(factors, features(factors, planted.layer), known, torch.Generator().manual_seed(1))
        for _ in range(2)
    )
    assert torch.equal(one.vectors, same.vectors)
