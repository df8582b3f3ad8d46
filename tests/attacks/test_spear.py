"""SPEAR by sampling: its draws, its prediction of them, and the attack on real gradients."""

import math

import pytest
import torch

from gibench.attacks.spear import Spear, count_zeros, draw_sets, expected_draws, null_vectors


@pytest.mark.parametrize(("batch_size", "seed"), [(1, 0), (2, 0), (8, 0), (8, 1), (12, 0)])
def test_small_batches_come_back_whole_and_certified(see, context, batch_size, seed):
    seen = see(batch_size, seed)
    run = Spear()(seen.observation, context(seed))
    result = run.reconstruction
    assert (run.status, len(result.images)) == ("ok", batch_size)
    assert bool(seen.exact(result.images).all())
    assert bool(result.certified.all())
    assert result.diagnostics["sparsity_matching"] == 1


@pytest.mark.slow
def test_near_duplicates_bring_mixtures_that_hide_no_image(see, context):
    seen = see(16, 1)  # a mixture within 3e-4 of a true direction comes up first, and hundreds of others
    run = Spear(draws=20_000_000)(seen.observation, context(1))
    assert run.status == "ok"
    assert bool(seen.exact(run.reconstruction.images).all())
    assert bool(run.reconstruction.certified.all())


@pytest.mark.parametrize("noise", [1e-5, 1e-4])
def test_under_noise_no_certificate_is_false(see, context, noise):
    seen = see(8, noise=noise)
    run = Spear(draws=10_000)(seen.observation, context())
    assert run.reconstruction.diagnostics["directions_found"] == 8
    assert not (run.reconstruction.certified & ~seen.exact(run.reconstruction.images)).any()


def test_progress_tells_the_draws_expected_before_the_first(see, context):
    told = []
    run = Spear()(see(8).observation, context(progress=lambda message, share: told.append((message, share))))
    expected = run.reconstruction.diagnostics["expected_draws"]
    assert expected == expected_draws(8, 200)
    assert told[0] == (f"0 row sets drawn of about {expected:.2g}, 0 of 8 directions", 0)
    assert run.reconstruction.diagnostics["draws"] > 0


def test_a_budget_that_is_too_small_is_said_and_what_was_found_is_returned(see, context):
    seen = see(16)
    run = Spear(draws=2000, chunk=1000)(seen.observation, context())
    assert run.status == "budget_exhausted"
    assert "2000 row sets" in run.reason
    assert len(run.reconstruction.images) == 16
    assert not run.reconstruction.certified.any()
    assert run.reconstruction.diagnostics["directions_found"] < 16


def test_the_same_seed_gives_the_same_bits(see, context):
    seen = see(8)
    one, other = (Spear()(seen.observation, context(3)).reconstruction.images for _ in range(2))
    assert torch.equal(one, other)


@pytest.mark.parametrize(("m", "rank"), [(50, 2), (60, 7), (200, 20)])
def test_null_vectors_are_zero_on_a_set_of_rows(m, rank):
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(m, rank, generator=generator, dtype=torch.float64)
    vectors = null_vectors(basis, 500, generator)
    assert vectors.shape == (rank, 500)
    torch.testing.assert_close(vectors.norm(dim=0), torch.ones(500, dtype=torch.float64))
    zeros = ((basis @ vectors).abs() < 1e-9).sum(dim=0)
    assert bool((zeros == rank - 1).all())


def test_each_row_is_drawn_as_often_as_any_other():
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(30, 5, generator=generator, dtype=torch.float64)
    counts = ((basis @ null_vectors(basis, 30_000, generator)).abs() < 1e-9).sum(dim=1)
    expected = 30_000 * 4 / 30
    assert bool(((counts - expected).abs() < 5 * math.sqrt(expected)).all())


@pytest.mark.parametrize(("rows", "size"), [(5, 5), (6, 3), (7, 1), (4, 0)])
def test_every_set_of_rows_is_drawn_as_often_as_any_other(rows, size):
    count = 20_000
    sets = draw_sets(rows, size, count, torch.Generator().manual_seed(0)).sort(dim=0).values
    assert sets.shape == (size, count)
    assert bool((sets.diff(dim=0) > 0).all())  # no row twice
    seen = torch.bincount((sets * rows ** torch.arange(size)[:, None]).sum(dim=0), minlength=1)
    seen = seen[seen > 0]
    assert len(seen) == math.comb(rows, size)
    assert bool(((seen - count / len(seen)).abs() < 5 * math.sqrt(count / len(seen))).all())


def test_in_single_precision_few_null_vectors_are_lost():
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(200, 20, generator=generator)
    lost = count_zeros(basis, null_vectors(basis, 20_000, generator)) < 19
    assert lost.double().mean() < 0.005


def test_a_row_set_that_determines_nothing_gives_no_zeros():
    basis = torch.zeros(10, 4)
    assert not count_zeros(basis, null_vectors(basis, 5, torch.Generator().manual_seed(0))).any()


def test_the_prediction_agrees_with_the_paper_like_setting():
    for batch_size, millions in ((16, 0.19), (18, 0.9), (20, 4.6)):
        assert expected_draws(batch_size, 200) == pytest.approx(millions * 1e6, rel=0.1)


def test_the_prediction_agrees_with_sampling():
    generator = torch.Generator().manual_seed(0)
    rank, m, trials = 4, 40, 300
    needed = []
    for _ in range(trials):
        order = torch.rand(rank, m, generator=generator).argsort(dim=1)
        zero = torch.zeros(rank, m, dtype=torch.bool).scatter_(1, order[:, : m // 2], True)
        sets = torch.rand(2000, m, generator=generator).argsort(dim=1)[:, : rank - 1]
        hits = zero[:, sets].all(dim=2)  # [rank, draws]
        assert bool(hits.any(dim=1).all())
        needed.append(int(hits.int().argmax(dim=1).max()) + 1)
    mean = sum(needed) / trials
    deviation = (sum((value - mean) ** 2 for value in needed) / trials) ** 0.5
    assert abs(mean - expected_draws(rank, m)) < 4 * deviation / trials**0.5


def test_a_prediction_beyond_reach_is_infinite_or_large_but_no_error():
    assert expected_draws(64, 100) == math.inf
    assert expected_draws(300, 8000) > 1e80


def test_row_sets_that_show_nothing_leave_the_batch_to_be_filled_in(see, context):
    run = Spear(draws=100, chunk=100)(see(20).observation, context())
    assert run.status == "budget_exhausted"
    assert run.reconstruction.diagnostics["directions_found"] == 0
    assert len(run.reconstruction.images) == 20
