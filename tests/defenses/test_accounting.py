"""Epsilon of one release and of whole runs, against other accountants."""

import math
import time

import dp_accounting
import mpmath
import pytest
import torch
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant, RDPAccountant

from gibench.defense import DefenseContext
from gibench.defenses.accounting import PLD_FROM, release_epsilon, run_epsilon
from gibench.registry import create

deltas = st.floats(-12, -0.5).map(lambda power: 10**power)


def exact_delta(noise_multiplier, epsilon):
    """Delta of the Gaussian mechanism (Balle and Wang 2018, theorem 8) in 60 digits."""
    with mpmath.workdps(60):
        mu, epsilon = 1 / mpmath.mpf(noise_multiplier), mpmath.mpf(epsilon)
        return mpmath.ncdf(mu / 2 - epsilon / mu) - mpmath.exp(epsilon) * mpmath.ncdf(-mu / 2 - epsilon / mu)


def guarantee(settings="", batch_size=20, dataset_size=360):
    return create("defense", f"dp{settings}").guarantee(DefenseContext(torch.Generator(), batch_size, dataset_size))


@settings(max_examples=60)
@given(st.floats(-4, 3).map(lambda power: 10**power), deltas)
def test_epsilon_of_a_release_gives_back_its_delta_in_high_precision(noise_multiplier, delta):
    epsilon = release_epsilon(noise_multiplier, delta)
    if epsilon == 0:
        assert exact_delta(noise_multiplier, 0) <= delta * (1 + 1e-9)
    else:
        # An error of one unit in the last place of epsilon moves log(delta) by up to this much.
        slack = 1e-9 + 20 * epsilon * 2.3e-16 * (noise_multiplier * 10 + 1)
        assert float(mpmath.log(exact_delta(noise_multiplier, epsilon) / delta)) == pytest.approx(0, abs=slack)


@settings(max_examples=40)
@given(st.floats(0.05, 100), deltas)
def test_epsilon_of_a_release_is_that_of_dp_accounting(noise_multiplier, delta):
    expected = dp_accounting.get_epsilon_gaussian(noise_multiplier, delta)
    assert release_epsilon(noise_multiplier, delta) == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_epsilon_of_a_release_is_that_of_a_privacy_loss_distribution():
    accountant = PLDAccountant().compose(dp_accounting.GaussianDpEvent(1.0))
    assert release_epsilon(1.0, 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-3)


def test_epsilon_of_a_release_is_the_known_one():
    assert release_epsilon(1.0, 1e-5) == pytest.approx(4.377, abs=5e-4)


@settings(max_examples=40)
@given(st.floats(-9, 5.9).map(lambda power: 10**power), deltas)
def test_more_noise_never_costs_more_privacy(noise_multiplier, delta):
    assert release_epsilon(noise_multiplier * 1.01, delta) <= release_epsilon(noise_multiplier, delta)


def test_epsilon_too_large_for_a_number_is_none():
    assert release_epsilon(1e-200, 1e-5) is None


@pytest.mark.parametrize(
    ("noise_multiplier", "rate", "steps"), [(1.0, 20 / 360, 1000), (0.5, 0.01, 300), (4.0, 0.5, 50)]
)
def test_renyi_epsilon_of_a_run_is_that_of_opacus(noise_multiplier, rate, steps):
    accountant = RDPAccountant()
    accountant.history = [(noise_multiplier, rate, steps)]
    found = run_epsilon(noise_multiplier, 1e-5, rate, steps)["run_epsilon_rdp"]
    assert found == pytest.approx(accountant.get_epsilon(1e-5), rel=0.02)  # their orders differ


@pytest.mark.parametrize(
    ("noise_multiplier", "rate", "steps"), [(1.0, 20 / 360, 1000), (0.8, 0.01, 3000), (4.0, 0.5, 50)]
)
def test_the_tighter_epsilon_of_a_run_lies_within_the_bounds_of_opacus(noise_multiplier, rate, steps):
    accountant = PRVAccountant()
    accountant.history = [(noise_multiplier, rate, steps)]
    upper = accountant.get_epsilon(1e-5, eps_error=0.01)
    found = run_epsilon(noise_multiplier, 1e-5, rate, steps)["run_epsilon_pld"]
    assert upper - 0.025 <= found <= upper + 0.01


@pytest.mark.parametrize("noise_multiplier", [PLD_FROM, 1.0, 10.0])
@pytest.mark.parametrize("steps", [1, 100, 100_000])
def test_full_batches_compose_to_one_gaussian_mechanism(noise_multiplier, steps):
    exact = release_epsilon(noise_multiplier / math.sqrt(steps), 1e-5)
    found = run_epsilon(noise_multiplier, 1e-5, 1.0, steps)
    assert exact <= found["run_epsilon_rdp"] <= 1.35 * exact + 0.1
    if found["run_epsilon_pld"] is not None:
        assert exact <= found["run_epsilon_pld"] * (1 + 1e-6)
        assert found["run_epsilon_pld"] <= 1.01 * exact + 0.01


@settings(max_examples=15, deadline=None)
@given(
    st.floats(-9, 6).map(lambda power: 10**power),
    deltas,
    st.floats(-5, 0).map(lambda power: 10**power),
    st.integers(1, 100_000),
)
def test_whole_run_figures_cost_no_more_than_seconds_and_are_numbers_or_none(noise_multiplier, delta, rate, steps):
    start = time.perf_counter()
    found = run_epsilon(noise_multiplier, delta, rate, steps)
    assert time.perf_counter() - start < 5
    assert set(found) == {"run_epsilon_rdp", "run_epsilon_pld"}
    assert all(value is None or (math.isfinite(value) and value >= 0) for value in found.values())


def test_little_noise_is_left_to_the_renyi_accountant():
    found = run_epsilon(1e-4, 1e-5, 0.05, 1000)
    assert found["run_epsilon_pld"] is None
    assert found["run_epsilon_rdp"] > 1e9


def test_the_accountants_warnings_are_not_shown(caplog, capfd):
    run_epsilon(0.01, 1e-5, 0.05, 10)
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


def test_dp_states_all_that_its_figures_depend_on():
    promised = guarantee()
    assert promised.epsilon == release_epsilon(1.0, 1e-5)
    assert promised.delta == 1e-5
    assert promised.accountant == "analytic-gaussian"
    assert promised.sampling == "full batch, one release, add-or-remove-one adjacency"
    assert promised.costs == {
        **run_epsilon(1.0, 1e-5, 20 / 360, 1000),
        "run_steps": 1000,
        "sample_rate": 20 / 360,
    }


def test_epsilon_does_not_depend_on_the_clip_norm():
    assert guarantee(":max_grad_norm=0.01") == guarantee(":max_grad_norm=100.0")


def test_without_noise_nothing_is_promised():
    promised = guarantee(":noise_multiplier=0")
    assert (promised.epsilon, promised.delta, promised.accountant, promised.sampling) == (None, None, None, None)
    assert promised.costs == {}
