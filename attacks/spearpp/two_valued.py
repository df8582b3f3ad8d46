"""The two-valued search for networks with one hidden layer, class by class.

Sparsity finds differences of images of one class there: they share their backward signal s, so that `D_i s - D_k s` is
zero wherever their patterns agree. But a true column is s where the image is active and zero elsewhere, two values once
divided by s, and that no difference is. So the search looks for `L q` near 0 or s at every neuron. Its ends are rounded
to a pattern D and the signal `V t` of the image itself, which are exact once D is: `D V t` must lie in the span of L,
and for a given D the t that comes nearest is an eigenvector. We know of no publication of this.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..linear_layer import Factors
from .backward import Backward
from .hunt import Found, Hunt
from .pool import untested
from .refine import Directions, alike, tolerance
from .search import random_starts
from .select import independent
from .tail import complement

_BETA1, _BETA2 = 0.9, 0.999
_ACTIVE = 2**0.5  # of a column's root mean square, its signal's: half of the neurons are active
_PASSES = 20
_STARTS, _STEPS = 64, 12
_MEMORY = 2**28  # bytes of row copies in one chunk
_TWO_VALUED = 2.0  # tolerances within which an entry must be zero or its signal
_DECIDED = 0.8  # of the neurons must have a signal of more than twice that, so that the test says something
_RIGID = 10.0  # tolerances by which any other signal of the same pattern must miss the span of L


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
    momentum = torch.zeros_like(points)
    second = points.new_zeros(points.shape[1])
    for iteration in range(iterations):
        columns = basis @ points
        gradient = transposed @ torch.sign(torch.where(_active(columns, wells), columns - wells, columns))
        gradient -= points * (points * gradient).sum(dim=0)
        momentum = _BETA1 * momentum + (1 - _BETA1) * gradient
        second = _BETA2 * second + (1 - _BETA2) * gradient.square().sum(dim=0)
        rate = step * 0.5 * (1 + math.cos(math.pi * iteration / iterations)) / (1 - _BETA1 ** (iteration + 1))
        points = points - rate * momentum / (second / (1 - _BETA2 ** (iteration + 1))).sqrt().clamp_min(1e-12)
        points = points / points.norm(dim=0)
        momentum -= points * (points * momentum).sum(dim=0)
    return points


def _active(columns: Tensor, signals: Tensor) -> Tensor:
    """Which entries are nearer to their signal than to zero."""
    return (columns - signals).abs() < columns.abs()


@dataclass(frozen=True)
class Signed:
    """Directions with the signal of each: `L q = V t` on the active neurons, for unit q."""

    directions: Directions
    t: Tensor  # [r, K]
    others: Tensor  # [K], root mean square distance from the span of L that any other t of this size has, at least

    def select(self, index: Tensor) -> Signed:
        """Those of them, in that order."""
        return Signed(self.directions.select(index), self.t[:, index], self.others[index])

    def join(self, other: Signed) -> Signed:
        """These and then the other ones."""
        return Signed(
            self.directions.join(other.directions),
            torch.cat([self.t, other.t], dim=1),
            torch.cat([self.others, other.others]),
        )


def fit_signals(factors: Factors, backward: Backward, active: Tensor) -> Signed:
    """For each pattern D the signal for which `D V t` is nearest to the span of L, and its direction.

    Args:
        factors: of the gradient.
        backward: of the network.
        active: D `[m, K]` booleans.
    """
    basis, signals = factors.basis, backward.basis
    m, r = signals.shape
    parts = []
    for part in torch.split(active.T.to(basis.dtype), max(1, _MEMORY // (8 * m * r))):
        masked = part[:, :, None] * signals  # [k, m, r]
        inside = basis.T @ masked / m  # [k, B, r]
        misfit, t = torch.linalg.eigh(signals.T @ masked / m - inside.mT @ inside)
        vectors = (inside @ t[:, :, :1])[:, :, 0]
        size = vectors.norm(dim=1, keepdim=True).clamp_min(1e-300)
        other = misfit[:, 1:2].clamp_min(0).sqrt() if r > 1 else torch.full_like(size, torch.inf)
        parts.append((vectors / size, t[:, :, 0] / size, (other / size)[:, 0]))
    vectors, t, others = (torch.cat(each) for each in zip(*parts, strict=True))
    return Signed(Directions(vectors.T, ~active), t.T, others)


def round_patterns(factors: Factors, backward: Backward, active: Tensor) -> Signed:
    """Repeat pattern and signal until the pattern stops changing; those that do not stop are dropped.

    Args:
        factors: of the gradient.
        backward: of the network.
        active: the first patterns `[m, K]`, booleans.
    """
    settled = []
    for _ in range(_PASSES):
        fitted = fit_signals(factors, backward, active)
        columns = factors.basis @ fitted.directions.vectors
        nearer = _active(columns, backward.basis @ fitted.t)
        same = (nearer == active).all(dim=0)
        settled.append(fitted.select(same.nonzero()[:, 0]))
        active = nearer[:, ~same]
        if not active.shape[1]:
            break
    return functools.reduce(Signed.join, settled)


def last_signals(
    factors: Factors, backward: Backward, pre_activations: Tensor, known: Tensor, generator: torch.Generator
) -> Signed:
    """Candidates for the missing images, whose pre-activations lie in the known subspace that the found ones leave.

    Fixed points between a pattern that such pre-activations have and the one that its signal shows, see `tail.py`.

    Args:
        factors: of the gradient.
        backward: of the network.
        pre_activations: F `[m, B]`, see `separate.features`.
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
        nearer = _active(factors.basis @ fitted.directions.vectors, backward.basis @ fitted.t)
        c = fit.Q.T @ (2.0 * nearer.to(c.dtype) - 1)
    return round_patterns(factors, backward, nearer)


