"""Rounding by sampled row sets."""

import torch

from gibench.attacks.exact.low_rank import factorize
from gibench.attacks.spearpp import rounding
from gibench.attacks.spearpp.rounding import sampled_rounding


def test_sampled_rounding_finds_the_true_directions_near_by(plant, distance):
    planted = plant(12, 200, 60)
    factors = planted.factors()
    truth = planted.truth(factors).vectors
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rounded = sampled_rounding(factors, truth + 1e-4 * noise, torch.Generator().manual_seed(1))
    assert len(rounded) == 12
    assert (distance(rounded.vectors, truth) < 1e-6).sum() >= 10  # it need not find them all: that is what it lacks


def test_rounded_directions_are_unit_vectors_that_are_zero_on_as_many_rows_as_determine_them(plant):
    planted = plant(12, 200, 60)
    assert not planted.zeros.all(dim=1).any()  # row sets with a dead neuron are singular
    factors = planted.factors()
    ends = torch.randn(12, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rounded = sampled_rounding(factors, ends, torch.Generator().manual_seed(1))
    torch.testing.assert_close(rounded.vectors.norm(dim=0), torch.ones(20, dtype=torch.float64))
    assert (rounded.zeros.sum(dim=0) >= 11).all()


def test_chunks_change_nothing_but_the_memory_they_take(plant, distance, monkeypatch):
    planted = plant(12, 200, 60)
    factors = planted.factors()
    truth = planted.truth(factors).vectors
    ends = truth + 1e-5 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    monkeypatch.setattr(rounding, "_MEMORY", 1)
    rounded = sampled_rounding(factors, ends, torch.Generator().manual_seed(1))
    assert len(rounded) == 12
    assert (distance(rounded.vectors, truth) < 1e-6).sum() >= 10


def test_end_points_among_duplicated_neurons_round_to_nothing(plant):
    planted = plant(8, 20, 40)
    weight, bias = planted.weight_gradient.clone(), planted.bias_gradient.clone()
    weight[:13], bias[:13] = weight[13], bias[13]  # eight neurons that differ, as many as images
    factors = factorize(weight, bias, torch.Generator().manual_seed(0))
    end = torch.linalg.svd(factors.basis[13:14]).Vh[1:].T  # zero on all of the copies
    rounded = sampled_rounding(factors, end, torch.Generator().manual_seed(1))
    assert rounded.vectors.isfinite().all()
