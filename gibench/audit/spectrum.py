"""The singular values of the layer that is read, as a picture: a cliff after the images, or none under noise."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.figure import Figure

_LEAST = 1e-12
_INK, _POINT, _RANK = "#808080", "#3b82f6", "#d97706"  # seen on light paper and on dark


def spectrum(values: Sequence[float], rank: int | None) -> bytes:
    """A PNG without background.

    Args:
        values: the singular values, the largest first; what is zero but for rounding is left out.
        rank: where the cliff was found, if it was.
    """
    figure = Figure(figsize=(6, 2.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    shown = [value for value in values if value > _LEAST * values[0]]
    axes.semilogy(range(1, len(shown) + 1), shown, ".", color=_POINT, markersize=4)
    if rank is not None:
        axes.axvline(rank + 0.5, color=_RANK, linewidth=1)
        axes.annotate(
            f"rank {rank}",
            (rank + 0.5, 1),
            (4, -10),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            color=_RANK,
        )
    axes.set_xlabel("number", color=_INK)
    axes.set_ylabel("singular value", color=_INK)
    axes.tick_params(colors=_INK, which="both")
    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_INK)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True)
    return buffer.getvalue()
