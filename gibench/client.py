"""The client: a private batch, the model and the defenses become an observation that holds nothing more than granted.

A client trains, so the model is in train mode: BatchNorm normalises by the batch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from gibench.datasets.base import Images, Split
from gibench.defense import HOOKS, Batch, Defense, DefenseContext, Gradient, Guarantee, Hook, Parameters
from gibench.errors import NotApplicable, UsageError
from gibench.observation import ImagePrior, LocalTraining, Observation, SurrogateData, ThreatModel, Update
from gibench.registry import load
from gibench.spec import Spec, format_chain
from gibench.training import model_inputs


@dataclass(frozen=True)
class Release:
    """What a round of the client gives: the server's view, and beside it what only the harness may know."""

    observation: Observation
    guarantee: Guarantee  # of the whole chain
    grad_norm: float  # L2 norm of the undefended mean gradient


def canonical_chain(specs: Iterable[Spec]) -> tuple[Spec, ...]:
    """The order in which composed defenses act: by their first hook (step, update, release), else as written.

    `none` stands for the empty chain, so it is dropped beside others.

    Raises:
        UsageError: an unknown defense, one named twice, or two that make the update.
    """
    chain = tuple(specs)
    names = [spec.name for spec in chain]
    others = tuple(spec for spec in chain if spec.name != "none")
    if repeated := [spec.name for spec in others if names.count(spec.name) > 1]:
        raise UsageError(f"'{format_chain(chain)}' names {repeated[0]} twice: keep one of them")
    hooks = {spec.name: _hooks_of(spec.name) for spec in others}
    if len(makers := [name for name in hooks if "update" in hooks[name]]) > 1:
        raise UsageError(f"{' and '.join(makers)} cannot be composed: each decides how steps become the update")
    ordered = sorted(others, key=lambda spec: min(map(HOOKS.index, hooks[spec.name]), default=len(HOOKS)))
    return tuple(ordered) or chain[:1]


def _hooks_of(name: str) -> frozenset[Hook]:
    defense = load("defense", name)
    assert issubclass(defense, Defense)  # the registry checked it
    return defense.hooks


def draw(images: Images, batch_size: int, labels: str, clients: int, generator: torch.Generator) -> Split:
    """Draw the clients' private batches, without replacement, from the private split.

    Args:
        images: the data set.
        batch_size: images a client.
        labels: the rule for each client's batch: `iid` (uniform), `unique` (all labels different) or `same` (one
            label, uniform among those with enough images).
        clients: how many batches.
        generator: on the CPU.

    Returns:
        The batches one after the other, `clients * batch_size` images: the truth.

    Raises:
        UsageError: an unknown rule, or fewer images than asked for.
    """
    if labels not in ("iid", "unique", "same"):
        raise UsageError(f"unknown label rule '{labels}': use iid, unique or same")
    if batch_size < 1:
        raise UsageError(f"a batch of {batch_size} images is refused: ask for at least 1")
    private = images.private
    if clients * batch_size > len(private):
        wanted = f"{clients} batches of {batch_size}" if clients > 1 else f"a batch of {batch_size}"
        raise UsageError(f"{wanted} is more than the {len(private)} images of the private split: ask for fewer")
    order = torch.randperm(len(private), generator=generator)  # whatever is taken first from it is uniform
    chosen: list[Tensor] = []
    for _ in range(clients):
        batch = order[_positions(private.labels[order], batch_size, labels, generator)]
        chosen.append(batch)
        order = order[~torch.isin(order, batch)]
    drawn = torch.cat(chosen)
    return Split(private.images[drawn], private.labels[drawn])


def _positions(labels: Tensor, batch_size: int, rule: str, generator: torch.Generator) -> Tensor:
    """Where one batch stands among the images that are left, which are in random order."""
    if rule == "iid":
        return torch.arange(batch_size)
    counts = labels.bincount()
    present = counts.nonzero().flatten()
    if rule == "unique":
        if batch_size > len(present):
            raise UsageError(
                f"labels=unique has {len(present)} labels to offer in the private split, not {batch_size}: "
                "ask for a smaller batch"
            )
        picked = present[torch.randperm(len(present), generator=generator)[:batch_size]]
        return (labels == picked[:, None]).int().argmax(dim=1)
    enough = (counts >= batch_size).nonzero().flatten()
    if not len(enough):
        raise UsageError(
            f"labels=same finds no label with {batch_size} images left in the private split (the most is "
            f"{int(counts.max())}): ask for a smaller batch"
        )
    picked = enough[torch.randint(len(enough), (1,), generator=generator)]
    return (labels == picked).nonzero().flatten()[:batch_size]


