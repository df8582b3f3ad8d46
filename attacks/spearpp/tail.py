"""The last images need no search in B dimensions: they lie in the known subspace that the found ones leave.

With k directions missing and N `[B, k]` the orthogonal complement of the found ones, row i of `Q^-1` is `N c` for each
missing image i: its pre-activations are `F N c`, with only k unknowns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..linear_layer import Factors
from .refine import Directions, refine, smallest

_STARTS, _STEPS = 64, 12
_SHARES = (1.0, 0.9, 0.8, 0.7)  # of the predicted inactive rows that the null vector is taken from


def complement(found: Tensor) -> Tensor:
    """An orthonormal basis `[B, k]` of what is orthogonal to the found directions `[B, B - k]`."""
    basis: Tensor = torch.linalg.qr(found, mode="complete").Q
    return basis[:, found.shape[1] :]


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
    positive = factors.ones @ space  # c . positive = 1 is what the bias gradient demands
    start = torch.randn(k, count, generator=generator, device=space.device, dtype=space.dtype)
    # whiten, so that random c give varied patterns rather than those of the strongest direction
    fit = torch.linalg.qr(known)
    c = torch.linalg.solve_triangular(fit.R, start, upper=True)
    vectors = torch.randn(factors.rank, count, generator=generator, device=space.device, dtype=space.dtype)
    for _ in range(1 if k == 1 else _STEPS):
        c = c * torch.where(positive @ c < 0, -1.0, 1.0)
        z = known @ c
        inactive = z <= 0
        vectors = smallest(factors, inactive, vectors)[0][:, :, 0].T
        size = (factors.basis @ vectors).abs()
        rank_of = size.argsort(dim=0).argsort(dim=0)
        active = rank_of >= inactive.sum(dim=0)
        c = torch.linalg.solve_triangular(fit.R, fit.Q.T @ (2.0 * active.to(z.dtype) - 1), upper=True)
    c = c * torch.where(positive @ c < 0, -1.0, 1.0)
    z = known @ c
    found_here = []
    for share in _SHARES:
        inactive = z <= 0
        vectors = smallest(factors, inactive, vectors)[0][:, :, 0].T
        size = torch.where(inactive, (factors.basis @ vectors).abs(), torch.inf)
        order = size.argsort(dim=0).argsort(dim=0)
        rows = order < share * inactive.sum(dim=0)
        found_here.append(smallest(factors, rows, vectors)[0][:, :, 0].T)
    return refine(factors, torch.cat(found_here, dim=1))
