"""SPEAR++: whole batches, exactly, from the gradient of one linear layer with a ReLU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from gibench.attack import Attack, Context, Reconstruction
from gibench.observation import Observation

from ..layers import next_linear
from ..linear_layer import LayerGradient, read_gradient, unsupported
from ..next_layer import read_next_layer
from ..witness import read_second, unaccounted
from . import objectives, optimizers
from .assemble import Batch, assemble, rescale
from .backward import head_of, read_backward
from .certify import certify, confirmed
from .clock import Clock
from .complete import complete
from .echo import certify_two_valued
from .hunt import Found, Hunt, Search
from .objectives import OBJECTIVES
from .paper import published
from .scales import refine_scales
from .two_valued import hunt_two_valued

_SURE = 1e-6  # of the pixel range
_UNCONFIRMED = "no gradient of the linear layer after the first ReLU confirms the scales of these images"
_DEFAULTS: dict[optimizers.Name, tuple[int, float]] = {"radam": (100, 1.0), "rgd": (200, 0.3), "rtr": (100, 0.4)}
_PAPER = _DEFAULTS | {"radam": (500, 0.6)}  # gaussian starts have farther to go than those made of rows
_TWO_VALUED = 500, 0.6
_ALONE = 6  # rounds of the search before the next layer is asked


class SpearPP(Attack):
    """Recovers every image of a batch from the gradient of the first linear layer, which a ReLU follows.

    The gradient's rank is the batch size B. In the space of its left singular vectors, each image is a direction in
    which the gradient is zero on the neurons that the image leaves inactive: the sparsest directions are found by
    minimising a sparsity objective on the sphere, made exact, tested one by one, and turned into images by least
    squares.

    `preset=paper` is the published recipe alone. `preset=full` adds starts from the gradient's rows, deflated restarts,
    refinement to a stable zero set, the purity and separability tests, the taking apart of mixtures of near-duplicates,
    the search for the last images in the subspace that the others leave, and per-image certificates.

    Where images stay uncertified after that, `next_layer` lets the next linear layer's gradient finish the batch, as
    `layer-pair` does alone: a direction tells a pattern, and the pattern tells the image, whatever else is missing.

    With one hidden layer the sparsest vectors are differences of images of one class. There `objective=two-valued`,
    which `auto` chooses by itself, uses what the server knows of the rest of the network: see `two_valued.py`.

    With `objective=l4` real gradients give next to nothing: its minima are farther from the sparse vectors than either
    rounding can mend. `huber` and `logcosh` are the absolute value with a parabola at zero, and `rtr` takes several
    times the seconds of `radam` for as many directions.

    In trained networks sparsity fails twice. In the first training steps activation patterns align: few rows are zero
    for an image but active for its nearest one, so that some directions are not determined by their zeros; there the
    next layer knows the images still. Late, well-classified images send back almost nothing: columns differ by orders
    of magnitude in norm, and what lies below float32 rounding is gone for both.
    """

    references: ClassVar[tuple[str, ...]] = (
        "Bakarsky et al., SPEAR++, 2025, arXiv 2510.24200",
        "Dimitrov et al., SPEAR: Exact Gradient Inversion of Batches in Federated Learning, NeurIPS 2024, "
        "arXiv 2403.03945",
        "certificates before these: Diana et al., No More Guessing: a Verifiable Gradient Inversion Attack in "
        "Federated Learning, 2026, arXiv 2604.15063",
    )

    preset: Literal["full", "paper"] = Field("full", description="everything, or the published recipe alone")
    objective: Literal["auto", "l1", "l4", "huber", "logcosh", "two-valued"] = Field(
        "auto", description="of the search; auto is two-valued with one hidden layer, then l1; l4 is maximised"
    )
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
        "(radam with preset=paper or two-valued)",
    )
    step: float | None = Field(
        None,
        gt=0,
        description="the first one, in radians, decayed to zero along a cosine (rtr: the first radius); by default 1.0 "
        "(radam), 0.3 (rgd), 0.4 (rtr), 0.6 (radam with preset=paper or two-valued)",
    )
    rounds: int = Field(12, ge=1, description="rounds of search at most, 6 of them where the next layer is asked")
    deflation: bool = Field(True, description="later starts are orthogonal to what is found")
    purity: bool = Field(True, description="tell mixtures of near-duplicates from true directions; none certified else")
    splitting: bool = Field(True, description="take mixtures of near-duplicates apart")
    last_images: bool = Field(True, description="look for the last images in the subspace that the others leave")
    next_layer: bool = Field(
        True, description="where directions are missing or uncertified, use the next linear layer's gradient too"
    )
    certificates: bool = Field(True, description="go on until every image is certified; else until lambda is 1")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.objective == "two-valued" and (self.optimizer != "radam" or self.rounding == "sample"):
            raise ValueError("objective=two-valued has an optimizer and a rounding of its own: leave these out")
        if self.optimizer == "rtr" and OBJECTIVES[self._sparsity()].curvature is None:
            smooth = ", ".join(name for name, each in OBJECTIVES.items() if each.curvature)
            raise ValueError(
                f"optimizer=rtr needs second derivatives, which objective={self.objective} has not: use {smooth}, "
                "or optimizer=radam or rgd"
            )
        return self

    @property
    def budget(self) -> str:
        return f"{self.rounds} rounds of search"

    def supports(self, observation: Observation) -> str | None:
        if reason := unsupported(observation):
            return reason
        if self.objective == "two-valued" and self.preset == "paper":
            return "preset=paper is the published recipe, which searches by l1: leave out objective=two-valued"
        if self.objective == "two-valued" and isinstance(head := head_of(observation), str):
            return f"{head}, or ask for objective=l1"
        return None

    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        clock = Clock(context.device)
        context.progress("reading the rank off the singular values", None)
        with clock.stage("svd"):
            gradient = read_gradient(observation, context.generator)
        if gradient is None:
            return _nothing(observation, "the gradient's singular values show no rank gap", clock)
        hunt = Hunt(gradient.in_row_space(), self._search(), context, clock)
        finish = partial(_reconstruction, observation, gradient)
        if rounds := self._rounds():
            return finish(hunt, rounds(hunt), None)
        claims = certify if self.purity and self.certificates else None
        head = head_of(observation)
        if isinstance(head, str) or not self._may_be_two_valued():
            asks = self.next_layer and claims is not None and _has_next_layer(observation, gradient)
            if asks:
                hunt.search = replace(hunt.search, rounds=min(self.rounds, _ALONE))
            return finish(hunt, hunt.run(), claims, asks)
        backward = read_backward(observation, hunt.gradient, *head)
        iterations, step = _TWO_VALUED
        two_valued = replace(hunt.search, iterations=self.iterations or iterations, step=self.step or step)
        paired = replace(hunt, search=two_valued)
        found = hunt_two_valued(paired, backward)
        sparse = found.missing and self.objective == "auto" and not context.expired()
        if sparse and (other := hunt.run()).merit > found.merit:
            return finish(hunt, other, claims)  # in a trained network images of one class have signals of their own
        return finish(paired, found, partial(certify_two_valued, layer=gradient.layer, backward=backward))

    def _rounds(self) -> Callable[[Hunt], Found] | None:
        """The rounds of search that take the place of all of ours and certify nothing."""
        return published if self.preset == "paper" else None

    def _may_be_two_valued(self) -> bool:
        by_itself = self.objective == "auto" and self.optimizer == "radam" and self.rounding != "sample"
        return by_itself or self.objective == "two-valued"

    def _sparsity(self) -> objectives.Name:
        return "l1" if self.objective == "auto" or self.objective == "two-valued" else self.objective  # noqa: PLR1714

    def _search(self) -> Search:
        """The settings of the search, the defaults that depend on other settings filled in."""
        iterations, step = (_PAPER if self.preset == "paper" else _DEFAULTS)[self.optimizer]
        return Search(
            self.iterations or iterations,
            self.step or step,
            self.rounds,
            self._sparsity(),
            self.optimizer,
            self.rounding or ("sample" if self.preset == "paper" else "refine"),
            self.deflation,
            self.purity,
            self.splitting,
            self.last_images,
            self.certificates,
        )


def _has_next_layer(observation: Observation, gradient: LayerGradient) -> bool:
    name = next_linear(observation.model, gradient.layer)
    return name is not None and f"{name}.weight" in observation.update.tensors


def _nothing(observation: Observation, finding: str, clock: Clock) -> Reconstruction:
    images = torch.zeros(0, *observation.image_shape, device=observation.mean.device)
    return Reconstruction(images, diagnostics={"finding": finding, "rank": 0, "seconds": clock.seconds})


def _reconstruction(
    observation: Observation,
    gradient: LayerGradient,
    hunt: Hunt,
    found: Found,
    claims: Callable[..., Tensor] | None,
    completed: bool = False,
) -> Reconstruction:
    """The images, certified ones first, then by lambda; `completed` by the next layer where they are not certified."""
    with hunt.clock.stage("assemble"):
        batch = assemble(gradient, found.batch.directions)
    second, scales = None, None
    if claims is not None and not found.missing:
        with hunt.clock.stage("scales"):
            second = read_second(observation, gradient, hunt.context.generator)
            confirmed_batch, scales = confirmed(gradient, second, batch)
            batch = _rescaled(observation, gradient, batch) if confirmed_batch is batch else confirmed_batch
    pixel_scale = observation.std.to(batch.inputs)
    certified = torch.zeros_like(found.chosen.pure)
    if scales is not None and claims is not None:
        with hunt.clock.stage("certify"):
            certified = claims(hunt.factors, batch, found.chosen.pure, pixel_scale) & scales.sharp
    inputs, error, solved = batch.inputs, batch.error, hunt.factors.rank - found.missing
    if completed and not bool(certified.all()):
        with hunt.clock.stage("next layer"):
            following = read_next_layer(observation, gradient, hunt.context.generator)
            if not isinstance(following, str):
                whole = not found.missing
                second = following.second
                inputs, error, certified, others = complete(
                    following, batch, certified, whole, pixel_scale, hunt.context
                )
                solved = max(solved, others)
    withheld = "" if claims is None or found.missing or scales is not None else _UNCONFIRMED
    if bool(certified.any()):
        withheld = unaccounted(observation, gradient, solved, second)
    if withheld:
        certified = torch.zeros_like(certified)
    images = observation.denormalize(inputs.view(-1, *observation.image_shape))
    order = (2.0 * certified + batch.matching).argsort(descending=True, stable=True)
    from_next = int((inputs != batch.inputs).any(dim=1).sum())
    return Reconstruction(
        images.nan_to_num(0.5, 1, 0)[order],
        certified=certified[order],
        diagnostics=_diagnostics(observation, hunt, found, batch, order)
        | {
            "finding": _finding(observation, hunt, found, from_next),
            "withheld": withheld,
            "images_from_next_layer": from_next,
            "predicted_error_by_image": error[order].tolist(),
        },
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
    apart = (refined[0] - factor).abs() + open_to  # where they contradict each other, neither is sure
    error = torch.where(factor == refined[0], refined[1], apart)
    return rescale(gradient, batch, factor, error)


def _diagnostics(observation: Observation, hunt: Hunt, found: Found, batch: Batch, order: Tensor) -> dict[str, Any]:
    return {
        "rank": hunt.factors.rank,
        "sigma": hunt.factors.sigma,
        "singular_value_gap": hunt.factors.gap,
        "directions_found": hunt.factors.rank - found.missing,
        "directions_pure": int(found.chosen.pure.sum()),
        "sparsity_matching": float(batch.agree.sum() / batch.votes.sum().clamp_min(1)),
        "sparsity_matching_by_image": batch.matching[order].tolist(),
        "rounds": hunt.rounds,
        "starts": hunt.starts,
        "seconds": dict(hunt.clock.seconds),
    }


def _finding(observation: Observation, hunt: Hunt, found: Found, from_next: int) -> str:
    """What is known beside the images, in words."""
    rank, missing = hunt.factors.rank, found.missing
    findings = []
    if observation.batch_size is not None and rank < observation.batch_size:
        findings.append(
            f"the gradient has rank {rank}, less than the batch of {observation.batch_size}: images are repeated, or "
            "their part is below the noise; the others can be recovered"
        )
    if missing and from_next:
        others = f", the other {rank - from_next} are estimates" if from_next < rank else ""
        findings.append(
            f"{missing} of {rank} directions are not found: {from_next} images come from the next layer's gradient"
            f"{others}"
        )
    elif missing:
        findings.append(
            f"{missing} of {rank} directions are not found: the missing images lie in the space of dimension {missing} "
            "that is orthogonal to the directions found, and all images are estimates that miss a part of it"
        )
    return "; ".join(findings)
