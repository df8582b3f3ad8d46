"""Deep Leakage from Gradients: squared differences and L-BFGS, labels sought along with the images."""

from __future__ import annotations

from typing import ClassVar

from . import attack
from .attack import OptimizationAttack


class DLG(OptimizationAttack):
    """Zhu et al.: the squared differences between the gradients, minimised by L-BFGS.

    | setting | value | published |
    |---|---|---|
    | objective | l2 | the sum of squared differences, here over the observed gradient's |
    | optimizer | lbfgs | torch's, with its defaults: 20 inner iterations a step, memory 100, no line search |
    | step_size | 1.0 | the same |
    | max_iterations | 300 | the same |
    | schedule | constant | the same |
    | gradient_sign | off | the same |
    | boxed | false | the same |
    | start | small | normal, for images in [0, 1] that are not normalised |
    | total_variation | 0.0 | the same |
    | restarts | 1 | the same |
    | label_strategy | joint | softmax of free logits, sought along with the images |

    Deviations: labels that are granted are used; the division by the observed gradient's square, and tests of curvature
    relative to the vectors' norms, keep L-BFGS from depending on the loss's scale; the inner loop does not end early at
    torch's absolute tolerances; no pixel moves by more than one normalised unit a step, without which a run on `lenet`
    may leap into the flat part of a sigmoid and stay there. It needs a smooth network, such as `lenet`, or labels.
    """

    references: ClassVar[tuple[str, ...]] = ("Zhu et al., Deep Leakage from Gradients, NeurIPS 2019, arXiv 1906.08935",)

    objective: attack.Objective = "l2"
    optimizer: attack.OptimizerName = "lbfgs"
    step_size: attack.StepSize = 1.0
    max_iterations: attack.MaxIterations = 300
    schedule: attack.ScheduleName = "constant"
    gradient_sign: attack.Sign = "off"
    boxed: attack.Boxed = False
    start: attack.Start = "small"
    total_variation: attack.TotalVariation = 0.0
    restarts: attack.Restarts = 1
    label_strategy: attack.LabelStrategy = "joint"
