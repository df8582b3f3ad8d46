"""Surrogate model extension: the gradient at a point between the weights received and those sent is what matches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from gibench.attack import Reconstruction
from gibench.observation import Observation

from . import attack
from .attack import OptimizationAttack
from .descent import Outcome
from .matching import Match, Matching, PlainMatching
from .problem import Problem


@dataclass(frozen=True)
class SurrogateProblem(Problem):
    """A point's last entry, times `unit`, is alpha: how far the surrogate is from the received weights to the sent."""

    delta: Mapping[str, Tensor] = field(default_factory=dict)  # the way from the ones to the others
    unit: float = 1.0

    def alpha(self, points: Tensor) -> Tensor:
        """Of points `[R, D]`: `[R]`."""
        return points[:, -1] * self.unit

    def match(self, points: Tensor, images: Tensor, labels: Tensor) -> Match:
        """At the surrogate's weights."""
        matching, alpha = self.matching, self.alpha(points)
        assert isinstance(matching, PlainMatching)
        surrogate = {
            name: parameter + alpha.view(-1, *[1] * parameter.ndim) * self.delta[name]
            for name, parameter in matching.parameters.items()
        }
        return matching.compare(*matching.gradients_at(surrogate, images, labels))


class SurrogateModelExtension(OptimizationAttack):
    """Zhu et al.: the delta of many local steps is matched by one gradient of all images, at a surrogate model.

    The surrogate lies on the line between the weights that the client received and those that it sent; where on it is
    optimised along with the images. So no local step is simulated, and none need be known: it knows that the client
    trained, and the sum of its steps.

    | setting | value | published |
    |---|---|---|
    | objective | cosine | one minus the cosine over all layers jointly |
    | optimizer | adam | the same |
    | step_size | 1.0 | the same (CIFAR-100, CNN); 0.1 (FEMNIST, ViT) |
    | alpha | 0.5 | the same |
    | alpha_step_size | 0.001 | the same |
    | max_iterations | 1000 | the same |
    | schedule | step | times 0.1 at 3/8, 5/8 and 7/8, of both step sizes |
    | gradient_sign | off | the same |
    | boxed | true | the same; alpha is clamped to [0, 1] in any case |
    | start | normal | the same |
    | total_variation | 0.005 | 0.01 of half the sum of the two directions' means |
    | restarts | 1 | the same |
    | label_strategy | counts | labels are taken as known |

    Published values are those of the authors' code for CIFAR-100. Deviations: the best iterate is returned, where they
    keep the last; labels that are not granted are inferred from the delta; the network is in the mode that the client
    used, where they use eval mode.
    """

    adaptive: ClassVar[bool] = True
    references: ClassVar[tuple[str, ...]] = (
        "Zhu et al., Surrogate Model Extension (SME): A Fast and Accurate Weight Update Attack on Federated Learning, "
        "ICML 2023, arXiv 2306.00127",
    )

    objective: attack.Objective = "cosine"
    optimizer: attack.OptimizerName = "adam"
    step_size: attack.StepSize = 1.0
    max_iterations: attack.MaxIterations = 1000
    schedule: attack.ScheduleName = "step"
    gradient_sign: attack.Sign = "off"
    boxed: attack.Boxed = True
    start: attack.Start = "normal"
    total_variation: attack.TotalVariation = 0.005
    restarts: attack.Restarts = 1
    label_strategy: attack.LabelStrategy = "counts"
    alpha: float = Field(
        0.5, ge=0, le=1, description="where the surrogate starts: 0 the weights received, 1 those sent"
    )
    alpha_step_size: float = Field(0.001, gt=0, description="its first step size")

    def supports(self, observation: Observation) -> str | None:
        if observation.update.kind != "weight_delta":
            return "the update is a gradient, and there is no surrogate between two weights: use invertinggradients"
        return super().supports(observation)

    def _problem(self, observation: Observation) -> tuple[Problem, Tensor | None]:
        problem, inferred = super()._problem(observation)
        given = {each.name: getattr(problem, each.name) for each in fields(problem)}
        return SurrogateProblem(**given, delta=observation.update.tensors, unit=self._unit), inferred

    @property
    def _unit(self) -> float:
        """Adam moves every entry by one step size; alpha's is another."""
        return self.alpha_step_size / self.step_size

    def _matching(self, observation: Observation, gradient: Mapping[str, Tensor], watched: list[str]) -> Matching:
        return PlainMatching(observation.model, gradient, self.objective, watched)

    def _start(self, observation: Observation, problem: Problem, generator: torch.Generator) -> Tensor:
        start = super()._start(observation, problem, generator)
        return torch.cat([start, start.new_full((1, 1), self.alpha / self._unit)], 1)

    def _box(self, observation: Observation, problem: Problem, points: Tensor) -> tuple[Tensor, Tensor]:
        free = torch.full_like(points[0], math.inf)
        low, high = super()._box(observation, problem, points) or (-free, free)
        low[-1], high[-1] = 0.0, 1 / self._unit
        return low, high

    def _reconstruction(
        self, observation: Observation, problem: Problem, outcome: Outcome, inferred: Tensor | None
    ) -> Reconstruction:
        assert isinstance(problem, SurrogateProblem)
        found = super()._reconstruction(observation, problem, outcome, inferred)
        alphas = problem.alpha(outcome.points).tolist()
        return replace(found, diagnostics={**found.diagnostics, "alpha_by_restart": alphas})
