"""What Gaussian noise on a clipped sum promises: epsilon of one release in closed form, of a whole run by accountants.

Noise multipliers here are the noise's standard deviation over the sum's sensitivity. That is the clip norm under
add-or-remove-one adjacency, and twice the clip norm under replace-one adjacency.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager

from scipy.optimize import brentq
from scipy.special import erfcx

from gibench.defense import Sampling

# Where privacy loss distributions want gigabytes: below this noise multiplier, above this epsilon.
PLD_FROM, PLD_UP_TO = 0.3, 1e4


@functools.cache
def release_epsilon(noise_multiplier: float, delta: float) -> float | None:
    """Epsilon of one release of the full batch: the Gaussian mechanism, exactly.

    Balle and Wang, ICML 2018 (arXiv 1805.06530), theorem 8, with mu = 1 / noise_multiplier:
    delta = Phi(a) - exp(epsilon) Phi(a - mu) at a = mu / 2 - epsilon / mu. Written in a, both terms share the factor
    exp(-a^2 / 2) / 2 and what remains are scaled error functions: nothing overflows or cancels, however large epsilon.

    Args:
        noise_multiplier: from 1e-300 to 1e6.
        delta: in (0, 1).

    Returns:
        Epsilon, or None if it is too large for a float.
    """
    mu = 1 / noise_multiplier

    def log_ratio(a: float) -> float:
        """Log of the delta that `a` gives over the wanted one; it rises with `a`."""
        difference = erfcx(-a / math.sqrt(2)) - erfcx((mu - a) / math.sqrt(2))
        return math.log(difference / 2) - a * a / 2 - math.log(delta)

    highest = min(mu / 2, 37.0)  # epsilon is not negative; and beyond 37 delta is 1
    if log_ratio(highest) <= 0:
        return 0.0
    a = brentq(log_ratio, -40.0, highest, xtol=1e-14, rtol=1e-14)
    epsilon = mu * (mu / 2 - a)
    return epsilon if math.isfinite(epsilon) else None


@functools.cache
def multiplier_for(epsilon: float, delta: float) -> float | None:
    """The noise multiplier from 1e-9 to 1e6 at which one release has this epsilon; None if there is none."""

    def excess(log: float) -> float:
        found = release_epsilon(math.exp(log), delta)
        return 1.0 if found is None else (found - epsilon) / (found + epsilon)

    low, high = math.log(1e-9), math.log(1e6)
    if excess(low) < 0 or excess(high) > 0:
        return None
    return math.exp(brentq(excess, low, high, xtol=1e-13, rtol=1e-13))


@functools.cache
def run_epsilon(
    noise_multiplier: float, delta: float, sample_rate: float, steps: int, sampling: Sampling = "poisson"
) -> dict[str, float | None]:
    """Epsilon of a training run, by dp-accounting's accountants.

    Poisson sampling is accounted under add-or-remove-one adjacency; batches of a fixed size, drawn anew for each step
    without replacement, under replace-one adjacency, by Renyi accounting alone (Wang, Balle and Kasiviswanathan,
    AISTATS 2019, arXiv 1808.00087, theorem 27).

    Args:
        noise_multiplier: from 1e-9 to 1e6.
        delta: in (0, 1).
        sample_rate: each step's, in (0, 1].
        steps: how many, up to 100,000.
        sampling: of each step's batch.

    Returns:
        `run_epsilon_rdp` (Renyi) and `run_epsilon_pld` (privacy loss distribution, tighter; None beyond `PLD_FROM` and
        `PLD_UP_TO`, and for fixed batches), None also where the accountant finds no finite one.
    """
    from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent, SelfComposedDpEvent
    from dp_accounting import SampledWithoutReplacementDpEvent as FixedSizeDpEvent
    from dp_accounting.pld import PLDAccountant
    from dp_accounting.rdp import RdpAccountant

    step, pld = GaussianDpEvent(noise_multiplier), math.inf
    with _quiet():
        if sampling == "fixed":  # the accountant uses the ratio of the two sizes alone
            run = SelfComposedDpEvent(FixedSizeDpEvent(1.0, sample_rate, step), steps)
            accountant = RdpAccountant(neighboring_relation=NeighboringRelation.REPLACE_ONE)
            return _finite(float(accountant.compose(run).get_epsilon(delta)), pld)
        run = SelfComposedDpEvent(PoissonSampledDpEvent(sample_rate, step), steps)
        rdp = float(RdpAccountant().compose(run).get_epsilon(delta))
        if noise_multiplier >= PLD_FROM and rdp <= PLD_UP_TO:
            # A step's losses shrink as noise grows, and so must the grid, whose rounding errs on the safe side; its
            # length, which is the cost, is about epsilon over its interval.
            pld_accountant = PLDAccountant(value_discretization_interval=max(1e-3 / noise_multiplier, 1e-5 * rdp))
            pld = float(pld_accountant.compose(run).get_epsilon(delta))
    return _finite(rdp, pld)


def _finite(rdp: float, pld: float) -> dict[str, float | None]:
    found = {"run_epsilon_rdp": rdp, "run_epsilon_pld": pld}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """The Renyi accountant warns of each order it leaves out, which costs tightness alone."""
    from absl import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)
