"""From what was sent to what an attack is shown: an `Observation` that holds nothing but what was told."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from gibench import batch_norm
from gibench.audit.blocks import norm, product
from gibench.audit.protocol import Protocol
from gibench.chain import canonical_chain
from gibench.errors import UsageError
from gibench.factory import count_logits
from gibench.observation import LocalTraining, Observation, Update
from gibench.spec import parse_chain
from gibench.threat_model import ThreatModel
from gibench.training import trainable

_ALIKE = 0.9  # cosine with the weights from which on what was sent is weights and no difference


def num_classes(model: nn.Module, protocol: Protocol) -> int:
    """Logits of an image.

    Raises:
        UsageError: the model does not take such images, or does not give a row of logits for each.
    """
    count = count_logits(model, protocol.image_shape)
    if protocol.classes not in (None, count):
        raise UsageError(f"the model gives {count} logits, and {protocol.classes} classes are told: which?")
    return count


def kind_of(sent: Mapping[str, Tensor], weights: Mapping[str, Tensor], protocol: Protocol, received: bool) -> str:
    """gradient, delta, weights, or auto where gradient and delta are still to be told apart.

    Args:
        sent: what the client sent, by name.
        weights: what it received, or the model has.
        protocol: what was told.
        received: whether the weights are known to be those that the client received.

    Raises:
        UsageError: what was sent cannot be of the kind that was told.
    """
    if not any(bool(tensor.any()) for tensor in sent.values()):
        raise UsageError("the update is zero everywhere, so nothing can leak from it: check what was saved")
    alike = _cosine(sent, weights) > _ALIKE
    if protocol.kind in ("gradient", "delta") and alike:
        raise UsageError(
            f"what was sent are weights, not a {protocol.kind}: give kind weights, or subtract what came in"
        )
    kind = "weights" if protocol.kind == "auto" and alike else protocol.kind
    if kind != "weights":
        return kind
    if not received:
        raise UsageError("whole weights need those that the client received in that round: give weights")
    if all(torch.equal(sent[name], weights[name].to(sent[name].dtype)) for name in sent):
        raise UsageError("the client sent the weights that it received, so nothing can leak: check what was saved")
    if _norm(delta(sent, weights)) > _norm(weights):
        raise UsageError("the difference is larger than the weights: are these the weights of the same round?")
    return kind


def delta(sent: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights sent minus those received, in float64, where the subtraction adds no error of its own."""
    return {name: tensor.double() - weights[name].double() for name, tensor in sent.items()}


def without_decay(update: Mapping[str, Tensor], weights: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The update less `share` times the weights."""
    return {name: (each.double() - share * weights[name].double()).to(each.dtype) for name, each in update.items()}


def observation_of(
    model: nn.Module,
    update: Mapping[str, Tensor],
    gradient: bool,
    protocol: Protocol,
    classes: int,
    buffers: Mapping[str, Tensor] | None = None,
) -> Observation:
    """What attacks are shown: no truth, and only the facts that were told.

    Args:
        model: with the weights that the client received, in its mode.
        update: without weight decay.
        gradient: whether it is a gradient; else a delta.
        protocol: what was told.
        classes: logits of an image.
        buffers: sent minus received, if they were sent.
    """
    local = _local(protocol)
    if protocol.reduction == "sum" and protocol.batch_size:  # as if the loss were a mean, which attacks take it for
        update = {name: tensor / protocol.step_size for name, tensor in update.items()}
    facts = {"batch_size": protocol.batch_size, "local_hyperparameters": local}
    knows = frozenset(name for name, value in facts.items() if value is not None)
    channels = protocol.image_shape[0]
    seen = Observation(
        model=copy.deepcopy(model),
        update=Update(dict(update), "gradient" if gradient else "weight_delta", dict(buffers or {})),
        image_shape=protocol.image_shape,
        mean=torch.tensor(protocol.mean).expand(channels).clone(),
        std=torch.tensor(protocol.std).expand(channels).clone(),
        num_classes=classes,
        threat_model=ThreatModel(knows),
        batch_size=protocol.batch_size,
        local_hyperparameters=local,
        defenses=canonical_chain(parse_chain(protocol.defense)) if protocol.defense else None,
    )
    told = batch_norm.inferred(seen) if protocol.mode == "train" else {}
    if not told:
        return seen
    return replace(seen, threat_model=ThreatModel(knows | {"bn_statistics"}, "inferred"), bn_statistics=told)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that a client trains, as it received them."""
    return {name: parameter.detach().cpu() for name, parameter in trainable(model).items()}


def _local(protocol: Protocol) -> LocalTraining | None:
    if protocol.lr is None or protocol.total_lr is None:
        return None
    return LocalTraining(
        protocol.epochs,
        protocol.step_size,
        protocol.lr,
        protocol.momentum or 0.0,
        protocol.clients or 1,
        protocol.total_lr,
    )


def _norm(tensors: Mapping[str, Tensor]) -> float:
    return math.hypot(*map(norm, tensors.values()))


def _cosine(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    return sum(product(left[name], right[name]) for name in left) / max(_norm(left) * _norm(right), 1e-300)
