"""SPEAR++ on quantised gradients: the levels are read off, and images moved to where every entry keeps to its own."""

from dataclasses import replace

import pytest
import torch

from gibench.attacks.adaptive.quantized import Cells, QuantizedSpearPP, coefficients, least_powers, levels, whitened
from gibench.attacks.exact.layers import find_input_layer
from gibench.attacks.spearpp import SpearPP
from gibench.defense import DefenseContext
from gibench.defenses.quantize import Quantize
from gibench.registry import create

BATCH = 4


@pytest.fixture
def quantize(see):
    """Function that gives the observation of a batch with every entry rounded, and its truth."""

    def quantized(bits, seed=0, knows=None):
        seen = see(BATCH, seed=seed, knows=knows)
        context = DefenseContext(torch.Generator().manual_seed(seed), BATCH, 1000)
        update = Quantize(bits=bits).release(seen.observation.update, context)
        return replace(seen, observation=replace(seen.observation, update=update))

    return quantized


def never():
    return False


def rounded(planted, count):
    """The planted gradient on so many levels of either sign, as `Cells` takes it."""
    parts = []
    for part in (planted.weight_gradient, planted.bias_gradient):
        interval = part.abs().max() / count
        parts.append((part / interval).round() * interval)
    return Cells(planted.layer, *parts, count)


@pytest.mark.parametrize("bits", range(3, 15))
@pytest.mark.parametrize("scale", [1.0, -3.7])
def test_the_levels_are_read_off(quantize, bits, scale):
    weight = next(iter(quantize(bits).observation.update.tensors.values()))
    assert levels((weight * scale).double()) == 2 ** (bits - 1) - 1


def test_signs_alone_are_no_levels(quantize):
    weight = next(iter(quantize(1).observation.update.tensors.values()))
    assert levels(weight) == 0


def test_entries_that_were_not_rounded_are_on_no_levels(see):
    weight = next(iter(see(BATCH).observation.update.tensors.values()))
    assert levels(weight) == levels(weight[:8, :50]) == levels(torch.zeros(3, 3)) == levels(torch.ones(3, 3)) == 0


def test_coefficients_are_least_squares_on_what_is_free():
    generator = torch.Generator().manual_seed(0)
    inputs, seen = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((3, 20), (5, 20)))
    free = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0], [0, 1, 1]], dtype=torch.bool)
    found = coefficients(inputs, seen, free)
    assert bool((found[~free] == 0).all())
    for row, allowed, line in zip(found, free, seen, strict=True):
        best = torch.linalg.lstsq(inputs[allowed].T, line[:, None]).solution[:, 0]
        torch.testing.assert_close(row[allowed], best, rtol=1e-8, atol=1e-9)


def test_the_second_power_is_least_squares_and_higher_ones_are_minima_too():
    generator = torch.Generator().manual_seed(0)
    matrix, seen = (torch.randn(40, size, generator=generator, dtype=torch.float64) for size in (3, 7))
    start = torch.zeros(3, 7, dtype=torch.float64)
    torch.testing.assert_close(
        least_powers(matrix, seen, start, never, [2]), torch.linalg.lstsq(matrix, seen).solution, rtol=1e-8, atol=1e-9
    )
    found = least_powers(matrix, seen, start, never, [2, 4])
    residual = matrix @ found - seen
    assert (matrix.T @ residual**3).abs().max() < 1e-6 * (matrix.abs().T @ residual.abs() ** 3).max()


def test_high_powers_average_errors_of_rounding_better_than_least_squares():
    generator = torch.Generator().manual_seed(0)
    matrix, truth = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((200, 8), (8, 300)))
    error = 2 * torch.rand(200, 300, generator=generator, dtype=torch.float64) - 1
    start = torch.linalg.lstsq(matrix, matrix @ truth + error).solution
    found = least_powers(matrix, matrix @ truth + error, start, never)
    assert (found - truth).square().mean() < (start - truth).square().mean() / 3


def test_images_explain_the_levels_together_and_not_when_one_is_missing(plant):
    planted = plant()
    cells = rounded(planted, 127)
    assert cells.explained_by(planted.inputs)
    assert not cells.explained_by(planted.inputs[1:])


def test_images_are_moved_towards_the_true_ones(plant):
    planted = plant(neurons=200, size=2000)
    cells = rounded(planted, 127)
    least_squares = (
        torch.linalg.lstsq(planted.columns, cells.weight).solution * planted.weight_gradient.abs().max() / 254
    )
    found = cells.keep_to(least_squares, never)
    error, before = ((each - planted.inputs).square().mean() for each in (found, least_squares))
    assert error < before / 3


def test_what_is_beyond_the_rank_becomes_white_noise_of_the_same_size(quantize, context):
    seen = quantize(8, seed=1).observation
    layer = find_input_layer(seen.model, seen.image_shape)
    before, after = (
        layer.of(dict(each.update.tensors))[0].double() for each in (seen, whitened(seen, layer, context().generator))
    )
    values = [torch.linalg.svdvals(each) for each in (before, after)]
    torch.testing.assert_close(values[0][:BATCH], values[1][:BATCH], rtol=1e-5, atol=0)
    beyond = [each[BATCH:] for each in values]
    torch.testing.assert_close(*(each.square().sum() for each in beyond), rtol=1e-3, atol=0)
    edge = (after.shape[0] ** 0.5 + after.shape[1] ** 0.5) * (beyond[1].square().sum() / after.numel()) ** 0.5
    assert beyond[0][0] > 1.2 * edge > 1.1 * beyond[1][0]  # rounding shows further images, noise none


@pytest.mark.slow
def test_nine_bits_give_images_exactly_that_least_squares_do_not(quantize, context):
    seen, quick = quantize(9, seed=1), {"rounds": 2, "without": "next-layer"}
    plain, found = (
        attack(**quick)(seen.observation, context()).reconstruction for attack in (SpearPP, QuantizedSpearPP)
    )
    assert found.diagnostics["levels"] == 511
    assert int(seen.exact(found.images).sum()) > int(seen.exact(plain.images).sum())
    errors = [(each.images[:, None] - seen.truth.images).square().mean((2, 3, 4)).amin(0) for each in (plain, found)]
    assert errors[1].mean() < errors[0].mean() / 3
    assert not found.certified.any()


def test_what_is_certified_is_not_moved(quantize, context):
    seen = quantize(16)
    found = QuantizedSpearPP()(seen.observation, context()).reconstruction
    assert bool(found.certified.all())
    assert bool(seen.exact(found.images).all())
    assert "levels" not in found.diagnostics


def test_it_is_registered_as_adaptive():
    assert create("attack", "spearpp-quantized").adaptive
