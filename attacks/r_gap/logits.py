"""The loss's derivatives by the logits of one image, where the last layer has no bias whose gradient they are.

The layer's weight gradient is `k x^T` with `k = softmax(W x + b) - e_y`. Up to its length and sign, k is the left
singular vector; the length is what makes both sides agree.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LENGTHS = 4000  # tried, between these powers of ten; k is no longer than the square root of 2
_SHORTEST, _LONGEST = -8.0, 0.16
_STEPS = 30  # of Newton's method from the best of them


def slopes_of_gradient(weight: Tensor, bias: Tensor, gradient: Tensor) -> Tensor:
    """k `[classes]`, in float64.

    Args:
        weight: of the last layer, `[classes, n]`.
        bias: `[classes]`.
        gradient: of the weight.
    """
    left = torch.linalg.svd(gradient, full_matrices=False).U
    lengths = torch.logspace(_SHORTEST, _LONGEST, _LENGTHS, dtype=torch.float64, device=weight.device)
    best, least = torch.zeros_like(bias), torch.inf
    for direction in (left[:, 0], -left[:, 0]):
        logits = weight @ (gradient.T @ direction)  # times the length
        tried = _apart(logits, bias, direction, lengths) / lengths[:, None]  # both sides may go to zero together
        length = _newton(logits, bias, direction, lengths[tried.square().sum(dim=1).argmin()])
        left_over = float(_apart(logits, bias, direction, length[None]).norm() / length)
        if left_over < least:
            best, least = length * direction, left_over
    return best


def _apart(logits: Tensor, bias: Tensor, direction: Tensor, lengths: Tensor) -> Tensor:
    """What both sides differ by at each length, `[L, classes]`; the label is where k is negative."""
    label = torch.nn.functional.one_hot(direction.argmin(), len(direction))
    return (logits / lengths[:, None] + bias).softmax(dim=1) - label - lengths[:, None] * direction


def _newton(logits: Tensor, bias: Tensor, direction: Tensor, length: Tensor) -> Tensor:
    """The length of least difference near the one given, by Gauss and Newton on its logarithm."""
    for _ in range(_STEPS):
        apart = _apart(logits, bias, direction, length[None])[0]
        shares, moved = (logits / length + bias).softmax(dim=0), -logits / length
        slope = shares * (moved - shares @ moved) - length * direction
        length = length * (-(slope @ apart) / (slope @ slope)).clamp(-1, 1).exp()
    return length
