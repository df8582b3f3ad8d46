"""Plugins that break their contract, each in one way, and some that are right where one might think otherwise."""

import math
from dataclasses import replace

import torch
from pydantic import Field
from torch import nn

from gibench.attack import Attack, Reconstruction
from gibench.datasets.base import Dataset
from gibench.datasets.digits import Digits
from gibench.defense import Defense
from gibench.models.base import Model
from gibench.observation import Update


class Grey(Attack):
    def reconstruct(self, observation, context):
        return Reconstruction(torch.full((1, *observation.image_shape), 0.5))


class NoDefault(Grey):
    level: float
    steps: int = 3


class Several(Grey):
    sizes: list[int] = Field([1, 2])
    pair: tuple[float, str] | None = (0.5, "a,'b")
    by_name: dict[str, int] = Field({"a": 1})
    names: frozenset[str] = frozenset({"b", "a"})
    nothing: list[str] | None = None


class Odd:
    pass


class OddSetting(Grey):
    odd: Odd = Odd()


class TensorSetting(Grey):
    start: torch.Tensor = torch.zeros(2)


class UnknownFact(Grey):
    requires = frozenset({"lables"})


class FactAsText(Grey):
    requires = "labels"


class SettingsTaken(Grey):
    settings: int = 3


class RequiresTaken(Grey):
    requires: int = 3


class ReconstructTaken(Grey):
    reconstruct: int = 3


class SupportsTrue(Grey):
    def supports(self, observation):
        return True


class Bytes(Grey):
    def reconstruct(self, observation, context):
        return Reconstruction(torch.full((1, *observation.image_shape), 128, dtype=torch.uint8))


class Normalised(Grey):
    def reconstruct(self, observation, context):
        return Reconstruction(observation.normalize(super().reconstruct(observation, context).images) - 2)


class Signs(Defense):
    def release(self, update, context):
        return Update({name: value.sign() for name, value in update.tensors.items()}, update.kind)


class SignsOfSteps(Defense):
    def step(self, gradient, parameters, batch, context):
        assert isinstance(context.model, nn.Module)
        assert dict(context.model.named_parameters()).keys() == parameters.keys()
        return {name: value.sign() for name, value in super().step(gradient, parameters, batch, context).items()}


class WrongHooks(Signs):
    hooks = frozenset({"relase"})


class NoHook(Defense):
    def relase(self, update, context):
        return update


class HooksTaken(Signs):
    hooks: int = 3


class SupportsModel(Signs):
    def supports(self, model, context):
        return True


class Broken(Defense):
    what: str

    def step(self, gradient, parameters, batch, context):
        return None if self.what == "step" else super().step(gradient, parameters, batch, context)

    def update(self, step, parameters, batches, context):
        made = super().update(step, parameters, batches, context)
        return made[0] if self.what == "update" else made

    def average(self, update, parameters, batches, context):
        made = update(parameters, batches)
        return (made[0].tensors, None) if self.what == "average" else made

    def release(self, update, context):
        tensors = dict(update.tensors)
        if self.what == "shape":
            tensors = {name: value[:1] for name, value in tensors.items()}
        if self.what == "name":
            tensors["more"] = torch.zeros(1)
        if self.what == "integers":
            tensors = {name: value.sign().to(torch.int8) for name, value in tensors.items()}
        if self.what == "numpy":
            tensors = {name: value.numpy() for name, value in tensors.items()}
        return Update(tensors, "delta" if self.what == "kind" else update.kind)


class Altered(Dataset):
    what: str

    def load(self):
        images = Digits().load()
        change = {
            "255": lambda split: replace(split, images=split.images * 255),
            "normalised": lambda split: replace(split, images=split.images - 0.5),
            "grid": lambda split: replace(split, images=split.images * 0.97),
            "nan": lambda split: replace(split, images=split.images / split.images),
            "double": lambda split: replace(split, images=split.images.double()),
            "bytes": lambda split: replace(split, images=(split.images * 255).byte()),
            "flat": lambda split: replace(split, images=split.images.flatten(1)),
            "labels": lambda split: replace(split, labels=split.labels + 1),
            "floats": lambda split: replace(split, labels=split.labels.float()),
            "fewer": lambda split: replace(split, labels=split.labels[1:]),
            "pair": lambda split: (split.images, split.labels),
        }.get(self.what)
        if change:
            return replace(images, tuning=change(images.tuning))
        if self.what == "nothing":
            return None
        return replace(images, **{self.what: 0 * images.mean if self.what == "std" else torch.zeros(3)})


class Net(nn.Module):
    def __init__(self, size, outputs, what):
        super().__init__()
        self.layer, self.what = nn.Linear(size, outputs), what

    def forward(self, inputs):
        logits = self.layer(inputs.flatten(1))
        return {"none": None, "pair": (logits, logits)}.get(self.what, logits)


class Wrong(Model):
    what: str

    def build(self, image_shape, num_classes):
        if self.what == "nothing":
            return None
        return Net(math.prod(image_shape), num_classes + (self.what == "more"), self.what)
