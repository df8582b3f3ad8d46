"""The negative control that runs an attack on the gradient of another batch (rule E15)."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import cast

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional

from gibench.attack import Attack, Context, Reconstruction
from gibench.observation import Observation, Update
from gibench.registry import create, resolve


class WrongGradient(Attack):
    """The attack named, on the model's gradient of a batch that is not the client's: what it scores, it scores without
    having seen anything of the truth.

    An attack sees its observation alone, so the other batch is one the server can make by itself: images of the
    surrogate data where they are granted; else images of the prior's mean and deviation, drawn pixel by pixel, where
    that is; else uniform noise. Labels are those of the surrogate data, or uniform; granted labels are replaced by
    them, so that nothing contradicts the gradient, and granted BatchNorm statistics are withheld. The batch is as large
    as the true one if its size is known, else one image. The wrong gradient is undefended and of one step.
    """

    attack: str = Field("invertinggradients", description="the attack to run, with its settings in single quotes")

    @field_validator("attack")
    @classmethod
    def _resolved(cls, text: str) -> str:
        return str(resolve("attack", text))

    @cached_property
    def _inner(self) -> Attack:
        return cast(Attack, create("attack", self.attack))

    def supports(self, observation: Observation) -> str | None:
        if missing := sorted(self._inner.requires - observation.threat_model.knows):
            return f"{self.attack} needs to know {', '.join(missing)}: grant it with --knows"
        return self._inner.supports(replace(observation, update=Update(observation.update.tensors)))

    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        images, labels = _other_batch(observation, context.generator)
        parameters = {name: value.detach() for name, value in observation.model.named_parameters()}
        buffers = {name: value.clone() for name, value in observation.model.named_buffers()}
        inputs = observation.normalize(images).to(next(iter(parameters.values())))

        def loss(parameters: dict[str, Tensor]) -> Tensor:
            logits = torch.func.functional_call(observation.model, {**parameters, **buffers}, (inputs,))
            return functional.cross_entropy(logits, labels)

        wrong = replace(
            observation,
            update=Update(torch.func.grad(loss)(parameters)),
            labels=None if observation.labels is None else labels,
            local_hyperparameters=None,
            defenses=None,
            bn_statistics=None,
        )
        return self._inner.reconstruct(wrong, context)


def _other_batch(observation: Observation, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images `[B, C, H, W]` in [0, 1] and labels `[B]` that have nothing to do with the client's."""
    count, device = observation.batch_size or 1, generator.device
    surrogate = observation.surrogate_data
    if surrogate is not None and len(surrogate.images) >= count:
        chosen = torch.randperm(len(surrogate.images), generator=generator, device=device)[:count]
        return surrogate.images[chosen], surrogate.labels[chosen]
    labels = torch.randint(observation.num_classes, (count,), generator=generator, device=device)
    shape = (count, *observation.image_shape)
    if observation.prior is None:
        return torch.rand(shape, generator=generator, device=device), labels
    drawn = torch.randn(shape, generator=generator, device=device)
    return (observation.prior.mean + observation.prior.std * drawn).clamp(0, 1), labels
