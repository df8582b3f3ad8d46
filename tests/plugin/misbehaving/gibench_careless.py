"""Defenses, models and a data set that do what plugins should not."""

import random
from dataclasses import fields

import numpy as np
import torch
from gibench_misbehaving import NOTED, overwrite
from pydantic import Field
from torch import nn

from gibench.datasets.base import Dataset, Images, Split
from gibench.defense import Defense, Guarantee
from gibench.models.base import Model
from gibench.observation import Update


class NotesDefense(Defense):
    """Notes its seeds."""

    hooks = frozenset({"release"})

    def release(self, update, context):
        NOTED["defense"] = context.generator.initial_seed(), torch.initial_seed()
        return update


class GlobalNoise(Defense):
    """Adds noise from every global generator."""

    hooks = frozenset({"release"})

    def release(self, update, context):
        noise = np.random.rand() + random.random()
        return Update({key: value + noise * torch.rand_like(value) for key, value in update.tensors.items()})


class Careless(Defense):
    """Writes over everything it is handed, in every method, before or after its work is done."""

    hooks = frozenset({"step", "update", "average", "release"})

    def _spoil(self, context, *handed):
        context.generator.manual_seed(0)
        for name, value in {"batch_size": 1, "dataset_size": 10**9, "clients": 7, "passes": 50}.items():
            object.__setattr__(context, name, value)
        overwrite(*handed)
        for item in handed:
            if isinstance(item, list):
                item.clear()

    def check(self, context):
        self._spoil(context)

    def supports(self, model, context):
        self._spoil(context, model)

    def step(self, gradient, parameters, batch, context):
        torch.set_grad_enabled(True)
        found = super().step(gradient, parameters, batch, context)
        kept = {name: value.clone() for name, value in found.items()}
        self._spoil(context, gradient, parameters, batch, found)
        return kept

    def update(self, step, parameters, batches, context):
        return self._then_spoil(super().update(step, parameters, batches, context), context, parameters, batches)

    def average(self, update, parameters, batches, context):
        return self._then_spoil(super().average(update, parameters, batches, context), context, parameters, batches)

    def release(self, update, context):
        return self._then_spoil((update, None), context, update)[0]

    def _then_spoil(self, made, context, *handed):
        update, training = made
        kept = Update({name: value.clone() for name, value in update.tensors.items()}, update.kind)
        self._spoil(context, *handed)
        return kept, training

    def guarantee(self, context):
        self._spoil(context)
        return Guarantee()


class RaisesDefense(Defense):
    """Raises a two-line error."""

    hooks = frozenset({"release"})

    def release(self, update, context):
        raise ValueError("no luck\ntoday")


class _Network(nn.Module):
    """Writes over its input, parameters, buffer and attributes whenever it is called."""

    def __init__(self, size, num_classes):
        super().__init__()
        self.linear = nn.Linear(size, num_classes)
        self.register_buffer("calls", torch.zeros(1))
        self.last = None

    def forward(self, inputs):
        inputs.mul_(0.5)
        self.calls += 1
        with torch.no_grad():
            self.linear.weight.mul_(0.9)
        self.last = self.linear(inputs.flatten(1)) * (1 + self.calls)
        return self.last


_NETWORKS = {}


class Shared(Model):
    """Gives the same network each time, with new weights written over the old ones."""

    def build(self, image_shape, num_classes):
        size = image_shape[0] * image_shape[1] * image_shape[2]
        network = _NETWORKS.setdefault((size, num_classes), _Network(size, num_classes))
        network.linear.reset_parameters()
        NOTED["model"] = torch.initial_seed()
        return network


class _Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, inputs):
        raise IndexError("too\ndeep")


class _Dead(_Fails):
    def forward(self, inputs):
        return torch.zeros(len(inputs), 3) * self.weight


class OddModel(Model):
    """A network that cannot be built or called, or one whose logits are always zero."""

    what: str = Field("build", description="build, forward or dead")

    def build(self, image_shape, num_classes):
        if self.what == "build":
            raise LookupError("no\nweights")
        return _Fails() if self.what == "forward" else _Dead()


_PIXELS, _LABELS, _COLOURS = torch.zeros(24, 1, 8, 8), torch.zeros(24, dtype=torch.int64), torch.zeros(2, 1)


class Shifting(Dataset):
    """Gives views of one memory, and writes over what it gave before; its images come from the global generator."""

    level: float = Field(1.0, description="the lightest grey")

    def load(self):
        _PIXELS.copy_((torch.rand(_PIXELS.shape) * self.level * 255).round() / 255)
        _LABELS.copy_(torch.randint(3, _LABELS.shape))
        _COLOURS[:] = torch.tensor([[self.level / 2], [self.level]])
        names = [field.name for field in fields(Images) if field.type in ("Split", Split)]
        parts = zip(names, _PIXELS.chunk(len(names)), _LABELS.chunk(len(names)), strict=True)
        splits = {name: Split(pixels, labels) for name, pixels, labels in parts}
        return Images(**splits, classes=("a", "b", "c"), mean=_COLOURS[0], std=_COLOURS[1])


class Poison(Defense):
    """Releases infinity and what is no number."""

    hooks = frozenset({"release"})

    def release(self, update, context):
        return Update({name: tensor * float("inf") for name, tensor in update.tensors.items()}, update.kind)
