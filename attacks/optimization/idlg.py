"""Improved Deep Leakage from Gradients: DLG with labels read off the last layer's gradient."""

from __future__ import annotations

from typing import ClassVar

from . import attack
from .dlg import DLG


class IDLG(DLG):
    """Zhao et al.: DLG, with the label known from the sign of the last layer's gradient.

    | setting | value | published |
    |---|---|---|
    | objective | l2 | as `dlg` |
    | optimizer | lbfgs | as `dlg` |
    | step_size | 1.0 | the same |
    | max_iterations | 300 | the same |
    | schedule | constant | the same |
    | boxed | false | the same |
    | start | small | as `dlg` |
    | restarts | 1 | the same |
    | label_strategy | idlg | one label; for more than one image, the analytic rule |

    Deviations: those of `dlg`, and the rule for more than one image, for which the paper has none.
    """

    references: ClassVar[tuple[str, ...]] = (
        "Zhao et al., iDLG: Improved Deep Leakage from Gradients, 2020, arXiv 2001.02610",
    )

    label_strategy: attack.LabelStrategy = "idlg"
