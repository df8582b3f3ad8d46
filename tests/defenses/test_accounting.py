"""Epsilon of one release and of whole runs, against other accountants."""

import math
import time
from dataclasses import replace

import dp_accounting
import mpmath
import pytest
import torch
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant, RDPAccountant

from gibench.chain import context_of
from gibench.chain import guarantee as promise
from gibench.defense import DefenseContext, Guarantee
from gibench.defenses.accounting import PLD_FROM, multiplier_for, release_epsilon, run_epsilon
from gibench.errors import UsageError
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
    start = time.process_time()
    found = run_epsilon(noise_multiplier, delta, rate, steps)
    assert time.process_time() - start < 5  # of this process, however busy the machine is
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
    assert promised.sampling == (
        "full batch, one release, add-or-remove-one image at a public size; run: Poisson sampling"
    )
    assert (promised.max_grad_norm, promised.noise_multiplier, promised.run_steps) == (1.0, 1.0, 1000)
    run = run_epsilon(1.0, 1e-5, 20 / 360, 1000)
    assert promised.costs == {**run, "sample_rate": 20 / 360}
    assert promised.run_epsilon == min(run.values())


@settings(max_examples=30, deadline=None)
@given(st.floats(-3, 8).map(lambda power: 10**power), st.floats(-9, -3).map(lambda power: 10**power))
def test_the_multiplier_solved_for_gives_back_its_epsilon(epsilon, delta):
    solved = multiplier_for(epsilon, delta)
    assert release_epsilon(solved, delta) == pytest.approx(epsilon, rel=1e-8)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
def test_the_multiplier_solved_for_is_that_of_dp_accounting(epsilon):
    expected = dp_accounting.get_sigma_gaussian(epsilon, 1e-5)
    assert multiplier_for(epsilon, 1e-5) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("more", ["", ",sampling=fixed", ",on=update"])
@pytest.mark.parametrize("local", [None, "fedavg:epochs=4,local_batch_size=5"])
def test_a_target_epsilon_is_met_whatever_dp_is_composed_with(more, local):
    chain = [create("defense", f"dp:target_epsilon=3{more}")] + ([create("defense", local)] if local else [])
    assert promise(chain, context_of(chain, torch.Generator(), 20, 360)).epsilon == pytest.approx(3, rel=1e-9)


def test_the_noise_for_a_target_is_larger_where_images_enter_more_steps():
    dp = create("defense", "dp:target_epsilon=3")
    once, often = (
        dp.guarantee(DefenseContext(torch.Generator(), 20, 360, passes=passes)).noise_multiplier for passes in (1, 9)
    )
    assert often == pytest.approx(3 * once)


@pytest.mark.parametrize("setting", ["target_epsilon=1e30", "target_epsilon=1e-9,delta=1e-12"])
def test_an_epsilon_out_of_reach_is_refused(setting):
    with pytest.raises(UsageError, match=r"defense 'dp': target_epsilon=.* is out of reach: no noise multiplier"):
        create("defense", f"dp:{setting}")


def test_the_epochs_of_local_training_compose():
    """An image is in one local batch an epoch: as many Gaussian mechanisms, by dp-accounting's own composition."""
    chain = [create("defense", spec) for spec in ("dp:noise_multiplier=2", "fedavg:epochs=3,local_batch_size=5")]
    promised = promise(chain, context_of(chain, torch.Generator(), 20, 360))
    accountant = PLDAccountant(value_discretization_interval=1e-4)
    accountant.compose(dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(2.0), 3))
    assert promised.epsilon == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-3)
    assert promised.epsilon > 1.5 * chain[0].guarantee(DefenseContext(torch.Generator(), 20, 360)).epsilon
    assert promised.sampling.startswith("full batch, one release of 3 passes over the batch, ")
    rounds = dp_accounting.SelfComposedDpEvent(
        dp_accounting.PoissonSampledDpEvent(
            20 / 360, dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(2.0), 3)
        ),
        1000,
    )
    expected = dp_accounting.rdp.RdpAccountant().compose(rounds).get_epsilon(1e-5)
    assert promised.costs["run_epsilon_rdp"] == pytest.approx(expected, rel=1e-9)


def test_client_level_figures_count_clients_and_no_local_steps():
    chain = [create("defense", spec) for spec in ("dp:on=update", "fedavg:epochs=3,clients=4")]
    promised = promise(chain, context_of(chain, torch.Generator(), 20, 360))
    assert promised.epsilon == release_epsilon(1.0, 1e-5)
    assert promised.sampling.startswith("full batch, one release, add-or-remove-one client at a public size; run: ")
    assert promised.costs["sample_rate"] == 4 / 18


def delta_of_one_fixed_batch(epsilon, noise, rate):
    """The least delta that any accountant may give: of +1 against -1 beside an example that adds nothing."""
    grid = torch.linspace(-40, 40, 400_001, dtype=torch.float64)
    normal = torch.distributions.Normal(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64), 2 * noise)
    minus, zero, plus = normal.log_prob(grid[:, None]).exp().unbind(1)
    loss = (1 - rate) * zero + rate * plus - math.exp(epsilon) * ((1 - rate) * zero + rate * minus)
    return float(torch.trapezoid(loss.clamp(min=0), grid))


@pytest.mark.parametrize(("noise", "rate"), [(1.0, 0.5), (0.4, 0.2)])
def test_epsilon_of_fixed_batches_is_no_lower_than_the_worst_pairs_and_not_far_above(noise, rate):
    found = run_epsilon(noise, 1e-5, rate, 1, "fixed")["run_epsilon_rdp"]
    assert delta_of_one_fixed_batch(found, noise, rate) <= 1e-5
    assert delta_of_one_fixed_batch(found / 4, noise, rate) > 1e-5


def test_fixed_batches_that_are_all_the_data_are_one_gaussian_mechanism_under_replacement():
    promised = guarantee(":sampling=fixed", 20, 20)
    assert promised.epsilon == release_epsilon(0.5, 1e-5)
    assert promised.sampling.endswith("replace-one image; run: fixed-size sampling without replacement")
    exact = release_epsilon(0.5 / math.sqrt(1000), 1e-5)
    assert exact <= promised.costs["run_epsilon_rdp"] <= 1.35 * exact
    assert promised.costs["run_epsilon_pld"] is None
    assert promised.run_epsilon == promised.costs["run_epsilon_rdp"]


def test_epsilon_does_not_depend_on_the_clip_norm():
    small, large = guarantee(":max_grad_norm=0.01"), guarantee(":max_grad_norm=100.0")
    assert (small.max_grad_norm, large.max_grad_norm) == (0.01, 100.0)
    assert replace(small, max_grad_norm=100.0) == large


def test_without_noise_nothing_is_promised():
    assert guarantee(":noise_multiplier=0") == Guarantee()
