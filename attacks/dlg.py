"""Deep Leakage from Gradients: squared differences and L-BFGS, labels sought along with the images."""

from __future__ import annotations

from typing import ClassVar

from .optimization import attack
from .optimization.attack import OptimizationAttack


class DLG(OptimizationAttack):
    """Zhu et al.: the squared differences between the gradients, minimised by L-BFGS.

    | setting | published | why it is so here |
    |---|---|---|
    | objective | l2 | the sum of squared differences, here over the observed gradient's |
    | optimizer | lbfgs | torch's, with its defaults: 20 inner iterations a step, memory 100, no line search |
    | step_size | 1.0 | |
    | max_iterations | 300 | |
    | schedule | constant | |
    | gradient_sign | off | |
    | boxed | false | |
    | start | normal | |
    | total_variation | 0.0 | |
    | restarts | 1 | |
    | label_strategy | joint | softmax of free logits, sought along with the images |

    Deviations: labels that are granted are used; the division by the observed gradient's square, and tests of curvature
    relative to the vectors' norms, keep L-BFGS from depending on the loss's scale; the inner loop does not end early at
    torch's absolute tolerances. It needs a smooth network, such as `lenet`, to converge from afar.
    """

    references: ClassVar[tuple[str, ...]] = ("Zhu et al., Deep Leakage from Gradients, NeurIPS 2019, arXiv 1906.08935",)

    objective: attack.Objective = "l2"
    optimizer: attack.OptimizerName = "lbfgs"
    step_size: attack.StepSize = 1.0
    max_iterations: attack.MaxIterations = 300
    schedule: attack.ScheduleName = "constant"
    gradient_sign: attack.Sign = "off"
    boxed: attack.Boxed = False
    start: attack.Start = "normal"
    total_variation: attack.TotalVariation = 0.0
    restarts: attack.Restarts = 1
    label_strategy: attack.LabelStrategy = "joint"
