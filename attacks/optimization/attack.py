"""The attack that the published ones are presets of: its settings, and how they become a problem and a descent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from gibench.attack import Attack, Context, Reconstruction, lacking
from gibench.observation import Observation

from . import class_counts, consensus, labels, matching, objectives, optimizers, priors, starts
from .descent import Outcome, descend
from .matching import Matching
from .problem import Prior, Problem

INNER = 20  # iterations that one step of L-BFGS counts for, as torch.optim.LBFGS does by default

# One description a setting, for the presets to choose defaults under.
Objective = Annotated[objectives.Name, Field(description="distance between gradients")]
OptimizerName = Annotated[Literal["adam", "lbfgs"], Field(description="how candidates move")]
StepSize = Annotated[float, Field(gt=0, description="its first step size")]
MaxIterations = Annotated[
    int, Field(ge=1, description=f"steps; a step of lbfgs is {INNER} evaluations, one of adam is one")
]
ScheduleName = Annotated[
    optimizers.Schedule, Field(description="of the step size: constant, x0.1 at 3/8, 5/8, 7/8, or a cosine to zero")
]
Warmup = Annotated[int, Field(ge=0, description="first iterations, over which the step size rises from zero")]
Sign = Annotated[optimizers.GradientSign, Field(description="of the slope that adam is given, entry by entry")]
Boxed = Annotated[bool, Field(description="whether pixels are clamped to [0, 1] after each step")]
Start = Annotated[starts.Start, Field(description="first images, in normalised units")]
TotalVariation = Annotated[float, Field(ge=0, description="weight of the total variation")]
TotalVariationForm = Annotated[
    priors.TotalVariationForm, Field(description="absolute differences, or isotropic with the channels' differences")
]
SquaresPrior = Annotated[float, Field(ge=0, description="weight of half the mean square of the normalised images")]
BatchNormPrior = Annotated[
    float, Field(ge=0, description="weight of the distance to granted BatchNorm statistics; nothing without them")
]
FeaturesPrior = Annotated[
    float, Field(ge=0, description="weight of the distance to the last layer's inputs as its gradient shows them")
]
GroupPrior = Annotated[
    float, Field(ge=0, description="weight of the distance to what all restarts agree on; nothing with one of them")
]
Langevin = Annotated[float, Field(ge=0, description="normal noise on each step of all pixels, in units of its size")]
Restarts = Annotated[int, Field(ge=1, description="starts, run as one batch; the lowest objective wins")]
LabelStrategy = Annotated[
    Literal["counts", "bias-corrected", "wainakh", "analytic", "idlg", "yin", "joint"],
    Field(description="how labels that are not granted are inferred, or joint: sought along with the images"),
]


class OptimizationAttack(Attack):
    """Moves candidate images, and labels if need be, until their gradient is the observed one.

    Labels are those granted, else inferred by `label_strategy` and returned with the images. Of all iterates and
    restarts the one with the lowest objective is returned. A restart whose objective stops being finite is given up;
    when all are, the attack has `diverged`.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"batch_size"})
    later: ClassVar[frozenset[str]] = frozenset({"langevin", "group"})

    objective: Objective = "l2"
    optimizer: OptimizerName = "adam"
    step_size: StepSize = 0.1
    max_iterations: MaxIterations = 1000
    schedule: ScheduleName = "constant"
    warmup: Warmup = 0
    gradient_sign: Sign = "off"
    boxed: Boxed = False
    start: Start = "normal"
    total_variation: TotalVariation = 0.0
    total_variation_form: TotalVariationForm = "plain"
    squares: SquaresPrior = 0.0
    batch_norm: BatchNormPrior = 0.0
    features: FeaturesPrior = 0.0
    group: GroupPrior = 0.0
    langevin: Langevin = 0.0
    restarts: Restarts = 1
    label_strategy: LabelStrategy = "counts"

    @property
    def budget(self) -> str:
        starts = f" from each of {self.restarts} starts" if self.restarts > 1 else ""
        return f"{self.max_iterations:,} iterations{starts}"

    def supports(self, observation: Observation) -> str | None:
        if not observation.update.tensors:
            return lacking(observation, [name for name, _ in observation.model.named_parameters()])
        if self.objective in ("l1", "l2", "l2-per-layer") and not observation.scale_known:
            return f"objective={self.objective} needs the gradient's scale: grant local_hyperparameters, or use cosine"
        named = labels.output_layer(observation.model, observation.num_classes, observation.image_shape)
        inferred = observation.labels is None and self.label_strategy != "joint"
        if named is None and (inferred or self.features):
            return (
                f"labels and features are read off a last linear layer with a bias and {observation.num_classes} "
                "outputs, which this model has not: grant labels, and set features=0"
            )
        read = [f"{named}.weight", f"{named}.bias"] if inferred or self.features else []
        if reason := lacking(observation, read):
            return f"labels and features are read off the last layer, and {reason}: grant labels, and set features=0"
        return _not_twice_differentiable(observation.in_single(), self.objective)

    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        observation = observation.in_single()
        problem, inferred = self._problem(observation)
        points = torch.cat([self._start(observation, problem, context.generator) for _ in range(self.restarts)])
        iterations = self.max_iterations * (INNER if self.optimizer == "lbfgs" else 1)
        outcome = descend(
            problem,
            points,
            self._optimizer(points, context.generator),
            iterations,
            lambda i: optimizers.step_size(self.step_size, self.schedule, self.warmup, i, iterations),
            lambda slope, i: optimizers.signed(slope, self.gradient_sign, 1 - i / iterations),
            self._box(observation, problem, points),
            context,
        )
        return self._reconstruction(observation, problem, outcome, inferred)

    def _optimizer(self, points: Tensor, generator: torch.Generator) -> optimizers.Optimizer:
        plain = optimizers.LBFGS(points) if self.optimizer == "lbfgs" else optimizers.Adam(points)
        return optimizers.Langevin(plain, self.langevin, generator) if self.langevin else plain

    def _start(self, observation: Observation, problem: Problem, generator: torch.Generator) -> Tensor:
        """One restart's first point `[1, D]`: all it draws comes before the next restart's."""
        dtype = next(observation.model.parameters()).dtype
        images = starts.draw(self.start, problem.shape, generator, dtype).flatten()[None]
        if problem.labels is not None:
            return images
        shape = (1, problem.shape[0] * observation.num_classes)
        return torch.cat([images, torch.randn(shape, generator=generator, device=images.device, dtype=dtype)], 1)

    def _box(self, observation: Observation, problem: Problem, points: Tensor) -> tuple[Tensor, Tensor] | None:
        """The lowest and highest point `[D]` if there are any: pixels in [0, 1], the rest anything."""
        if not self.boxed:
            return None
        grey = torch.zeros(problem.shape, device=points.device, dtype=points.dtype)
        sides = []
        for pixel, free in ((0.0, -torch.inf), (1.0, torch.inf)):
            side = points.new_full(points.shape[1:], free)
            side[: grey.numel()] = observation.normalize(grey + pixel).flatten()
            sides.append(side)
        return sides[0], sides[1]

    def _reconstruction(
        self, observation: Observation, problem: Problem, outcome: Outcome, inferred: Tensor | None
    ) -> Reconstruction:
        winner = int(outcome.values.argmin())
        images = observation.denormalize(problem.images(outcome.points)[winner]).clamp(0, 1)
        if problem.labels is None:
            inferred = problem.logits(outcome.points)[winner].argmax(1)
        diverged = not bool(outcome.values.isfinite().any())
        return Reconstruction(
            images.nan_to_num(0.5),
            labels=inferred,
            diagnostics={
                "objective": outcome.values[winner].item(),
                "objective_by_restart": outcome.values.tolist(),
                "iterations": outcome.iterations,
                "restarts_diverged": int((~outcome.values.isfinite()).sum()),
            },
            status="diverged" if diverged else "ok",
            reason="the objective left the finite numbers in every restart" if diverged else "",
        )

    def _problem(self, observation: Observation) -> tuple[Problem, Tensor | None]:
        """The problem, and the labels if they were inferred."""
        assert observation.batch_size is not None  # granted: it is in `requires`
        gradient = observation.gradient()
        layer = labels.output_layer(observation.model, observation.num_classes, observation.image_shape)
        known, inferred = observation.labels, None
        if known is None and self.label_strategy != "joint":
            assert layer is not None  # `supports` has found it
            general = class_counts.Reference.of(observation, layer) if self.label_strategy == "counts" else None
            known = inferred = labels.infer(self.label_strategy, gradient, layer, observation.batch_size, general)
        watched, weighted = self._priors(observation, gradient, layer, known)
        match = self._matching(observation, gradient, watched)
        shape = (observation.batch_size, *observation.image_shape)
        return Problem(match, shape, known, observation.num_classes, weighted), inferred

    def _matching(self, observation: Observation, gradient: Mapping[str, Tensor], watched: list[str]) -> Matching:
        """What candidates are compared with the gradient by; `watched` as for `Matching`."""
        return matching.make(observation.model, gradient, self.objective, watched)

    def _priors(
        self, observation: Observation, gradient: Mapping[str, Tensor], layer: str | None, known: Tensor | None
    ) -> tuple[list[str], list[tuple[float, Prior]]]:
        """The layers whose inputs the priors need, and the priors with their weights."""
        form = (
            priors.color_total_variation if self.total_variation_form == "double-opponents" else priors.total_variation
        )
        weighted: list[tuple[float, Prior]] = [
            (self.total_variation, lambda images, _: form(images)),
            (self.squares, lambda images, _: priors.squares(images)),
            (self.group if self.restarts > 1 else 0.0, lambda images, _: consensus.group_consistency(images)),
        ]
        watched: list[str] = []
        granted = observation.bn_statistics
        if granted and self.batch_norm:
            norms = [name for name, _ in observation.model.named_modules() if f"{name}.mean" in granted]
            watched += norms
            weighted.append(
                (
                    self.batch_norm,
                    lambda _, seen: priors.batch_statistics({name: seen[name] for name in norms}, granted),
                )
            )
        if self.features and layer is not None and known is not None:
            measured = priors.measured_features(gradient[f"{layer}.weight"], gradient[f"{layer}.bias"], known)
            watched.append(layer)
            weighted.append((self.features, lambda _, seen: priors.features(seen[layer], measured)))
        return watched, [(weight, prior) for weight, prior in weighted if weight]


def _not_twice_differentiable(observation: Observation, objective: objectives.Name) -> str | None:
    """Why the model cannot be differentiated twice, tried on two grey images, or None."""
    images = observation.mean.new_zeros(1, 2, *observation.image_shape).to(next(observation.model.parameters()))
    images.requires_grad_()
    try:
        match = matching.make(observation.model, observation.gradient(), objective)
        found = match(images, torch.zeros(1, 2, dtype=torch.long, device=images.device))
        torch.autograd.backward(found.outputs, found.weights)  # meets every part, where autograd.grad passes some over
    except RuntimeError as error:  # what torch raises names the operation
        return f"the model cannot be differentiated twice, as gradient matching needs: {str(error).splitlines()[0]}"
    if images.grad is None:
        return "the gradient says nothing of the images: what the model makes of them is detached from its parameters"
    return None
