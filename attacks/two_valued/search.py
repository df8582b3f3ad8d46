"""The two-valued search for networks with one hidden layer, class by class.

Sparsity finds differences of images of one class there: they share their backward signal s, so that `D_i s - D_k s` is
zero wherever their patterns agree. But a true column is s where the image is active and zero elsewhere, two values once
divided by s, and that no difference is. So the search looks for `L q` near 0 or s at every neuron. Its ends are rounded
to a pattern D and the signal `V t` of the image itself, which are exact once D is: `D V t` must lie in the span of L,
and for a given D the t that comes nearest is an eigenvector. We know of no publication of this.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..exact.low_rank import Factors
from ..exact.recovery import Found, Recovery
from ..exact.refine import no_directions, tolerance
from ..exact.select import complement, independent
from ..exact.sphere import radam, random_starts
from .backward import Backward
from .signals import Signed, distinct, fit_signals, nearest, round_patterns, two_valued

_ACTIVE = 2**0.5  # of a column's root mean square, its signal's: half of the neurons are active
_BOLDER = 3.0  # times the step that suits l1: shorter ones stop at sums and differences of similar images
_FIRST, _MORE = 2, 4  # starts for each missing image, in the first round and later
_STARTS, _STEPS = 64, 12  # of the fixed points
_PASSES = 3  # over the signs of small signals
_SMALL = 4.0  # tolerances


def minimize_two_valued(basis: Tensor, signals: Tensor, starts: Tensor, iterations: int, step: float) -> Tensor:
    """Riemannian Adam on the mean distance of `L q` from the nearer of 0 and the signal, all starts at once.

    On the sphere the signal's size is known: `|L q|^2 = m`, and about half of the neurons are active. Were it free, the
    search would end on small signals at every neuron.

    Args:
        basis: L `[m, B]`, whitened (`L^T L = m I`); the search runs in float32.
        signals: of each start, root mean square 1, `[m, N]`.
        starts: unit vectors `[B, N]`; the sign of each is chosen here.
        iterations: how many steps.
        step: the first step's length in radians, decayed to zero along a cosine.

    Returns:
        Unit vectors `[B, N]`, float32.
    """
    basis, wells = basis.float(), _ACTIVE * signals.float()
    transposed = basis.T.contiguous() / len(basis)
    points = starts * torch.where((starts * (transposed @ wells)).sum(dim=0) < 0, -1.0, 1.0)

    def gradient(points: Tensor) -> Tensor:
        columns = basis @ points
        return transposed @ torch.sign(torch.where(nearest(columns, wells), columns - wells, columns))

    return radam(gradient, points, iterations, step)


def last_signals(
    factors: Factors, backward: Backward, pre_activations: Tensor, known: Tensor, generator: torch.Generator
) -> Signed:
    """Candidates for the missing images, whose pre-activations lie in the known subspace that the found ones leave.

    Fixed points between a pattern that they have and the one that its signal shows, as in `spearpp/last_images.py`.

    Args:
        factors: of the gradient.
        backward: of the network.
        pre_activations: F `[m, B]`, see `linear_layer.features`.
        known: `[B, B - k]`, directions already found.
        generator: draws the starts.
    """
    space = complement(known)
    fit = torch.linalg.qr(pre_activations @ space)
    positive = torch.linalg.solve_triangular(fit.R.T, (factors.ones @ space)[:, None], upper=False)[:, 0]
    c = torch.randn(space.shape[1], _STARTS, generator=generator, device=space.device, dtype=space.dtype)
    for _ in range(_STEPS):
        c = c * torch.where(positive @ c < 0, -1.0, 1.0)
        fitted = fit_signals(factors, backward, fit.Q @ c > 0)
        nearer = nearest(factors.basis @ fitted.directions.vectors, backward.basis @ fitted.t)
        c = fit.Q.T @ (2.0 * nearer.to(c.dtype) - 1)
    return round_patterns(factors, backward, nearer)


def search_two_valued(recovery: Recovery, backward: Backward, iterations: int, step: float, rounds: int) -> Found:
    """Search class by class until every image is found, or rounds or time have run out.

    Args:
        recovery: of the gradient.
        backward: of the network.
        iterations: of each search.
        step: the first one that suits l1, in radians.
        rounds: at most.
    """
    factors, context, clock = recovery.factors, recovery.context, recovery.clock
    rank = factors.rank
    found = fit_signals(factors, backward, no_directions(factors).zeros)  # nothing yet
    while True:
        context.progress(f"round {recovery.rounds + 1}: {len(found)} of {rank} images found", len(found) / rank)
        new = _searched(recovery, backward, found, iterations, _BOLDER * step)
        if len(found):
            with clock.stage("last images"):
                known = found.directions.vectors
                new = new.join(last_signals(factors, backward, recovery.pre_activations, known, context.generator))
        with clock.stage("test"):
            found = distinct(found.join(new.select(two_valued(factors, backward, new).nonzero()[:, 0])))
            order = torch.arange(len(found), device=found.t.device)
            found = found.select(order[independent(found.directions.vectors, order, rank)])
        recovery.rounds += 1
        if len(found) == rank or recovery.rounds >= rounds or context.expired():
            break
    if len(found) < rank:
        return recovery.filled_up(found.directions, torch.ones_like(found.others, dtype=torch.bool))
    with clock.stage("select"):
        return _settled(recovery, backward, found)


def _searched(recovery: Recovery, backward: Backward, found: Signed, iterations: int, step: float) -> Signed:
    """What a search finds that starts orthogonal to the found images, mostly in the classes that lack some."""
    factors, context = recovery.factors, recovery.context
    known = backward.classes(found.t).bincount(minlength=len(backward.counts))
    missing = (backward.counts - known).clamp_min(0)
    each = _MORE if recovery.rounds else _FIRST
    starts_of = (each * missing).ceil().long() + 1  # one more, should the count be wrong
    signals = backward.signals[:, torch.repeat_interleave(starts_of)]
    starts = random_starts(factors.rank, signals.shape[1], found.directions.vectors, context.generator)
    recovery.starts += signals.shape[1]
    with recovery.clock.stage("search"):
        ends = minimize_two_valued(factors.basis, signals, starts, iterations, step)
    with recovery.clock.stage("refine"):
        active = nearest(factors.basis @ ends.double(), _ACTIVE * signals)
        return round_patterns(factors, backward, active)


def _settled(recovery: Recovery, backward: Backward, found: Signed) -> Found:
    """The batch; where a signal is too small to tell from zero, the recovered image says whether it is active."""
    batch = recovery.assemble(found.directions)
    for _ in range(_PASSES):
        columns = recovery.factors.basis @ found.directions.vectors
        limit = tolerance(recovery.factors, found.directions.vectors, columns)
        small = (backward.basis @ found.t).abs() <= _SMALL * limit
        wrong = small & batch.votes & ~batch.agree
        if not bool(wrong.any()):
            break
        found = fit_signals(recovery.factors, backward, ~(found.directions.zeros ^ wrong))
        batch = recovery.assemble(found.directions)
    return Found(batch, two_valued(recovery.factors, backward, found), 0)
