"""Sums over tensors that may be large, in double precision, a block at a time: no copy of the whole is made."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

_BLOCK = 2**20  # numbers


def blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same entries of tensors of one shape, block by block, each flat; contiguous tensors are not copied."""
    yield from zip(*(torch.split(tensor.flatten(), _BLOCK) for tensor in tensors), strict=True)


def norm(tensor: Tensor) -> float:
    """The Euclidean norm of all entries."""
    return math.hypot(*(float(part.double().norm()) for (part,) in blocks(tensor)))


def product(left: Tensor, right: Tensor) -> float:
    """The sum of the products of their entries."""
    return sum(float(one.double() @ other.double()) for one, other in blocks(left, right))


def not_finite(tensor: Tensor) -> int:
    """How many entries are NaN or infinity."""
    return sum(len(part) - int(torch.isfinite(part).sum()) for (part,) in blocks(tensor))
