"""How composed defenses act as one: their canonical order, their hooks on an update, what they guarantee together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor

from gibench.buffers import ClientBuffers
from gibench.defense import (
    HOOKS,
    Batch,
    Defense,
    DefenseContext,
    Gradient,
    Guarantee,
    Hook,
    Parameters,
    Sampler,
    Updating,
)
from gibench.errors import PluginError, UsageError
from gibench.observation import LocalTraining, Update, UpdateKind
from gibench.registry import load, spec_of
from gibench.spec import Spec, format_chain


def canonical_chain(specs: Iterable[Spec]) -> tuple[Spec, ...]:
    """The order in which composed defenses act: by their first hook (see `HOOKS`), else as written.

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


def run(
    defenses: Sequence[Defense],
    gradient: Gradient,
    parameters: Parameters,
    batches: Sequence[Batch],
    context: DefenseContext,
    buffers: ClientBuffers | None = None,
) -> tuple[Update, LocalTraining | None]:
    """Apply the hooks in their order: steps (the first written is the innermost), the update, what is sent of it.

    Args:
        defenses: in canonical order.
        gradient: undefended.
        parameters: where the clients start from.
        batches: one a client.
        context: what the harness lends the defenses.
        buffers: of the clients' network, where those are sent, unless a defense keeps them; then its gradient is used
            in place of `gradient`.

    Returns:
        The update as it is sent, and how the clients trained if a defense makes them train.
    """

    received = dict(parameters)

    def step(parameters: Parameters, batch: Batch) -> Parameters:
        made = gradient
        if buffers is not None:
            made = buffers.gradient
            if all(parameters.get(name) is value for name, value in received.items()):
                buffers.next_client()
        for defense in defenses:
            if "step" in defense.hooks:
                made = _defended(defense, made, context, batch.size)
        return made(parameters, batch.inputs, batch.labels)

    maker = next((defense for defense in defenses if "update" in defense.hooks), Defense())

    def updating(parameters: Parameters, batches: Sequence[Batch]) -> tuple[Update, LocalTraining | None]:
        return _trained(maker, "update", parameters, maker.update(step, parameters, batches, context))

    made: Updating = updating
    for defense in defenses:
        if "average" in defense.hooks:
            made = _averaged(defense, made, context)
    update, local_training = made(parameters, batches)
    for defense in defenses:
        if "release" in defense.hooks:
            update = _checked(defense, "release", parameters, defense.release(update, context))
    if buffers is not None and not any(defense.keeps_buffers for defense in defenses):
        update = replace(update, buffers=buffers.moved())
    return update, local_training


def context_of(
    defenses: Sequence[Defense],
    generator: torch.Generator,
    batch_size: int,
    dataset_size: int,
    rounds: int | None = None,
) -> DefenseContext:
    """What the harness lends a chain of defenses.

    Args:
        defenses: in canonical order.
        generator: of their noise, on the batches' device.
        batch_size: images a client.
        dataset_size: of the split that batches are drawn from.
        rounds: of a training run, whose batches are drawn as the defenses want it; none: one update of full batches.

    Raises:
        UsageError: their settings make no sense for such batches and data.
    """
    context = DefenseContext(
        generator,
        batch_size,
        dataset_size,
        clients=client_count(defenses),
        passes=max((each.passes for each in defenses), default=1),
        rounds=rounds,
        sampler=Sampler() if rounds is None else sampler(defenses),
    )
    for defense in defenses:
        defense.check(replace(context))  # a copy each, so that none writes what the others are told
    return context


def client_count(defenses: Iterable[Defense]) -> int:
    """How many clients' batches go into the update of the chain."""
    return max((defense.client_count for defense in defenses), default=1)


def sampler(defenses: Iterable[Defense]) -> Sampler:
    """How a training run draws its batches: as the one defense wants it whose promise depends on that."""
    return next((each.sampler for each in defenses if each.sampler != Sampler()), Sampler())


def _defended(defense: Defense, gradient: Gradient, context: DefenseContext, size: int | None) -> Gradient:
    def step(parameters: Parameters, inputs: Tensor, labels: Tensor) -> Parameters:
        found = defense.step(gradient, parameters, Batch(inputs, labels, size), context)
        return _checked_tensors(defense, "step", parameters, found)

    return step


def _averaged(defense: Defense, update: Updating, context: DefenseContext) -> Updating:
    def average(parameters: Parameters, batches: Sequence[Batch]) -> tuple[Update, LocalTraining | None]:
        return _trained(defense, "average", parameters, defense.average(update, parameters, batches, context))

    return average


def _trained(defense: Defense, hook: Hook, parameters: Parameters, made: Any) -> tuple[Update, LocalTraining | None]:
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], LocalTraining | None)):
        raise _broken(defense, hook, _type(made), "a pair (Update, LocalTraining or None)")
    return _checked(defense, hook, parameters, made[0]), made[1]


def _checked(defense: Defense, hook: Hook, parameters: Parameters, update: Any) -> Update:
    if not isinstance(update, Update):
        raise _broken(defense, hook, _type(update), "an Update")
    if update.kind not in get_args(UpdateKind):
        raise _broken(defense, hook, f"the kind '{update.kind}'", f"one of {', '.join(get_args(UpdateKind))}")
    _checked_tensors(defense, hook, parameters, update.tensors)
    return update


def _checked_tensors(defense: Defense, hook: Hook, parameters: Parameters, found: Any) -> Parameters:
    """What a hook gave, if it is a tensor for some of the parameters each, or an error that blames the defense."""
    if not isinstance(found, Mapping):
        raise _broken(defense, hook, _type(found), "a tensor a parameter by name")
    for name, tensor in found.items():
        if name not in parameters:
            raise _broken(defense, hook, f"'{name}'", f"the names of parameters: {', '.join(parameters)}")
        due = parameters[name].shape
        if not (isinstance(tensor, Tensor) and tensor.shape == due and tensor.is_floating_point()):
            is_tensor = isinstance(tensor, Tensor)
            given = f"{tensor.dtype} of shape {list(tensor.shape)}" if is_tensor else _type(tensor)
            raise _broken(defense, hook, f"{given} at '{name}'", f"real numbers of shape {list(due)}")
    return found  # type: ignore[return-value]  # checked above


def _broken(defense: Defense, hook: Hook, given: str, due: str) -> PluginError:
    return PluginError(f"the defense {spec_of('defense', defense).name} gave {given} in `{hook}`, where {due} is due")


def _type(value: Any) -> str:
    return type(value).__name__


def guarantee(defenses: Sequence[Defense], context: DefenseContext) -> Guarantee:
    """The privacy of the one defense that promises any, and the costs of all."""
    guarantees = [defense.guarantee(replace(context)) for defense in defenses]
    private = next((guarantee for guarantee in guarantees if guarantee.accountant), Guarantee())
    return replace(private, costs={key: value for each in guarantees for key, value in each.costs.items()})
