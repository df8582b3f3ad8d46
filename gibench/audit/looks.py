"""What an update shows by itself: signs alone, levels, dropped entries, weight decay. It decides what is tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_SAME, _SIGNS = 0.01, 0.9  # of one size are values within a hundredth of it, and signs are updates of nearly all such
_MOST_LEVELS = 2**15  # of one sign
_DROPPED = 0.05  # share of zeros, where neither the neuron nor the input is silent, from which on it is pruned
_ROWS, _COLUMNS = 256, 4096  # that are looked at; weight decay is found beside half as many images as rows
_COLLAPSE = 0.1  # what taking weight decay off leaves of the smaller half of the singular values


@dataclass(frozen=True)
class Looks:
    """What is read off without any attack."""

    signs_only: bool
    quantized: bool
    dropped: float  # share of the entries
    decay: float | None  # how many times the weights themselves are in it; None where they are not
    dtype: str
    layer: str  # whose numbers these are
    singular_values: tuple[float, ...]  # of at most `_ROWS` rows and `_COLUMNS` columns of it, the largest first


def look(update: Mapping[str, Tensor], weights: Mapping[str, Tensor], size: int) -> Looks:
    """Read them off the layer that the images enter, or the largest where none does.

    Args:
        update: a gradient or a delta, by name.
        weights: the parameters that the client received.
        size: numbers of an image.
    """
    fed = [name for name, tensor in update.items() if tensor.ndim == 2 and tensor.shape[1] == size]
    name = fed[0] if fed else max(update, key=lambda each: update[each].numel())
    tensor = update[name]
    values = _part(tensor.flatten(1) if tensor.ndim > 1 else tensor[None])
    entered = tensor if fed else next((each for each in update.values() if each.ndim > 1), tensor)  # not by features
    first = _part(entered.flatten(1) if entered.ndim > 1 else entered[None])
    live = first[first.abs().amax(1) > 0][:, first.abs().amax(0) > 0]
    seen = values[values != 0].abs()
    matrix = tensor.ndim == 2
    return Looks(
        signs_only=_of_one_size(seen),
        quantized=tensor.dtype.itemsize > 2 and _in_levels(seen),
        dropped=float((live == 0).double().mean()) if len(live) else 0.0,
        decay=weight_decay(tensor, weights[name]) if matrix else None,
        dtype=str(tensor.dtype).removeprefix("torch."),
        layer=name.removesuffix(".weight"),
        singular_values=tuple(torch.linalg.svdvals(values).tolist()),
    )


def pruned(looks: Looks) -> bool:
    """Whether so many entries are zero that they were dropped."""
    return looks.dropped > _DROPPED


def weight_decay(update: Tensor, weights: Tensor) -> float | None:
    """The number c for which the rank of `update - c * weights` collapses, or None where there is none to speak of.

    Images of a batch leave an update of low rank, so most directions u see the weights alone: `u (update - c W) = 0`.
    So c is the eigenvalue of `update W^+` that most of them share: the median.

    A part of the rows and columns does as well as all.

    Args:
        update, weights: `[m, n]`.
    """
    update, weights = _part(update), _part(weights)
    if update.shape[0] > update.shape[1]:
        update, weights = update.T, weights.T
    share = torch.linalg.solve_ex(weights @ weights.T, weights @ update.T)[0]
    if not bool(torch.isfinite(share).all()):
        return None  # the weights have a lower rank than rows
    found = float(torch.linalg.eigvals(share).real.median())
    return found if _tail(update - found * weights) < _COLLAPSE * _tail(update) else None


def _part(matrix: Tensor) -> Tensor:
    """Rows and columns at even distances, in float64."""
    for dim, most in enumerate((_ROWS, _COLUMNS)):
        size = matrix.shape[dim]
        if size > most:
            matrix = matrix.index_select(dim, torch.linspace(0, size - 1, most).long())
    return matrix.double()


def _tail(matrix: Tensor) -> float:
    """The norm of the smaller half of the singular values."""
    squares = torch.linalg.eigvalsh(matrix @ matrix.T)[: len(matrix) // 2]
    return float(squares.clamp_min(0).sum().sqrt())


def _of_one_size(sizes: Tensor) -> bool:
    if not len(sizes):
        return False
    return bool(((sizes - sizes.median()).abs() < _SAME * sizes.median()).double().mean() > _SIGNS)


def _in_levels(sizes: Tensor) -> bool:
    """Whether they are whole multiples of the least of them, as uniform quantisation leaves them."""
    if not len(sizes):
        return False
    levels = sizes / sizes.min()
    near = (levels - levels.round()).abs() < 1e-3
    return bool(levels.max() < _MOST_LEVELS) and bool(near.all())
