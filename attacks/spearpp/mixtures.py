"""Takes mixtures of near-duplicate images apart.

On the rows where all images of a mixture are inactive, L has a null space of as many dimensions as there are images,
spanned by their directions. In coordinates of that space, the rows of L where only one of the images is active are all
multiples of one functional, the one that is zero on every other image's direction. So rows that are parallel give the
functionals, and k of them the k directions as their dual basis. Where only some show, the other images lie in their
common kernel, where further rows become parallel, and so on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..exact.low_rank import Factors
from ..exact.purity import Purity, limit
from ..exact.refine import Directions, settle, tolerance
from ..exact.select import complement

_LIVE = 10.0  # times the tolerance: from which a row is used
_MIXTURES = 64  # taken apart at once
_KEPT = 6  # directions kept of a plane
_ARITHMETIC = 1e-7  # the angle by which rounding may part two parallel rows
_INDEPENDENT = 1e-6  # residual above which a functional is no combination of those before it


def take_apart(factors: Factors, mixtures: Directions, purity: Purity, known: Directions) -> Directions | None:
    """The directions that the mixtures are made of, as far as they show, refined.

    Args:
        factors: of the gradient.
        mixtures: candidates that are not pure, in the order in which they are taken.
        purity: their tests.
        known: pure directions: a mixture is left alone when they span its null space.
    """
    spaces: list[Tensor] = []
    found: list[Tensor] = []
    inside = (~known.zeros).double().T @ purity.rows.double() == 0  # [L, K], what is zero on all of a mixture's rows
    enough = (inside.sum(dim=0) >= purity.nullity).tolist()
    for k in range(len(mixtures)):
        if len(spaces) >= _MIXTURES:
            break
        if enough[k] and _within(mixtures.vectors[:, k], known.vectors[:, inside[:, k]]):
            continue
        space = null_space(factors, purity.rows[:, k])
        if _among(space, spaces):
            continue
        spaces.append(space)
        found += _pure_directions(factors, space)
    return settle(factors, torch.stack(found, dim=1)) if found else None


def null_space(factors: Factors, rows: Tensor) -> Tensor:
    """An orthonormal basis `[B, k]` of what L maps to zero on the rows `[m]`, within the noise; k is 1 at least."""
    chosen = factors.basis[rows]
    vectors = torch.linalg.eigh(chosen.T @ chosen).eigenvectors
    sizes = (chosen @ vectors).square().mean(dim=0).sqrt()
    null = (sizes <= limit(factors, vectors)).cumprod(dim=0)
    space: Tensor = vectors[:, : max(int(null.sum()), 1)]
    return space


def _within(vector: Tensor, span: Tensor) -> bool:
    basis = torch.linalg.qr(span).Q
    return bool((vector - basis @ (basis.T @ vector)).norm() < 1e-6)


def _among(space: Tensor, others: list[Tensor]) -> bool:
    overlaps = [(other.T @ space).norm() ** 2 for other in others if other.shape == space.shape]
    return bool(overlaps) and bool((torch.stack(overlaps) > space.shape[1] - 1e-6).any())


def _pure_directions(factors: Factors, space: Tensor) -> list[Tensor]:
    """Unit directions `[B]` that the space `[B, k]` holds."""
    k = space.shape[1]
    if k == 1:
        return [space[:, 0]]
    if k == 2:
        return _across(factors, space)
    groups = _functionals(factors, space)
    if not len(groups):
        return []
    if len(groups) < k:
        return _pure_directions(factors, space @ complement(groups.T))
    dual = space @ torch.linalg.inv(groups)
    return list((dual / dual.norm(dim=0)).T)


def _across(factors: Factors, plane: Tensor) -> list[Tensor]:
    """The directions of a plane `[B, 2]` that several rows agree on; every row excludes one."""
    rows = factors.basis @ plane
    live = rows[rows.norm(dim=1) > _LIVE * limit(factors, plane).max()]
    drawn = torch.stack([-live[:, 1], live[:, 0]]) / live.norm(dim=1)
    vectors = plane @ drawn
    zeros = (live @ drawn).abs() <= tolerance(factors, vectors, rows @ drawn)
    shared = (zeros.sum(dim=0) >= 2).nonzero()[:, 0]
    vectors, zeros = vectors[:, shared], zeros[:, shared]
    if not len(shared):
        return []
    votes = zeros.sum(dim=0)
    best, most = [], []
    for _ in range(_KEPT):
        most.append(votes.max())
        best.append(votes.argmax())
        # What is zero on a part of the same rows holds the same images and more: all mixtures of a plane look alike.
        part = (zeros & zeros.index_select(1, best[-1][None])).sum(dim=0) == zeros.sum(dim=0)
        votes = votes.masked_fill(part, 0)
    return list(vectors[:, torch.stack(best)[torch.stack(most) >= 2]].T)


def _functionals(factors: Factors, space: Tensor) -> Tensor:
    """Linearly independent unit functionals `[g, k]` that several rows of `L space` are multiples of.

    Those of most rows come first.
    """
    rows = factors.basis @ space
    size = rows.norm(dim=1)
    zero = limit(factors, space).max()
    live = size > _LIVE * zero
    unit, loose = close(rows[live] / size[live, None], zero / size[live])
    least = (loose[:, None] + loose).square_().mul_(-0.5).add_(1 - _ARITHMETIC**2)
    parallel = (unit @ unit.T).abs_() >= least
    votes = parallel.sum(dim=0)
    found: list[Tensor] = []
    span = space.new_zeros(space.shape[1], 0)
    while len(votes) and len(found) < space.shape[1]:
        most, first = torch.stack([votes.max(), votes.argmax()]).tolist()
        if most < 2:
            break
        group = (parallel[first] & (votes > 0)).nonzero()[:, 0]
        signed = unit[group] * (unit[group] @ unit[first]).sign()[:, None] * (1 / loose[group])[:, None]
        functional = signed.sum(dim=0) / signed.sum(dim=0).norm()
        residual = functional - span @ (span.T @ functional)
        residual = residual - span @ (span.T @ residual)
        if residual.norm() > _INDEPENDENT:
            found.append(functional)
            span = torch.cat([span, (residual / residual.norm())[:, None]], dim=1)
        votes = votes - parallel[group].sum(dim=0)
        votes[group] = 0
    return torch.stack(found) if found else space.new_zeros(0, space.shape[1])


def close(unit: Tensor, loose: Tensor) -> tuple[Tensor, Tensor]:
    """The rows `[n, k]` that may be parallel to others, each known to `loose [n]`: by projections on one line."""
    line = torch.arange(1, unit.shape[1] + 1, dtype=unit.dtype, device=unit.device).cos()
    place = (unit @ line / line.norm()).abs()
    reach = loose + _ARITHMETIC
    begin, order = (place - reach).sort()
    end = (place + reach)[order].cummax(dim=0).values
    apart = begin[1:] > end[:-1]
    edge = torch.ones_like(begin[:1], dtype=torch.bool)
    alone = torch.cat([edge, apart]) & torch.cat([apart, edge])
    kept = order[~alone].sort().values
    return unit[kept], loose[kept]
