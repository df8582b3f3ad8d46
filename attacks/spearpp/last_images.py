"""The last images need no search in B dimensions: they lie in the known subspace that the found ones leave.

With k directions missing and N `[B, k]` the orthogonal complement of the found ones, row i of `Q^-1` is `N c` for each
missing image i: its pre-activations are `F N c`, with only k unknowns.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..exact.linear_layer import first_of_each
from ..exact.low_rank import Factors
from ..exact.refine import Directions, refine, restricted, smallest
from ..exact.select import complement

_STARTS, _STEPS = 64, 12
_SHIFT = 1e-13  # keeps the Gram matrix of the rows invertible
_SHARES = (1.0, 0.9, 0.8, 0.7)  # of the predicted inactive rows that the null vector is taken from


def last_directions(factors: Factors, pre_activations: Tensor, found: Tensor, generator: torch.Generator) -> Directions:
    """Candidates for the missing directions: fixed points between a pattern and the null vector it predicts.

    Args:
        factors: of the gradient.
        pre_activations: F `[m, B]`.
        found: `[B, B - k]` directions already found.
        generator: draws the starts.
    """
    space = complement(found)
    known = pre_activations @ space  # [m, k]
    k = known.shape[1]
    count = 1 if k == 1 else _STARTS
    start = torch.randn(k, count, generator=generator, device=space.device, dtype=space.dtype)
    # whiten, so that random c give varied patterns rather than those of the strongest direction
    fit = torch.linalg.qr(known)
    c = torch.linalg.solve_triangular(fit.R, start, upper=True)
    ends = [_fixed_points(factors, known, space, fit, c, solve) for solve in (_dual, _least)]
    return refine(factors, torch.cat(ends, dim=1))


def _fixed_points(
    factors: Factors,
    known: Tensor,
    space: Tensor,
    fit: tuple[Tensor, Tensor],
    c: Tensor,
    solve: Callable[[Factors, Tensor, Tensor], Tensor],
) -> Tensor:
    """Directions `[B, K]` where patterns and null vectors agree, from starts `c [k, N]`."""
    positive = factors.ones @ space  # c . positive = 1 is what the bias gradient demands
    for step in range(1 if len(c) == 1 else _STEPS):
        c = c * torch.where(positive @ c < 0, -1.0, 1.0)
        inactive = known @ c <= 0
        if step:
            c, inactive = _met(c, inactive)
        size = (factors.basis @ solve(factors, inactive, space @ c)).abs()
        rank_of = size.argsort(dim=0).argsort(dim=0)
        active = rank_of >= inactive.sum(dim=0)
        c = torch.linalg.solve_triangular(fit[1], fit[0].T @ (2.0 * active.to(size.dtype) - 1), upper=True)
    c = c * torch.where(positive @ c < 0, -1.0, 1.0)
    c, inactive = _met(c, known @ c <= 0)
    rows = inactive
    found_here = []
    for share in _SHARES:
        vectors = solve(factors, rows, space @ c)
        size = torch.where(inactive, (factors.basis @ vectors).abs(), torch.inf)
        order = size.argsort(dim=0).argsort(dim=0)
        rows = order < share * inactive.sum(dim=0)
        found_here.append(solve(factors, rows, space @ c))
    return torch.cat(found_here, dim=1)


def _least(factors: Factors, rows: Tensor, images: Tensor) -> Tensor:
    """Unit directions q `[B, K]` with the least `|L q|` on the rows, whatever is found already."""
    vectors: Tensor = smallest(factors, rows, images)[0][:, :, 0].T
    return vectors


def _dual(factors: Factors, rows: Tensor, images: Tensor) -> Tensor:
    """Unit directions q `[B, K]` with the least `|L q|` on the rows `[m, K]` among those of one length along `images`.

    The missing images are orthogonal to the directions already found, so none of those, which may be nearly as small
    on the rows, has any part in it.
    """
    found = []
    shift = _SHIFT * len(factors.basis) * factors.rank
    eye = torch.eye(factors.rank, dtype=images.dtype, device=images.device)
    for part, chosen in restricted(factors, rows):
        factor = torch.linalg.cholesky_ex(chosen.mT @ chosen + shift * eye)[0]
        found.append(torch.cholesky_solve(images[:, part].T[:, :, None], factor)[:, :, 0].T)
    vectors = torch.cat(found, dim=1)
    unit: Tensor = vectors / vectors.norm(dim=0)
    return unit


def _met(c: Tensor, inactive: Tensor) -> tuple[Tensor, Tensor]:
    """Without the starts whose pattern is that of another."""
    patterns, first = first_of_each(inactive)
    return c[:, first], patterns
