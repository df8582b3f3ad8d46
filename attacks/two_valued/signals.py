"""Rounds patterns to exact two-valued directions: `L q` is zero or the image's own signal `V t` at every neuron.

For a given pattern D the column `D V t` must lie in the span of L, and the t for which it comes nearest is an
eigenvector of a matrix as small as the number of classes. Its column shows a pattern again, until that is stable.
Unlike the null vector of the zero rows alone, this tells images apart whose patterns hardly differ.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from ..exact.chunks import chunks
from ..exact.low_rank import Factors
from ..exact.refine import Directions, duplicates, tolerance
from .backward import Backward

_PASSES = 20
_TWO_VALUED = 2.0  # tolerances within which an entry must be zero or its signal
_DECIDED = 0.8  # of the neurons must have a signal of more than twice that, so that the test says something
_RIGID = 10.0  # tolerances by which any other signal of the same pattern must miss the span of L


def nearest(columns: Tensor, signals: Tensor) -> Tensor:
    """Which entries are nearer to their signal than to zero."""
    return (columns - signals).abs() < columns.abs()


@dataclass(frozen=True)
class Signed:
    """Directions with the signal of each: `L q = V t` on the active neurons, for unit q."""

    directions: Directions
    t: Tensor  # [r, K]
    others: Tensor  # [K], root mean square distance from the span of L that any other t of this size has, at least

    def __len__(self) -> int:
        return len(self.directions)

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
    for part in chunks(active.shape[1], 8 * m * r, basis.device):
        masked = active[:, part].T[:, :, None] * signals  # [k, m, r]
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
        nearer = nearest(columns, backward.basis @ fitted.t)
        same = (nearer == active).all(dim=0)
        settled.append(fitted.select(same.nonzero()[:, 0]))
        active = nearer[:, ~same]
        if not active.shape[1]:
            break
    return functools.reduce(Signed.join, settled)


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
    return fits & decided & rigid(factors, found, found.others)


def determined(factors: Factors, backward: Backward, active: Tensor, decided: Tensor) -> Tensor:
    """How far any other direction and signal are from agreeing, `[K]`: at neurons that are surely active or inactive.

    A neuron that may be on either side of zero is evidence for neither, see `exact/kinks.py`: on the line through two
    images of one pattern every column agrees but at such a neuron.

    Args:
        factors: of the gradient.
        backward: of the network.
        active: the patterns D, `[m, K]` booleans.
        decided: `[m, K]` booleans.

    Returns:
        The least root mean square of `L q - D V t` over those neurons, for unit (q, t) across the one that agrees best.
    """
    rows = torch.cat([factors.basis, -backward.basis], dim=1)
    m, rank = factors.basis.shape
    least = []
    for part in chunks(active.shape[1], 3 * 8 * rows.numel(), rows.device):
        weights = torch.ones(active[:, part].shape[1], *rows.shape, dtype=rows.dtype, device=rows.device)
        weights[:, :, rank:] = active[:, part].T[:, :, None].to(rows)
        seen = rows * weights * decided[:, part].T[:, :, None]
        least.append(torch.linalg.eigvalsh(seen.mT @ seen / m)[:, 1].clamp_min(0).sqrt())
    return torch.cat(least)


def rigid(factors: Factors, found: Signed, misses: Tensor) -> Tensor:
    """Whether what misses by so much `[K]` is clear of the noise, `[K]` booleans."""
    columns = factors.basis @ found.directions.vectors
    clear: Tensor = misses > _RIGID * tolerance(factors, found.directions.vectors, columns)
    return clear


def distinct(found: Signed) -> Signed:
    """Without repetitions, the first of each."""
    again = torch.triu(duplicates(found.directions, found.directions), diagonal=1).any(dim=0)
    return found.select((~again).nonzero()[:, 0])
