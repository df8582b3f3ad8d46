"""Which B of the candidates form the batch: the best independent ones, then swaps that raise lambda.

Source: SPEAR, section 4, the two-stage greedy selection.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .assemble import Batch
from .low_rank import Factors
from .refine import Directions

_INDEPENDENT = 1e-4  # QR residual above which a direction is not a combination of those before it
_PART = 1e-3  # of the largest coefficient: below it a member has no part in a candidate


def independent(vectors: Tensor, order: Tensor, most: int, spread: Tensor | None = None) -> list[int]:
    """The first `most` linearly independent columns of `[B, K]`, in the given order.

    Whether one is kept decides what the next is compared with, so the CPU does it: small steps without waiting for a
    device at each.

    Args:
        vectors: unit vectors.
        order: `[K]` or fewer indices.
        most: how many.
        spread: `[K]`, how far noise may move each one; a residual that it explains is none.
    """
    kept: list[int] = []
    least = [_INDEPENDENT] * vectors.shape[1] if spread is None else spread.clamp_min(_INDEPENDENT).tolist()
    vectors = vectors.cpu()
    span = vectors.new_zeros(len(vectors), 0)
    for index in order.tolist():
        residual = vectors[:, index]
        for _ in range(2):  # twice is enough for orthogonality to working precision
            residual = residual - span @ (span.T @ residual)
        size = residual.norm()
        if size > least[index]:
            kept.append(index)
            span = torch.cat([span, (residual / size)[:, None]], dim=1)
            if len(kept) == most:
                break
    return kept


def complement(found: Tensor) -> Tensor:
    """An orthonormal basis `[B, k]` of what is orthogonal to the found directions `[B, B - k]`."""
    basis: Tensor = torch.linalg.qr(found, mode="complete").Q
    return basis[:, found.shape[1] :]


def filled_up(factors: Factors, chosen: Directions) -> Directions:
    """The chosen directions and a basis of what is orthogonal to them, of whose zeros nothing is known."""
    rest = complement(chosen.vectors)
    unknown = torch.zeros(len(factors.basis), rest.shape[1], dtype=torch.bool, device=rest.device)
    return chosen.join(Directions(rest, unknown))


def greedy(
    candidates: Directions,
    order: Tensor,
    assemble: Callable[[Directions], Batch],
    tried: int | None = None,
    spread: Tensor | None = None,
) -> tuple[list[int], Batch | None]:
    """The first B independent candidates and the batch they make, after swaps; None where there are fewer than B.

    Args:
        candidates: all of them.
        order: `[K]` indices, the best first.
        assemble: makes a batch of B directions.
        tried: how many of the others may take a place in the batch; all where None.
        spread: see `independent`.
    """
    rank = len(candidates.vectors)
    members = independent(candidates.vectors, order, rank, spread)
    if len(members) < rank:
        return members, None
    within = set(members)
    others = [index for index in order.tolist() if index not in within]
    return swap(candidates, members, others[:tried], assemble)


def swap(
    candidates: Directions, members: list[int], others: list[int], assemble: Callable[[Directions], Batch]
) -> tuple[list[int], Batch]:
    """Let each other candidate take the place of a member that has a part in it, where that raises the mean lambda.

    Args:
        candidates: all of them.
        members: B independent ones.
        others: to be tried, in this order.
        assemble: makes a batch of B directions.
    """
    chosen = torch.tensor(members, device=candidates.vectors.device)
    best = assemble(candidates.select(chosen))
    matches = best.matches
    for index in others:
        if matches:
            break
        parts = torch.linalg.solve_ex(best.directions.vectors, candidates.vectors[:, index])[0].abs()
        place = torch.where(parts > _PART * parts.max(), best.agreement, torch.inf).argmin()
        tried = chosen.scatter(0, place[None], index)
        trial = assemble(candidates.select(tried))
        better = trial.agreement.mean() > best.agreement.mean()
        if bool(better):
            chosen, best, matches = tried, trial, trial.matches
    return chosen.tolist(), best
