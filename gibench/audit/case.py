"""What is audited, and what comes of it: the update less its weight decay, the attacks on it, and the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gibench import batch_norm
from gibench.audit import observe
from gibench.audit.attempts import EXPLAINED, Attempt, attempt_all, best, inputs_of, plan, reads_layers
from gibench.audit.causes import cause_of
from gibench.audit.defenses import pointers
from gibench.audit.features import Features
from gibench.audit.looks import Looks, look
from gibench.audit.pixels import as_pixels, check_pixels
from gibench.audit.protocol import Protocol
from gibench.audit.report import AuditReport, refused, verdict_of
from gibench.head import find_head
from gibench.observation import Observation

_SMOOTHED = 5e-3  # of label smoothing that is reported


@dataclass(frozen=True)
class _Tried:
    """What came of the update taken for a gradient, or else for a delta."""

    gradient: bool
    observation: Observation
    attempts: Sequence[Attempt]
    features: Features | None = None

    @property
    def top(self) -> Attempt | None:
        return best(self.attempts)

    @property
    def share(self) -> float:
        """What the best candidates leave of the update."""
        return self.top.share if self.top else float("inf")

    @property
    def sure(self) -> bool:
        """Whether the candidates, or their features, explain the update, and their labels bear its sign out."""
        tops = (self.top, self.features.top if self.features else None)
        seen = [each.residual for each in tops if each and each.residual]
        return any(each.share < EXPLAINED and bool(each.gradient_sign) for each in seen)


class Case:
    """What is audited: the update less what was told of weight decay, and what it looks like."""

    def __init__(
        self,
        model: nn.Module,
        sent: Mapping[str, Tensor],
        protocol: Protocol,
        classes: int,
        received: bool,
        buffers: Mapping[str, Tensor],
    ) -> None:
        self.model, self.protocol, self.classes = model, protocol, classes
        weights = observe.weights_of(model)
        self.kind = observe.kind_of(sent, weights, protocol, received)
        update = observe.delta(sent, weights) if self.kind == "weights" else dict(sent)
        self.buffers = observe.delta(buffers, dict(model.named_buffers())) if self.kind == "weights" else buffers
        self.assumed = [
            "the weights are those of the round, as told"
            if received
            else "the weights are those that the factory makes: give those of the round",
            f"mean {_listed(protocol.mean)} and std {_listed(protocol.std)}, {_pixels_as(protocol)}",
            f"the model was in {protocol.mode} mode",
        ]
        if protocol.mode == "train" and any(f"{layer}.running_mean" in buffers for layer in batch_norm.layers(model)):
            self.assumed.append("BatchNorm's buffers moved from those of the model, and tell the batch's statistics")
        if protocol.decay and self._may_hold_decay(update, weights):
            update = observe.without_decay(update, weights, protocol.decay)
            self.assumed.append("weight decay is taken off as told, of every parameter")
        self.looks: Looks = look(update, weights, protocol.size)
        if self.looks.decay is not None:
            update = observe.without_decay(update, weights, self.looks.decay)
            self.assumed.append(f"{self.looks.decay:.4g} times the weights is taken off, so nothing is certified")
        self.update = update
        modules = [each for each in model.modules() if isinstance(each, nn.modules.dropout._DropoutNd)]
        self.draws = any(each.training and each.p for each in modules)

    def _may_hold_decay(self, update: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
        """Whether weight decay that was told is in the update: in a delta it is, in a gradient never."""
        if self.kind == "auto":
            return look(update, weights, self.protocol.size).decay is not None
        return self.kind != "gradient"

    def refusal(self) -> AuditReport | None:
        """The report where nothing can be tried."""
        if self.protocol.optimizer == "adam" or self.looks.signs_only:
            return refused(
                "signs only: nearly all entries are of one size, as after one step of Adam or sign compression, and no "
                "attack here reads images off signs"
                if self.looks.signs_only
                else "the update is of Adam, which divides every entry by its own size: no attack here undoes that",
                self.kind,
                self.protocol,
                looks=vars(self.looks),
            )
        return None

    def attacked(
        self,
        attacks: Sequence[str] | None,
        device: torch.device,
        deadline: float,
        progress: Callable[[str, float | None], None],
    ) -> AuditReport:
        """Try the attacks, for either kind where it is not known which."""
        specs = list(attacks or plan(self.looks, self.protocol.local_steps))

        def attempt(gradient: bool, until: float) -> _Tried:
            shown = observe.observation_of(self.model, self.update, gradient, self.protocol, self.classes, self.buffers)
            features = None
            head = find_head(shown.model, shown.image_shape)
            if isinstance(head, str):
                untold = f"no features behind a trunk are looked for: {head}"
                self.assumed += [] if untold in self.assumed else [untold]
            elif head:  # then no attack reads the images themselves exactly
                exact = [spec for spec in specs if reads_layers(spec)]
                half = (time.monotonic() + until) / 2
                found = attempt_all(head.observation(shown), exact, device, half, progress, chosen=True)
                features = Features(head.layer, head.size, found)
            tried = attempt_all(shown, specs, device, until, progress, chosen=bool(attacks))
            return _Tried(gradient, shown, tried, features)

        if self.kind != "auto":
            return self._report(attempt(self.kind == "gradient", deadline))
        tried = attempt(True, (time.monotonic() + deadline) / 2)
        if not tried.sure:
            other = attempt(False, deadline)
            tried = min((tried, other), key=lambda each: (not each.sure, each.share))
        self.kind = "gradient" if tried.gradient else "delta"
        says = "as the sign of what the loss sends back says" if tried.sure else "which nothing confirms"
        self.assumed.append(f"the update is a {self.kind}, {says}")
        return self._report(tried)

    def _report(self, tried: _Tried) -> AuditReport:
        observation, top = tried.observation, tried.top
        empty = torch.zeros(0, *self.protocol.image_shape)
        found = top.found if top else None
        images = empty if found is None else found.images.cpu()
        certified = none = torch.zeros(len(images), dtype=torch.bool)
        if found is not None and found.certified is not None and self.looks.decay is None:
            certified = found.certified.cpu()
        share = top.residual.share if top and top.residual else None
        inputs = inputs_of(observation, images)
        exact = share is not None and share < EXPLAINED
        claimed = int(certified.sum())
        sure = certified & as_pixels(inputs, observation.mean, observation.std)
        judged = inputs[sure] if bool(sure.any()) else inputs[certified] if claimed else inputs
        pixels = check_pixels(judged, observation.mean, observation.std) if claimed or (len(judged) and exact) else None
        targets, smoothing = self._targets(top, observation.scale_known) if exact else (None, None)
        near = torch.zeros(0) if top is None or top.on_grid is None else top.on_grid
        sure = sure if pixels and pixels.passed else none
        if not exact:
            certified = sure  # no second witness bears the others out
        counts = int(sure.sum()), int(certified.sum()), claimed
        verdict, reason = verdict_of(*counts, share, len(images), int(near.sum()), tried.features)
        told: Mapping[str, Any] = found.diagnostics if found else {}
        predicted = told.get("predicted_error_by_image")
        return AuditReport(
            verdict=verdict,
            reason=reason,
            kind=self.kind,
            protocol=self.protocol,
            assumed=self.assumed,
            images=images.clamp(0, 1),
            certified=certified,
            certain_pixels=sure,
            predicted_error=None if predicted is None else torch.tensor(predicted)[: len(images)],
            labels=top.residual.labels.cpu() if exact and top and top.residual else None,
            method=top.attack if top else None,
            pixels=pixels,
            residual=share,
            cause=cause_of(share, self.looks, self.protocol, tried.gradient, self.draws),
            targets=targets,
            smoothing=smoothing,
            rank=told.get("rank"),
            sigma=told.get("sigma"),
            looks=vars(self.looks),
            attempts=tried.attempts,
            on_grid=near,
            features=tried.features,
            pointers=pointers() if verdict in ("LEAKS", "SUSPECT") else (),
        )

    def _targets(self, top: Attempt | None, scale_known: bool) -> tuple[Tensor | None, float | None]:
        """What the client's loss aimed at for each image, and how much of it is spread over all classes."""
        if top is None or top.residual is None or not scale_known:
            return None, None
        count = self.protocol.batch_size or len(top.residual.sent_back)
        # Where it is known, the batch's sum was made its mean before.
        summed = self.protocol.reduction == "sum" and not self.protocol.batch_size
        targets = top.residual.targets(1.0 if summed else 1 / count).cpu()
        others = targets.sum(1) - targets.gather(1, top.residual.labels.cpu()[:, None])[:, 0]
        spread = float(others.mean()) * self.classes / max(self.classes - 1, 1)
        return targets, spread if abs(spread) > _SMOOTHED else 0.0


def _pixels_as(protocol: Protocol) -> str:
    """Where mean and std are from."""
    plain = protocol.mean == (0.0,) and protocol.std == (1.0,)
    return "so the model takes pixels in [0, 1] as they are" if plain else "as told"


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
