"""SPEAR++: whole batches, exactly, from the gradient of one linear layer with a ReLU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from gibench.attack import Attack, Context, Reconstruction
from gibench.observation import Observation

from ..exact.certify import certify
from ..exact.linear_layer import LayerGradient, read_gradient, without_zeros
from ..exact.recovery import Clock, Found, Recovery
from ..layer_pair.claims import claims as next_claims
from ..layer_pair.free_scales import look_with_free_scales
from ..layer_pair.next_layer import Judged, NextLayer, read_next_layer
from ..layer_pair.rounds import find_images
from ..trunk.attack import images_behind
from ..trunk.network import Behind, behind_trunk
from ..two_valued.backward import head_of, read_backward
from ..two_valued.certificate import certify_two_valued
from ..two_valued.search import search_two_valued
from . import objectives, optimizers
from .objectives import OBJECTIVES
from .paper import published
from .reconstruction import STARTS, from_next_layer, nothing, reconstruction
from .rounds import PARTS, Part, Settings, SparseRecovery

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

    The next linear layer's gradient is asked first, by products alone, as `layer-pair` does: that costs least, and a
    batch found and certified whole is done. Else it finishes what stays uncertified after the search: a direction
    tells a pattern, and the pattern tells the image, whatever else is missing.

    Under noise the batch is then moved to where all layers' gradients are most likely, see `exact/likelihood.py`.

    With one hidden layer the sparsest vectors are differences of images of one class. There `objective=two-valued`,
    which `auto` chooses by itself, uses what the server knows of the rest of the network: see `two_valued/search.py`.

    With `objective=l4` real gradients give next to nothing: its minima are farther from the sparse vectors than either
    rounding can mend. `huber` and `logcosh` are the absolute value with a parabola at zero, and `rtr` takes several
    times the seconds of `radam` for as many directions.

    Behind convolutions, or where the images' own layer cannot be read and a later one can, what is recovered are the
    features that enter the layer, and each image is sought by its own, see `trunk/`.

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
    without: str | None = Field(
        None,
        description="parts left out, joined by /: next-layer (its gradient, first and for what stays uncertified), "
        "deflation (later starts are orthogonal to what is found), purity (mixtures of near-duplicates are told from "
        "true directions; none is certified else), splitting (mixtures are taken apart), last-images (they are looked "
        "for in the subspace that the others leave), certificates (it goes on until every image is certified; else "
        "until lambda is 1)",
    )

    @field_validator("without")
    @classmethod
    def _parts(cls, without: str | None) -> str | None:
        """In their order, each once."""
        if without in (None, "none"):
            return None
        named = without.split("/")
        if unknown := [part for part in named if part not in PARTS]:
            raise ValueError(f"there is no part '{unknown[0]}': leave out {', '.join(PARTS)}, several joined by /")
        return "/".join(part for part in PARTS if part in named)

    @classmethod
    def renamed(cls, settings: Mapping[str, str]) -> Mapping[str, str]:
        """Rows that were stored before `without` was there have a boolean for each part."""
        former = {part.replace("-", "_"): part for part in PARTS}
        if not former.keys() & settings.keys():
            return settings
        without = [part for name, part in former.items() if settings.get(name) == "false"]
        kept = {name: value for name, value in settings.items() if name not in former}
        return {**kept, "without": "/".join(without) or "none"}

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
        behind = None if self.adaptive else behind_trunk(observation, without_zeros)
        if isinstance(behind, str):
            return behind
        return self._applies(observation if behind is None else behind.shown)

    def _applies(self, observation: Observation) -> str | None:
        """Why the first linear layer's gradient tells nothing, or None."""
        if reason := without_zeros(observation):
            return reason
        if self.objective == "two-valued" and self.preset == "paper":
            return "preset=paper is the published recipe, which searches by l1: leave out objective=two-valued"
        if self.objective == "two-valued" and isinstance(head := head_of(observation), str):
            return f"{head}, or ask for objective=l1"
        return None

    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        behind = behind_trunk(observation, without_zeros)
        if isinstance(behind, Behind):
            return images_behind(behind, observation, self._read, context)
        return self._read(observation, context)

    def _read(self, observation: Observation, context: Context) -> Reconstruction:
        """What the first linear layer is fed."""
        clock = Clock(context.device)
        context.progress("reading the rank off the singular values", None)
        with clock.stage("svd"):
            gradient = read_gradient(observation, context.generator)
        if gradient is None:
            return nothing(observation, "the gradient's singular values show no rank gap", clock)
        recovery = SparseRecovery(gradient.in_row_space(), context, clock, settings=self._settings())
        finish = partial(reconstruction, observation, gradient)
        if rounds := self._rounds():
            return self._other(observation, gradient, recovery, rounds)
        claims = None if {"purity", "certificates"} & self._left_out() else certify
        head = head_of(observation)
        if isinstance(head, str) or not self._may_be_two_valued():
            return self._sparse(observation, gradient, recovery, claims)
        backward = read_backward(observation, recovery.gradient, *head)
        iterations, step = _TWO_VALUED
        paired = Recovery(recovery.gradient, context, clock)
        found = search_two_valued(paired, backward, self.iterations or iterations, self.step or step, self.rounds)
        sparse = found.missing and self.objective == "auto" and not context.expired()
        if sparse and (other := recovery.run()).quality > found.quality:
            return finish(recovery, other, claims)  # in a trained network images of one class have their own signals
        return finish(paired, found, partial(certify_two_valued, layer=gradient.layer, backward=backward))

    def _other(
        self,
        observation: Observation,
        gradient: LayerGradient,
        recovery: SparseRecovery,
        rounds: Callable[[SparseRecovery], Found],
    ) -> Reconstruction:
        """By products on the next layer's equations, then by rounds in place of ours; the published recipe is alone."""
        finish = partial(reconstruction, observation, gradient, recovery)
        asked = None if self.preset == "paper" else self._ask_next_layer(observation, gradient, recovery)
        if asked is None:
            return finish(rounds(recovery), None)
        following, found, errors, sure = asked
        if int(found.solved.sum()) == recovery.factors.rank:
            return from_next_layer(observation, recovery, found, errors, sure)
        part = finish(rounds(recovery), None, following, found.points)
        nothing_sure = torch.zeros(len(part.images), dtype=torch.bool, device=recovery.context.device)
        return replace(part, certified=nothing_sure)  # zeros alone account for no image

    def _sparse(
        self,
        observation: Observation,
        gradient: LayerGradient,
        recovery: SparseRecovery,
        claims: Callable[..., Tensor] | None,
    ) -> Reconstruction:
        """By products on the next layer's equations, which are cheap; then by sparse columns, if that is not enough."""
        finish = partial(reconstruction, observation, gradient, recovery)
        asked = self._ask_next_layer(observation, gradient, recovery) if claims else None
        if asked is None:
            return finish(recovery.run(), claims)
        following, found, errors, sure = asked
        if int(sure.sum()) == recovery.factors.rank or (recovery.context.expired() and bool(found.solved.any())):
            return from_next_layer(observation, recovery, found, errors, sure)
        recovery.settings = replace(recovery.settings, rounds=min(self.rounds, _ALONE))
        return finish(recovery.run(), claims, following, found.points)

    def _ask_next_layer(
        self, observation: Observation, gradient: LayerGradient, recovery: SparseRecovery
    ) -> tuple[NextLayer, Judged, Tensor, Tensor] | None:
        """Its equations, images by products, their predicted errors and certificates; None where it cannot be asked."""
        if not recovery.settings.has("next-layer"):
            return None
        with recovery.clock.stage("next layer"):
            following = read_next_layer(observation, gradient, recovery.context.generator)
            if isinstance(following, str):
                return None
            found = find_images(following, following.triangle[:, :0], 0, STARTS, recovery.context)
            following, found = look_with_free_scales(following, found, 0, STARTS, recovery.context)
            sure, errors, _ = next_claims(observation, gradient, following, found, recovery.context.expired)
        return following, found, errors, sure

    def _rounds(self) -> Callable[[SparseRecovery], Found] | None:
        """The rounds of search that take the place of all of ours and certify nothing."""
        return published if self.preset == "paper" else None

    def _may_be_two_valued(self) -> bool:
        by_itself = self.objective == "auto" and self.optimizer == "radam" and self.rounding != "sample"
        return by_itself or self.objective == "two-valued"

    def _sparsity(self) -> objectives.Name:
        return "l1" if self.objective == "auto" or self.objective == "two-valued" else self.objective  # noqa: PLR1714

    def _left_out(self) -> frozenset[Part]:
        return frozenset(part for part in PARTS if self.without and part in self.without.split("/"))

    def _settings(self) -> Settings:
        """The settings of the search, the defaults that depend on other settings filled in."""
        iterations, step = (_PAPER if self.preset == "paper" else _DEFAULTS)[self.optimizer]
        return Settings(
            self.iterations or iterations,
            self.step or step,
            self.rounds,
            self._sparsity(),
            self.optimizer,
            self.rounding or ("sample" if self.preset == "paper" else "refine"),
            self._left_out(),
        )