def two_valued(factors: Factors, backward: Backward, found: Signed) -> Tensor:
    """Which directions are those of one image, `[K]` booleans: the test that stands for purity here.

    Every entry of `L q` is zero or its signal, the signals are clear of the noise, and no other signal has this
    pattern. A mixture `sum_i a_i q_i` of several images has at neuron j the value `V_j . sum_i a_i D_ij t_i`: for it to
    pass, each set of images that any r neurons in general position have in common must sum to 0 or to the mixture's
    own t, which the weights of images with different probabilities p_i do only one image at a time.
    """
    columns = factors.basis @ found.directions.vectors
    signals = backward.basis @ found.t
    limit = tolerance(factors, found.directions.vectors, columns)
    misfit = (columns - signals.masked_fill(found.directions.zeros, 0.0)).abs()
    fits = (misfit <= _TWO_VALUED * limit).all(dim=0)
    decided = (signals.abs() > 2 * _TWO_VALUED * limit).double().mean(dim=0) >= _DECIDED
    return fits & decided & (found.others > _RIGID * limit)


def hunt_two_valued(hunt: Hunt, backward: Backward) -> Found:
    """Search class by class until every image is found, or rounds or time have run out."""
    factors, context = hunt.factors, hunt.context
    rank = factors.rank
    found = fit_signals(factors, backward, torch.zeros(len(factors.basis), 0, dtype=torch.bool))
    while True:
        context.progress(f"round {hunt.rounds + 1}: {len(found.t.T)} of {rank} images found", len(found.t.T) / rank)
        known = backward.classes(found.t).bincount(minlength=backward.signals.shape[1])
        missing = (backward.counts - known).clamp_min(0)
        per_class = ((4 if hunt.rounds else 2) * missing).ceil().long() + 1
        classes = torch.repeat_interleave(per_class)
        signals = backward.signals[:, classes]
        starts = random_starts(rank, len(classes), found.directions.vectors, context.generator)
        with hunt.clock.stage("search"):
            ends = minimize_two_valued(factors.basis, signals, starts, hunt.search.iterations, hunt.search.step)
        with hunt.clock.stage("refine"):
            active = _active(factors.basis @ ends.double(), _ACTIVE * signals)
            new = round_patterns(factors, backward, active)
        if len(known_v := found.directions.vectors.T) and len(known_v) < rank:
            with hunt.clock.stage("tail"):
                new = new.join(last_signals(factors, backward, hunt.pre_activations, known_v.T, context.generator))
        with hunt.clock.stage("test"):
            new = new.select(two_valued(factors, backward, new).nonzero()[:, 0])
            found = _distinct(found.join(new))
        hunt.starts += len(classes)
        hunt.rounds += 1
        members = independent(found.directions.vectors, torch.arange(len(found.t.T)), rank)
        found = found.select(torch.tensor(members))
        if len(members) == rank or hunt.rounds >= hunt.search.rounds or context.expired():
            break
    pool = untested(found.directions)
    pool = replace(pool, pure=torch.ones_like(pool.pure))
    if len(members) < rank:
        return hunt.filled_up(pool)
    return Found(pool, hunt.assemble(pool.directions), 0)


def _distinct(found: Signed) -> Signed:
    again = torch.triu(alike(found.directions, found.directions), diagonal=1).any(dim=0)
    return found.select((~again).nonzero()[:, 0])
