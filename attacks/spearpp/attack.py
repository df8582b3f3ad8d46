"""SPEAR++: whole batches, exactly, from the gradient of one linear layer with a ReLU."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from gibench.attack import Attack, Context, Reconstruction
from gibench.observation import Observation

from ..linear_layer import read_gradient, unsupported
from .assemble import Batch, rescale
from .certify import certify
from .clock import Clock
from .hunt import Found, Hunt, Search
from .paper import published
from .scales import refine_scales


class SpearPP(Attack):
    """Recovers every image of a batch from the gradient of the first linear layer, which a ReLU follows.

    The gradient's rank is the batch size B. In the space of its left singular vectors, each image is a direction in
    which the gradient is zero on the neurons that the image leaves inactive: the sparsest directions are found by
    minimising the l1 norm on the sphere, made exact, tested one by one, and turned into images by least squares.

    `preset=paper` is the published recipe alone. `preset=full` adds deflated restarts, refinement to a stable zero
    set, the purity and separability tests, the taking apart of mixtures of near-duplicates, the search for the last
    images in the subspace that the others leave, and per-image certificates.
    """

    references: ClassVar[tuple[str, ...]] = (
        "Bakarsky et al., SPEAR++, 2025, arXiv 2510.24200",
        "Dimitrov et al., SPEAR: Exact Gradient Inversion of Batches in Federated Learning, NeurIPS 2024, "
        "arXiv 2403.03945",
    )

    preset: Literal["full", "paper"] = Field("full", description="everything, or the published recipe alone")
    iterations: int = Field(500, ge=1, description="steps of Riemannian Adam in each search")
    step: float = Field(0.6, gt=0, description="its first step, decayed to zero along a cosine")
    rounds: int = Field(12, ge=1, description="rounds of search at most")

    def supports(self, observation: Observation) -> str | None:
        return unsupported(observation)

    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        clock = Clock(context.device)
        context.progress("reading the rank off the singular values", None)
        with clock.stage("svd"):
            gradient = read_gradient(observation, context.generator)
        if gradient is None:
            return _nothing(observation, "the gradient's singular values show no rank gap", clock)
        search = Search(self.iterations, self.step, self.rounds)
        hunt = Hunt(gradient.factors, gradient.layer, gradient.weight, gradient.bias, search, context, clock)
        found = published(hunt) if self.preset == "paper" else hunt.run()
        return _reconstruction(observation, hunt, found, claims=self.preset == "full")


def _nothing(observation: Observation, finding: str, clock: Clock) -> Reconstruction:
    images = torch.zeros(0, *observation.image_shape, device=observation.mean.device)
    return Reconstruction(images, diagnostics={"finding": finding, "rank": 0, "seconds": clock.seconds})


def _reconstruction(observation: Observation, hunt: Hunt, found: Found, claims: bool) -> Reconstruction:
    """The images, certified ones first, then by lambda."""
    batch = found.batch
    if claims:
        with hunt.clock.stage("scales"):
            batch = _rescaled(observation, hunt, batch)
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


def _rescaled(observation: Observation, hunt: Hunt, batch: Batch) -> Batch:
    """With the scales that all layers agree on best, within what the first layer's bias gradient leaves open."""
    refined = refine_scales(observation, batch.inputs, hunt.factors.sigma)
    if refined is None:
        return batch
    open_to = 4 * batch.scale_error
    factor = torch.maximum(torch.minimum(refined[0], 1 + open_to), 1 - open_to)
    error = torch.where(factor == refined[0], refined[1], open_to)  # where they contradict each other, neither is sure
    return rescale(hunt.factors, hunt.layer, batch, factor, error)


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
