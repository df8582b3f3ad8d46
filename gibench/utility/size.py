"""How many bytes an update takes on the wire, by a plain lossless code that needs to know no defense."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor

_POSITION = 4  # bytes of an index


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """The sum over tensors of the shortest of four codes.

    Values stand as they are or as indices into a table of the different ones; zeros stand as values like others, or
    are left out, and then a bitmap or a list of positions says where the rest belongs.
    """
    return sum(min(_values(each.flatten()), _without_zeros(each.flatten())) for each in tensors)


def _values(entries: Tensor) -> int:
    different = len(entries.unique())  # type: ignore[no-untyped-call]
    bits = max(1, math.ceil(math.log2(max(1, different))))
    indexed = different * entries.element_size() + math.ceil(bits * len(entries) / 8)
    return min(entries.nbytes, indexed)


def _without_zeros(entries: Tensor) -> int:
    kept = entries[entries != 0]
    places = min(math.ceil(len(entries) / 8), _POSITION * len(kept))
    return places + (_values(kept) if len(kept) else 0)
