"""SPEAR++: whole batches, exactly, from the gradient of one linear layer with a ReLU."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from gibench.attack import Attack, Context, Reconstruction
from gibench.observation import Observation

from ..linear_layer import LayerGradient, read_gradient, unsupported
from . import objectives, optimizers
from .assemble import Batch, assemble, rescale
from .certify import certify
from .clock import Clock
from .hunt import Found, Hunt, Search
from .objectives import OBJECTIVES
from .paper import published
from .scales import refine_scales

_SURE = 1e-6  # of the pixel range
_DEFAULTS: dict[optimizers.Name, tuple[int, float]] = {"radam": (100, 1.0), "rgd": (200, 0.3), "rtr": (100, 0.4)}
_PAPER = _DEFAULTS | {"radam": (500, 0.6)}  # gaussian starts have farther to go than those made of rows


class SpearPP(Attack):
    """Recovers every image of a batch from the gradient of the first linear layer, which a ReLU follows.

    The gradient's rank is the batch size B. In the space of its left singular vectors, each image is a direction in
    which the gradient is zero on the neurons that the image leaves inactive: the sparsest directions are found by
    minimising a sparsity objective on the sphere, made exact, tested one by one, and turned into images by least
    squares.

    `preset=paper` is the published recipe alone. `preset=full` adds starts from the gradient's rows, deflated restarts,
    refinement to a stable zero set, the purity and separability tests, the taking apart of mixtures of near-duplicates,
    the search for the last images in the subspace that the others leave, and per-image certificates.

    With `objective=l4` real gradients give nothing (no direction at 64 images and width 1000, by any optimizer): its
    minima are farther from the sparse vectors than either rounding can mend. `huber` and `logcosh` are the absolute
    value with a parabola at zero, and `rtr` takes four to seven times the seconds of `radam` for as many directions.
    """

    references: ClassVar[tuple[str, ...]] = (
        "Bakarsky et al., SPEAR++, 2025, arXiv 2510.24200",
        "Dimitrov et al., SPEAR: Exact Gradient Inversion of Batches in Federated Learning, NeurIPS 2024, "
        "arXiv 2403.03945",
    )

    preset: Literal["full", "paper"] = Field("full", description="everything, or the published recipe alone")
    objective: objectives.Name = Field("l1", description="of sparsity; l4 is maximised")
    optimizer: optimizers.Name = Field(
        "radam", description="Riemannian Adam, (sub)gradient descent (rgd), or trust regions (rtr; not of l1)"
    )
    rounding: Literal["refine", "sample"] | None = Field(
        None,
        description="until the zero set is stable, or by sampled row sets; by default sample for preset=paper only",
    )
    iterations: int | None = Field(
        None,
        ge=1,
        description="of the optimizer in each search; by default 100 (radam, rtr), 200 (rgd), or 500 "
        "(radam with preset=paper)",
    )
    step: float | None = Field(
        None,
        gt=0,
        description="the first one, in radians, decayed to zero along a cosine (rtr: the first radius); by default 1.0 "
        "(radam), 0.3 (rgd), 0.4 (rtr), 0.6 (radam with preset=paper)",
    )
    rounds: int = Field(12, ge=1, description="rounds of search at most")

    @model_validator(mode="after")
    def _smooth(self) -> Self:
        if self.optimizer == "rtr" and OBJECTIVES[self.objective].curvature is None:
            smooth = ", ".join(name for name, each in OBJECTIVES.items() if each.curvature)
            raise ValueError(
                f"optimizer=rtr needs second derivatives, which objective={self.objective} has not: use {smooth}, "
                "or optimizer=radam or rgd"
            )
        return self

    def supports(self, observation: Observation) -> str | None:
        return unsupported(observation)

    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        clock = Clock(context.device)
        context.progress("reading the rank off the singular values", None)
        with clock.stage("svd"):
            gradient = read_gradient(observation, context.generator)
        if gradient is None:
            return _nothing(observation, "the gradient's singular values show no rank gap", clock)
        hunt = Hunt(gradient.in_row_space(), self._search(), context, clock)
        found = published(hunt) if self.preset == "paper" else hunt.run()
        return _reconstruction(observation, gradient, hunt, found, claims=self.preset == "full")

    def _search(self) -> Search:
        """The settings of the search, the defaults that depend on other settings filled in."""
        iterations, step = (_PAPER if self.preset == "paper" else _DEFAULTS)[self.optimizer]
        return Search(
            self.iterations or iterations,
            self.step or step,
            self.rounds,
            self.objective,
            self.optimizer,
            self.rounding or ("sample" if self.preset == "paper" else "refine"),
        )


def _nothing(observation: Observation, finding: str, clock: Clock) -> Reconstruction:
    images = torch.zeros(0, *observation.image_shape, device=observation.mean.device)
    return Reconstruction(images, diagnostics={"finding": finding, "rank": 0, "seconds": clock.seconds})


def _reconstruction(
    observation: Observation, gradient: LayerGradient, hunt: Hunt, found: Found, claims: bool
) -> Reconstruction:
    """The images, certified ones first, then by lambda."""
    with hunt.clock.stage("assemble"):
        batch = assemble(gradient, found.batch.directions)
    if claims and not found.missing:
        with hunt.clock.stage("scales"):
            batch = _rescaled(observation, gradient, batch)
    images = observation.denormalize(batch.inputs.view(-1, *observation.image_shape))
    certified = torch.zeros_like(found.chosen.pure)
    if claims and not found.missing:
        with hunt.clock.stage("certify"):
            certified = certify(hunt.factors, batch, found.chosen.pure, observation.std.to(batch.inputs))
    order = (2.0 * certified + batch.matching).argsort(descending=True, stable=True)
    return Reconstruction(
        images.nan_to_num(0.5, 1, 0)[order],
        certified=certified[order],
        diagnostics=_diagnostics(hunt, found, batch, order),
    )


def _rescaled(observation: Observation, gradient: LayerGradient, batch: Batch) -> Batch:
    """With the scales that all layers agree on best, within what the first layer's bias gradient leaves open."""
    if bool((batch.scale_error * batch.inputs.abs().amax(dim=1) * observation.std.max() < _SURE).all()):
        return batch  # no pixel can change
    refined = refine_scales(observation, batch.inputs, gradient.factors.sigma)
    if refined is None:
        return batch
    open_to = 4 * batch.scale_error
    factor = torch.maximum(torch.minimum(refined[0], 1 + open_to), 1 - open_to)
    return rescale(gradient, batch, factor, refined[1])


def _diagnostics(hunt: Hunt, found: Found, batch: Batch, order: Tensor) -> dict[str, Any]:
    return {
        "rank": hunt.factors.rank,
        "sigma": hunt.factors.sigma,
        "singular_value_gap": hunt.factors.gap,
        "directions_found": hunt.factors.rank - found.missing,
        "directions_pure": int(found.chosen.pure.sum()),
        "sparsity_matching": float(batch.agree.sum() / batch.votes.sum().clamp_min(1)),
        "sparsity_matching_by_image": batch.matching[order].tolist(),
        "predicted_error_by_image": batch.error[order].tolist(),
        "rounds": hunt.rounds,
        "starts": hunt.starts,
        "seconds": dict(hunt.clock.seconds),
    }
