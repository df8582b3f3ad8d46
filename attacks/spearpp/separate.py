"""Whether a direction's support can be the activation pattern of an input in the gradient's row space.

The support of a true column is where `w_j . x + b_j > 0` for an x in the span of the rows of `L^+ dL/dW`, so it is
linearly separable in B unknowns; for m > 4 B the support of an unrelated mixture is not.
"""

from __future__ import annotations

import torch
from torch import Tensor

_STEPS, _RATE = 200, 0.3


def separate(pre_activations: Tensor, zeros: Tensor) -> tuple[Tensor, Tensor]:
    """Fit each support by a linear function of the row space.

    Args:
        pre_activations: F `[m, B]`.
        zeros: `[m, K]` booleans, where the columns are zero.

    Returns:
        The share of neurons on the right side, `[K]`, and the side the fit puts each on, `[m, K]`, True for active.
    """
    whitened = torch.linalg.qr(pre_activations).Q.float() * len(pre_activations) ** 0.5
    transposed = whitened.T.contiguous() / len(whitened)
    target = 1.0 - 2.0 * zeros.float()  # +1 where active
    fit = transposed @ target
    fit /= fit.norm(dim=0).clamp_min(1e-12)
    momentum, second = torch.zeros_like(fit), torch.zeros_like(fit)
    best, share = fit, torch.zeros(zeros.shape[1], device=zeros.device)
    for step in range(1, _STEPS + 1):  # logistic loss by Adam: its margin grows on the rows still misplaced
        margin = target * (whitened @ fit)
        right = (margin > 0).float().mean(dim=0)
        best = torch.where(right > share, fit, best)
        share = torch.maximum(share, right)
        gradient = -transposed @ (target * torch.sigmoid(-margin))
        momentum = 0.9 * momentum + 0.1 * gradient
        second = 0.99 * second + 0.01 * gradient.square()
        rate = _RATE / (1 - 0.9**step) * (1 - 0.99**step) ** 0.5
        fit = fit - rate * momentum / (second.sqrt() + 1e-8)
    return share.double(), whitened @ best > 0
