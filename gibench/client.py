"""The client: a private batch, the model and the defenses become an observation that holds nothing more than granted.

A client trains, so the model is in train mode unless it is said to be in eval mode: BatchNorm normalises by the batch,
and dropout draws its masks from torch's global generators, which are the client's own and no part of what is observed.

Defenses and the model's own code may write in place, so they are handed copies: what the truth is compared with, what
other cells use and what the row states is never among them (rule E19).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from gibench import chain
from gibench.datasets.base import Images, Split
from gibench.defense import Batch, Defense, DefenseContext, Gradient, Guarantee, Parameters
from gibench.errors import NotApplicableError
from gibench.observation import ImagePrior, Observation, SurrogateData, Update
from gibench.plugin import reason_of
from gibench.registry import spec_of
from gibench.threat_model import ThreatModel
from gibench.training import model_inputs, trainable

_PIECE = 2**22  # entries that are held in float64 at once


@dataclass(frozen=True)
class Release:
    """What a round of the client gives: the server's view, and beside it what only the harness may know."""

    observation: Observation
    guarantee: Guarantee  # of the whole chain
    grad_norm: float  # L2 norm of the undefended mean gradient


def mean_gradient(model: nn.Module) -> Gradient:
    """The gradient of the batch's mean cross-entropy as a pure function: buffers and inputs stay as they are.

    It is by the parameters that it is given; all others, which are frozen, are the model's own.
    """
    buffers = dict(model.named_buffers())

    def loss(parameters: Parameters, inputs: Tensor, labels: Tensor) -> Tensor:
        state = {**parameters, **{name: buffer.clone() for name, buffer in buffers.items()}}
        return functional.cross_entropy(torch.func.functional_call(model, state, (inputs.clone(),)), labels)

    return torch.func.grad(loss)


def observe(
    model: nn.Module,
    images: Images,
    truth: Split,
    defenses: Sequence[Defense],
    threat_model: ThreatModel,
    generator: torch.Generator,
    batch_size: int,
    dataset_size: int | None = None,
    sent: torch.dtype | None = None,
    training: bool = True,
) -> Release:
    """Compute the update of the truth's batches, through the defenses' hooks, and grant what the threat model grants.

    Args:
        model: from normalised images to logits, on the device to compute on and in the dtype to compute in.
        images: the data set; only its public split and statistics can reach the observation.
        truth: the clients' batches one after the other.
        defenses: in canonical order, see `gibench.chain.canonical_chain`.
        threat_model: what the server knows. `batch_size` is that of the whole update: the images of all clients.
        generator: of the defenses' noise, on the model's device.
        batch_size: images a client.
        dataset_size: images of the split that the truth was drawn from; none: of the private split.
        sent: the numbers that the update is sent in; none: those of the model. What is narrower is rounded last, after
            all defenses, so that no promise of theirs is touched.
        training: whether the model is in train mode, and not in eval mode (rule E10).

    Raises:
        NotApplicableError: a defense refuses the model, every parameter of it is frozen, BatchNorm is given a single
            value a channel, or the update does not fit the numbers that it is sent in.
        UsageError: a defense's settings make no sense for such batches and data.
    """
    local = _refusing_single_values(_copy(model, training))  # the client's: its forward may keep what it likes
    inputs = model_inputs(model, images, truth.images)
    labels = truth.labels.to(inputs.device, copy=True)
    parts = zip(torch.split(inputs, batch_size), torch.split(labels, batch_size), strict=True)
    batches = [Batch(*part) for part in parts]
    knows = threat_model.knows
    undefended = mean_gradient(local)
    with _same_draws():
        bn_statistics = _bn_statistics(local, batches) if "bn_statistics" in knows else None
    with _same_draws():
        grad_norm = _norm(undefended(_start(model), inputs, labels))
    size = dataset_size or len(images.private)
    # From here on defenses have a say.
    context = replace(chain.context_of(defenses, generator, batch_size, size), model=_copy(model, training))
    _ask(defenses, context)
    guarantee = chain.guarantee(defenses, context)
    update, local_training = chain.run(defenses, undefended, _start(model), batches, replace(context))
    del local, undefended, context  # a network each, which may be large
    observation = Observation(
        model=_copy(model, training),  # as it was sent: it never saw a private image
        update=_sent(update, sent),
        image_shape=images.image_shape,
        mean=images.mean.clone(),  # what an attack does to the tensors it is shown, it does to no later cell
        std=images.std.clone(),
        num_classes=images.num_classes,
        threat_model=threat_model,
        batch_size=len(truth) if "batch_size" in knows else None,
        labels=truth.labels.clone() if "labels" in knows else None,
        local_hyperparameters=local_training if "local_hyperparameters" in knows else None,
        defenses=tuple(spec_of("defense", each) for each in defenses) if "local_hyperparameters" in knows else None,
        bn_statistics=bn_statistics,
        prior=_prior(images) if "prior" in knows else None,
        surrogate_data=_surrogate(images) if "surrogate_data" in knows else None,
    ).to(inputs.device)
    return Release(observation, guarantee, grad_norm)


