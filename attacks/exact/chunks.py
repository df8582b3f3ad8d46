"""How much is worked on at once where copies of many candidates would not fit the memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch

_CPU = 2**24  # bytes: freed memory of this size is used again, where larger pieces are new pages each time
_ACCELERATOR = 2**28  # bytes, which keep it busy


def chunks(count: int, bytes_each: int, device: torch.device) -> Iterator[slice]:
    """Slices that cover `count` candidates, of as many at once as fit the memory: one at least, empty if need be."""
    at_once = max(1, (_CPU if device.type == "cpu" else _ACCELERATOR) // max(bytes_each, 1))
    for first in range(0, max(count, 1), at_once):
        yield slice(first, min(first + at_once, count))
