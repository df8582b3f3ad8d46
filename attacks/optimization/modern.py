"""The strongest general preset of the breaching framework."""

from __future__ import annotations

from typing import ClassVar

from . import attack
from .attack import OptimizationAttack


class Modern(OptimizationAttack):
    """breaching's `modern`: cosine similarity, soft signs, a cosine schedule with warm-up, and colour total variation.

    | setting | value | published |
    |---|---|---|
    | objective | cosine | over all layers jointly |
    | optimizer | adam | the same |
    | step_size | 0.1 | the same |
    | max_iterations | 24000 | the same |
    | schedule | cosine | the same |
    | warmup | 50 | the same |
    | gradient_sign | soft | the same |
    | boxed | true | the same |
    | start | patterned | a random 4 x 4 tile, repeated |
    | total_variation | 0.1 | the same |
    | total_variation_form | double-opponents | the same |
    | features | 0.1 | distance of the last layer's inputs to those its gradient shows for each label |
    | batch_norm | 0.0 | its weight of BatchNorm statistics is zero too; set one where they are granted |
    | restarts | 1 | the same |
    | label_strategy | counts | bias-corrected |

    Deviations: the label strategy, which finds more labels than the published one; the border of the total variation
    and the best iterate, as in `invertinggradients`.
    """

    references: ClassVar[tuple[str, ...]] = (
        "Geiping, breaching: a framework for attacks against privacy in federated learning, 2022, preset `modern`",
        "Geiping et al., Inverting Gradients: How easy is it to break privacy in federated learning?, NeurIPS 2020, "
        "arXiv 2003.14053",
    )

    objective: attack.Objective = "cosine"
    optimizer: attack.OptimizerName = "adam"
    step_size: attack.StepSize = 0.1
    max_iterations: attack.MaxIterations = 24_000
    schedule: attack.ScheduleName = "cosine"
    warmup: attack.Warmup = 50
    gradient_sign: attack.Sign = "soft"
    boxed: attack.Boxed = True
    start: attack.Start = "patterned"
    total_variation: attack.TotalVariation = 0.1
    total_variation_form: attack.TotalVariationForm = "double-opponents"
    features: attack.FeaturesPrior = 0.1
    batch_norm: attack.BatchNormPrior = 0.0
    restarts: attack.Restarts = 1
    label_strategy: attack.LabelStrategy = "counts"