def _copy(model: nn.Module, training: bool) -> nn.Module:
    return copy.deepcopy(model).train(training)


def _same_draws() -> AbstractContextManager[None]:
    """What the body draws from torch's global generators is drawn again after it: dropout's masks of the update."""
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()))


def _sent(update: Update, dtype: torch.dtype | None) -> Update:
    """A copy in the numbers that are sent: what is not finite was so before it was rounded."""
    tensors = {name: tensor.detach().to(dtype or tensor.dtype, copy=True) for name, tensor in update.tensors.items()}
    for name, rounded in tensors.items():
        if rounded.dtype == update.tensors[name].dtype:
            continue
        if lost := int((update.tensors[name].isfinite() & ~rounded.isfinite()).sum()):
            raise NotApplicableError(
                f"the update does not fit {str(rounded.dtype).removeprefix('torch.')}, whose largest number is "
                f"{torch.finfo(rounded.dtype).max:g}: {lost} entries of '{name}' become infinite, so a client sends "
                "nothing; use bfloat16 or float32, or clip the update"
            )
    return replace(update, tensors=tensors)


def _ask(defenses: Sequence[Defense], context: DefenseContext) -> None:
    """Let every defense say whether it can be applied to the model."""
    assert context.model is not None
    for defense in defenses:
        if reason := reason_of(defense, defense.supports(context.model, replace(context))):
            raise NotApplicableError(reason)


def _start(model: nn.Module) -> Parameters:
    """The parameters that the clients start from, to do with as they like."""
    return {name: parameter.detach().clone() for name, parameter in trainable(model).items()}


def _refusing_single_values(model: nn.Module) -> nn.Module:
    """The same model, whose BatchNorm says how to mend what torch's own error does not."""

    def refuse(name: str, module: nn.Module, arguments: tuple[Tensor]) -> None:
        values = arguments[0]
        if (module.training or module.running_mean is None) and values.numel() == values.shape[1]:
            raise NotApplicableError(
                f"BatchNorm ('{name}') normalises by the batch, and a step on one image gives it a single value a "
                "channel: let every step have 2 images or more (batch_size, local_batch_size, the last local batch "
                "too), or use a model without BatchNorm"
            )

    for name, module in _batch_norms(model):
        module.register_forward_pre_hook(partial(refuse, name))
    return model


def _batch_norms(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [each for each in model.named_modules() if isinstance(each[1], nn.modules.batchnorm._BatchNorm)]


def _norm(gradient: Mapping[str, Tensor]) -> float:
    pieces = [piece for part in gradient.values() for piece in torch.split(part.flatten(), _PIECE)]
    return math.hypot(*(float(torch.linalg.vector_norm(piece, dtype=torch.float64)) for piece in pieces))


def _prior(images: Images) -> ImagePrior:
    std, mean = torch.std_mean(images.public.images, dim=0, correction=0)
    return ImagePrior(mean, std)


def _surrogate(images: Images) -> SurrogateData:
    return SurrogateData(images.public.images.clone(), images.public.labels.clone())


def _bn_statistics(model: nn.Module, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Mean and biased variance of what enters each BatchNorm layer, `LAYER.mean` and `LAYER.var` `[channels]`.

    They are those of the private batches, averaged over clients.
    """
    found: dict[str, Tensor] = {}

    def listen(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def add(_: nn.Module, arguments: tuple[Tensor]) -> None:
            values = arguments[0].transpose(0, 1).flatten(1)
            for key, value in (("mean", values.mean(1)), ("var", values.var(1, correction=0))):
                found[f"{name}.{key}"] = found.get(f"{name}.{key}", 0) + value / len(batches)

        return add

    listener = copy.deepcopy(model)
    for name, module in _batch_norms(listener):
        module.register_forward_pre_hook(listen(name))
    with torch.no_grad():
        for batch in batches:
            listener(batch.inputs.clone())
    return found
