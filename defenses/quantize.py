"""Quantisation: the update's entries are rounded to a few levels, a scale for each tensor."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from gibench.defense import Defense, DefenseContext, Guarantee
from gibench.observation import Update


class Quantize(Defense):
    """Round every entry to the nearest of 2^bits - 1 evenly spaced levels, or send its sign (bits=1).

    The levels of a tensor go from minus to plus its largest magnitude, with zero in the middle. With one bit the sign
    is sent, times the mean magnitude of the entries that are not zero; zero stays zero, so that pruned entries are.
    The server sees the levels, hence each tensor's scale.
    """

    references = (
        "Bernstein et al., signSGD, ICML 2018, arXiv 1802.04434",
        "Karimireddy et al., Error Feedback Fixes SignSGD, ICML 2019, arXiv 1901.09847 (the scale of the sign)",
    )

    bits: int = Field(8, ge=1, le=16, description="of an entry; 1 sends the sign")

    def release(self, update: Update, context: DefenseContext) -> Update:
        rounded = _signs if self.bits == 1 else self._rounded
        return Update({name: rounded(value) for name, value in update.tensors.items()}, update.kind)

    def guarantee(self, context: DefenseContext) -> Guarantee:
        return Guarantee(costs={"bits_an_entry": self.bits})

    def _rounded(self, value: Tensor) -> Tensor:
        interval = value.abs().max() / (2 ** (self.bits - 1) - 1)
        return (value / interval).round() * interval if interval > 0 else value.clone()


def _signs(value: Tensor) -> Tensor:
    return value.sign() * (value.abs().sum() / value.count_nonzero().clamp(min=1))
