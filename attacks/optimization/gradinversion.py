"""See through Gradients: BatchNorm statistics, a group of restarts that must agree, and noise in the steps."""

from __future__ import annotations

from typing import ClassVar

from . import attack
from .attack import OptimizationAttack


class GradInversion(OptimizationAttack):
    """Yin et al.: distances of gradients layer by layer, with priors of BatchNorm, the group, total variation and size.

    | setting | value | published |
    |---|---|---|
    | objective | l2-per-layer | the sum over layers of the differences' norms, here over the observed one's |
    | optimizer | adam | the same |
    | step_size | 0.1 | the same |
    | max_iterations | 20000 | the same |
    | schedule | cosine | the same |
    | warmup | 50 | the same |
    | gradient_sign | off | the same |
    | langevin | 0.2 | the same; 0.01 in breaching |
    | boxed | true | the same |
    | start | normal | the same |
    | total_variation | 0.05 | 0.0001, of a sum, beside 0.001 of the sum of norms |
    | squares | 0.0001 | 0.000001, of the norm |
    | batch_norm | 0.01 | 0.1, of sums of norms |
    | group | 0.1 | 0.01 in breaching's notes |
    | restarts | 4 | 8 |
    | label_strategy | yin | the same |

    Where BatchNorm's statistics are granted (`--knows bn_statistics`, `=inferred` or `=running`), the inputs of each
    such layer are drawn to them; what is granted decides much, and the paper takes the batch's as known.

    Deviations: the weights, since the sums that they were published for grow with the network and the image, and these
    do not (they were chosen on the tuning split of `digits`); total variation is of absolute differences; the first
    BatchNorm layer counts tenfold, as in breaching and DeepInversion; the group's consensus is registered by
    translation, where the paper deforms images by RANSAC-flow; images of the same label may change places between
    restarts, which is not undone (the paper has no two of a label); all restarts are one group from the first step on;
    the best iterate of the best restart is returned, by the attack's own objective.
    """

    later: ClassVar[frozenset[str]] = frozenset()
    references: ClassVar[tuple[str, ...]] = (
        "Yin et al., See through Gradients: Image Batch Recovery via GradInversion, CVPR 2021, arXiv 2104.07586",
    )

    objective: attack.Objective = "l2-per-layer"
    optimizer: attack.OptimizerName = "adam"
    step_size: attack.StepSize = 0.1
    max_iterations: attack.MaxIterations = 20_000
    schedule: attack.ScheduleName = "cosine"
    warmup: attack.Warmup = 50
    gradient_sign: attack.Sign = "off"
    langevin: attack.Langevin = 0.2
    boxed: attack.Boxed = True
    start: attack.Start = "normal"
    total_variation: attack.TotalVariation = 0.05
    squares: attack.SquaresPrior = 1e-4
    batch_norm: attack.BatchNormPrior = 0.01
    group: attack.GroupPrior = 0.1
    restarts: attack.Restarts = 4
    label_strategy: attack.LabelStrategy = "yin"
