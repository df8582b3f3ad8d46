"""An audit from what was sent to the report: one code path for the command and the function."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gibench import device as devices
from gibench.attack import MOST_IMAGES, Reconstruction
from gibench.audit import names, observe
from gibench.audit.case import Case
from gibench.audit.federated import kind_told
from gibench.audit.protocol import Protocol
from gibench.audit.readers import read
from gibench.audit.report import AuditReport
from gibench.errors import UsageError
from gibench.factory import Factory, own_copy, refuse_lazy
from gibench.registry import create
from gibench.scoring import score


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
    network, received = _model(model, weights, protocol)
    network.train(protocol.mode == "train")
    if problem := non_finite(network):
        raise UsageError(problem)
    classes = observe.num_classes(network, protocol)
    named = names.by_name(read(update, "update", names.numbers(network)), network, "update")
    sent, buffers = (part(named, network, "update") for part in (names.parameters, names.buffers))
    originals = None if truth is None else _truth(truth, protocol)
    case = Case(network, sent, protocol, classes, received, buffers)
    report = case.refusal() or case.attacked(attacks, place, start + 60 * budget, progress)
    return _scored(report, originals, time.monotonic() - start)


def non_finite(model: nn.Module) -> str | None:
    """Why no gradient can be computed with such weights, or None."""
    for name, tensor in model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            return f"the model's weights hold NaN or infinity at '{name}': load those that the client received"
    return None


def _model(model: nn.Module | str, weights: Any, protocol: Protocol) -> tuple[nn.Module, bool]:
    """The network with the weights that the client received, and whether these were told."""
    if isinstance(model, str):
        told = {"image_shape": protocol.image_shape, "num_classes": protocol.classes}
        network = own_copy(Factory.of(model).make(**{name: value for name, value in told.items() if value is not None}))
    else:
        network = own_copy(model)  # the user's stays as it is
    refuse_lazy(network)
    if not any(each.requires_grad for each in network.parameters()):
        raise UsageError("the model has no parameters that a client trains: unfreeze those that it does")
    network = network.cpu()
    if weights is not None:
        names.load(weights, network)
    return network, weights is not None or not isinstance(model, str)


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
    found = Reconstruction(report.images, certified=report.certain_pixels) if len(report.images) else None
    return replace(report, seconds=seconds, score=score(originals, found).summary)