def mean_gradient(model: nn.Module) -> Gradient:
    """The gradient of the batch's mean cross-entropy as a pure function: BatchNorm's buffers stay as they are."""
    buffers = dict(model.named_buffers())

    def loss(parameters: Parameters, inputs: Tensor, labels: Tensor) -> Tensor:
        fresh = {name: buffer.clone() for name, buffer in buffers.items()}
        return functional.cross_entropy(torch.func.functional_call(model, {**parameters, **fresh}, (inputs,)), labels)

    return torch.func.grad(loss)


def observe(
    model: nn.Module,
    images: Images,
    truth: Split,
    defenses: Sequence[Defense],
    threat_model: ThreatModel,
    generator: torch.Generator,
    batch_size: int,
    memory_mb: float = 1024,
) -> Release:
    """Compute the update of the truth's batches, through the defenses' hooks, and grant what the threat model grants.

    Args:
        model: from normalised images to logits, on the device to compute on; its dtype is the gradient's.
        images: the data set; only its public split and statistics can reach the observation.
        truth: the clients' batches one after the other.
        defenses: in canonical order, see `canonical_chain`.
        threat_model: what the server knows. `batch_size` is that of the whole update: the images of all clients.
        generator: of the defenses' noise, on the model's device.
        batch_size: images a client.
        memory_mb: a budget for what a defense computes in chunks.

    Raises:
        NotApplicable: a defense refuses the model or the batch.
    """
    observed = copy.deepcopy(model).train()  # taken before the model sees a private image, and never shown one
    model.train()
    context = DefenseContext(generator, batch_size, len(images.private), memory_mb)
    for defense in defenses:
        if reason := defense.supports(model, context):
            raise NotApplicable(reason)
    inputs = model_inputs(model, images, truth.images)
    labels = truth.labels.to(inputs.device)
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    batches = [Batch(*pair) for pair in zip(torch.split(inputs, batch_size), torch.split(labels, batch_size), strict=True)]
    undefended = mean_gradient(model)
    update, local_training = _run(defenses, undefended, parameters, batches, context)
    knows = threat_model.knows
    observation = Observation(
        model=observed,
        update=replace(update, tensors={name: tensor.detach().clone() for name, tensor in update.tensors.items()}),
        image_shape=images.image_shape,
        mean=images.mean.to(inputs.device),
        std=images.std.to(inputs.device),
        num_classes=images.num_classes,
        threat_model=threat_model,
        batch_size=len(truth) if "batch_size" in knows else None,
        labels=labels.clone() if "labels" in knows else None,
        local_hyperparameters=local_training if "local_hyperparameters" in knows else None,
        bn_statistics=_bn_statistics(model, batches) if "bn_statistics" in knows else None,
        prior=_prior(images) if "prior" in knows else None,
        surrogate_data=_surrogate(images) if "surrogate_data" in knows else None,
    ).to(inputs.device)
    return Release(observation, _combined(defenses, context), _norm(undefended(parameters, inputs, labels)))


def _run(
    defenses: Sequence[Defense],
    gradient: Gradient,
    parameters: Parameters,
    batches: Sequence[Batch],
    context: DefenseContext,
) -> tuple[Update, LocalTraining | None]:
    """The hooks in their order: steps (the first written is the innermost), the update, what is released of it."""
    for defense in defenses:
        if "step" in defense.hooks:
            gradient = _defended(defense, gradient, context)

    def step(parameters: Parameters, batch: Batch) -> Parameters:
        return gradient(parameters, batch.inputs, batch.labels)

    makers = [defense for defense in defenses if "update" in defense.hooks]
    update, local_training = (makers or [Defense()])[0].update(step, parameters, batches, context)
    for defense in defenses:
        if "release" in defense.hooks:
            update = defense.release(update, context)
    return update, local_training


def _defended(defense: Defense, gradient: Gradient, context: DefenseContext) -> Gradient:
    return lambda parameters, inputs, labels: defense.step(gradient, parameters, Batch(inputs, labels), context)


def _combined(defenses: Sequence[Defense], context: DefenseContext) -> Guarantee:
    """The privacy of the one defense that promises any, and the costs of all."""
    guarantees = [defense.guarantee(context) for defense in defenses]
    private = next((guarantee for guarantee in guarantees if guarantee.accountant), Guarantee())
    return replace(private, costs={key: value for each in guarantees for key, value in each.costs.items()})


def _norm(gradient: Mapping[str, Tensor]) -> float:
    return math.hypot(*(float(torch.linalg.vector_norm(part, dtype=torch.float64)) for part in gradient.values()))


def _prior(images: Images) -> ImagePrior:
    std, mean = torch.std_mean(images.public.images, dim=0, correction=0)
    return ImagePrior(mean, std)


def _surrogate(images: Images) -> SurrogateData:
    """Copies, so that an attack that changes them changes no other cell's."""
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
    for name, module in listener.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_pre_hook(listen(name))
    with torch.no_grad():
        for batch in batches:
            listener(batch.inputs)
    return found
