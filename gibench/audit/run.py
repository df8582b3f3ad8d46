"""An audit from what was sent to the report: one code path for the command and the function."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gibench import device as devices
from gibench.attack import MOST_IMAGES, Reconstruction
from gibench.audit import names, observe
from gibench.audit.attempts import EXPLAINED, Attempt, attempt_all, best, inputs_of, plan
from gibench.audit.causes import cause_of
from gibench.audit.federated import kind_told
from gibench.audit.looks import Looks, look
from gibench.audit.pixels import check_pixels
from gibench.audit.protocol import Protocol
from gibench.audit.readers import read
from gibench.audit.report import AuditReport, refused, verdict_of
from gibench.audit.source import load_model
from gibench.errors import UsageError
from gibench.observation import Observation
from gibench.registry import create
from gibench.scoring import score

_SMOOTHED = 5e-3  # of label smoothing that is reported


def _silent(message: str, fraction: float | None = None) -> None:
    """The progress callback that shows nothing."""


def audit(
    model: nn.Module | str,
    update: Any,
    image_shape: tuple[int, int, int] | str,
    mean: Any = 0.0,
    std: Any = 1.0,
    *,
    weights: Any = None,
    kind: str = "auto",
    training: Mapping[str, Any] | None = None,
    attacks: Sequence[str] | None = None,
    budget: float = 10.0,
    device: str = "auto",
    truth: Any = None,
    progress: Callable[[str, float | None], None] = _silent,
) -> AuditReport:
    """Find out what a server can read out of an update, without the truth.

    Args:
        model: an `nn.Module` with the weights that the client received, or `MODULE:FACTORY`, whose code is run.
        update: a file (.safetensors, .pt, .npz), a mapping from names, a list in the order of `state_dict()`, Flower's
            `ArrayRecord`, `Parameters` or `FitRes`, or NVFlare's `FLModel`, which states its kind.
        image_shape: C, H, W.
        mean, std: what the client's pixels in [0, 1] are normalised by, a channel or all.
        weights: those that the client received, as `update`; without it the model's own.
        kind: `gradient`, `delta` (sent minus received), `weights` (whole), or `auto`.
        training: further facts of the round: the fields of `gibench.audit.protocol.Protocol`.
        attacks: specs to try in order; by default what the update's looks call for.
        budget: minutes for all attacks together.
        device: auto, cpu or cuda.
        truth: the client's images, as `update`, `[N, C, H, W]` in [0, 1]; only for scoring, no attack is shown them.
        progress: told what is being done.

    Raises:
        UsageError: what was given is no update of this model; the message says why in one line.
    """
    start = time.monotonic()
    kind = kind_told(update, kind)
    told = {"image_shape": image_shape, "mean": mean, "std": std, "kind": kind, **(training or {})}
    protocol = Protocol.from_settings("the protocol", told)
    for spec in attacks or ():
        create("attack", spec)  # a wrong name is told before anything runs
    place = devices.choose(device)
    network, received = _model(model, weights)
    network.train(protocol.mode == "train")
    if problem := non_finite(network):
        raise UsageError(problem)
    classes = observe.num_classes(network, protocol)
    sent = names.parameters(
        names.by_name(read(update, "update", names.numbers(network)), network, "update"), network, "update"
    )
    originals = None if truth is None else _truth(truth, protocol)
    case = _Case(network, sent, protocol, classes, received)
    report = case.refusal() or case.attacked(attacks, place, start + 60 * budget, progress)
    return _scored(report, originals, time.monotonic() - start)


def non_finite(model: nn.Module) -> str | None:
    """Why no gradient can be computed with such weights, or None."""
    for name, tensor in model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            return f"the model's weights hold NaN or infinity at '{name}': load those that the client received"
    return None


def _model(model: nn.Module | str, weights: Any) -> tuple[nn.Module, bool]:
    """The network with the weights that the client received, and whether these were told."""
    network = load_model(model) if isinstance(model, str) else copy.deepcopy(model)  # the user's stays as it is
    network = network.cpu()
    if weights is not None:
        found = names.by_name(read(weights, "weights", names.numbers(network)), network, "weights")
        names.parameters(found, network, "weights")
        network.load_state_dict(found, strict=False)
    return network, weights is not None or not isinstance(model, str)


@dataclass(frozen=True)
class _Tried:
    """What came of the update taken for a gradient, or else for a delta."""

    gradient: bool
    observation: Observation
    attempts: Sequence[Attempt]

    @property
    def top(self) -> Attempt | None:
        return best(self.attempts)

    @property
    def share(self) -> float:
        """What the best candidates leave of the update."""
        return self.top.share if self.top else float("inf")

    @property
    def sure(self) -> bool:
        """Whether the candidates explain the update, and their labels bear its sign out."""
        seen = self.top.residual if self.top else None
        return seen is not None and seen.share < EXPLAINED and bool(seen.gradient_sign)


class _Case:
    """What is audited: the update less what was told of weight decay, and what it looks like."""

    def __init__(
        self, model: nn.Module, sent: Mapping[str, Tensor], protocol: Protocol, classes: int, received: bool
    ) -> None:
        self.model, self.protocol, self.classes = model, protocol, classes
        weights = observe.weights_of(model)
        self.kind = observe.kind_of(sent, weights, protocol, received)
        update = observe.delta(sent, weights) if self.kind == "weights" else dict(sent)
        self.assumed = [] if received else ["the weights are those that the factory makes: give those of the round"]
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
            shown = observe.observation_of(self.model, self.update, gradient, self.protocol, self.classes)
            return _Tried(gradient, shown, attempt_all(shown, specs, device, until, progress, chosen=bool(attacks)))

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
        certified = torch.zeros(len(images), dtype=torch.bool)
        if found is not None and found.certified is not None and self.looks.decay is None:
            certified = found.certified.cpu()
        share = top.residual.share if top and top.residual else None
        inputs = inputs_of(observation, images)
        claimed = bool(certified.any())
        judged = inputs[certified] if claimed else inputs
        exact = share is not None and share < EXPLAINED
        pixels = check_pixels(judged, observation.mean, observation.std) if claimed or (len(judged) and exact) else None
        targets, smoothing = self._targets(top, observation.scale_known) if exact else (None, None)
        near = torch.zeros(0) if top is None or top.on_grid is None else top.on_grid
        verdict, reason = verdict_of(int(certified.sum()), pixels, share, len(images), int(near.sum()))
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


def _truth(truth: Any, protocol: Protocol) -> Tensor:
    """The client's images `[N, C, H, W]` in [0, 1]."""
    found = read(truth, "truth", MOST_IMAGES * protocol.size)
    tensors = list(found.values()) if isinstance(found, dict) else found
    if len(tensors) != 1 or tensors[0].ndim != 4 or tuple(tensors[0].shape[1:]) != protocol.image_shape:
        shape = ", ".join(map(str, protocol.image_shape))
        raise UsageError(f"the truth must be one array of images [N, {shape}] in [0, 1]")
    images = tensors[0].float()
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise UsageError("the truth must be pixels in [0, 1]: divide 8-bit ones by 255")
    return images


def _scored(report: AuditReport, originals: Tensor | None, seconds: float) -> AuditReport:
    """The report with its seconds, and its score where the truth was given."""
    if originals is None:
        return replace(report, seconds=seconds)
    sure = report.certified if report.certified_pixels else torch.zeros_like(report.certified)
    found = Reconstruction(report.images, certified=sure) if len(report.images) else None
    return replace(report, seconds=seconds, score=score(originals, found).summary)
