"""Attacks, defenses, models and a data set that do what plugins should not, and a few that are odd but right."""

import gc
import os
import random
import signal
import sys
import time
from dataclasses import fields
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import torch
from pydantic import Field
from torch import nn

from gibench.attack import Attack, Reconstruction
from gibench.datasets.base import Dataset, Images, Split
from gibench.defense import Defense, Guarantee
from gibench.models.base import Model
from gibench.observation import Update


def _grey(observation, count=1, value=0.25):
    return torch.full((count, *observation.image_shape), value)


class Raises(Attack):
    """Raises a two-line error."""

    def reconstruct(self, observation, context):
        raise ValueError("no luck\ntoday")


class Hangs(Attack):
    """Never looks at its deadline and swallows every exception."""

    def reconstruct(self, observation, context):
        while True:
            try:
                time.sleep(0.05)
            except Exception:
                continue


class HangsDeaf(Attack):
    """Swallows the first interruption, whatever it is."""

    def reconstruct(self, observation, context):
        try:
            time.sleep(600)
        except BaseException:
            time.sleep(600)


class ReturnsLate(Attack):
    """Stops at its deadline and returns what it has."""

    def reconstruct(self, observation, context):
        while not context.expired():
            time.sleep(0.01)
        return Reconstruction(_grey(observation))


class WrongShape(Attack):
    """Returns images with a row too many."""

    def reconstruct(self, observation, context):
        channels, height, width = observation.image_shape
        return Reconstruction(torch.zeros(1, channels, height + 1, width))


class ReturnsNaN(Attack):
    """Returns images that are no numbers."""

    def reconstruct(self, observation, context):
        return Reconstruction(_grey(observation, value=float("nan")))


class Diverges(Attack):
    """Says that it diverged, and has one image and odd diagnostics to show."""

    def reconstruct(self, observation, context):
        diagnostics = {"loss": float("inf"), "norms": torch.tensor([1.0, float("nan")]), "steps": np.int64(3)}
        return Reconstruction(_grey(observation), diagnostics=diagnostics, status="diverged", reason="loss is infinite")


class FindsNothing(Attack):
    """Runs well and finds no image."""

    def reconstruct(self, observation, context):
        return Reconstruction(_grey(observation, count=0))


class GlobalRng(Attack):
    """Draws from every global generator, as much code does."""

    def reconstruct(self, observation, context):
        noise = torch.rand(1, *observation.image_shape) * float(np.random.rand()) * random.random()
        return Reconstruction(noise)


class Overwrites(Attack):
    """Changes everything it was shown, in place."""

    def supports(self, observation):
        overwrite(*observation.surrogate_data.__dict__.values())

    def reconstruct(self, observation, context):
        overwrite(observation, context)
        return Reconstruction(_grey(observation))


class Interrupts(Attack):
    """Presses Ctrl-C."""

    def reconstruct(self, observation, context):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(600)


class Exits(Attack):
    """Ends the program."""

    def reconstruct(self, observation, context):
        sys.exit("enough")


class Prints(Attack):
    """Writes to standard output."""

    def reconstruct(self, observation, context):
        print("hello from the attack")
        return Reconstruction(_grey(observation))


class Waits(Attack):
    """Returns once a file exists."""

    file: str = Field("go", description="what it waits for")

    def reconstruct(self, observation, context):
        while not Path(self.file).exists():
            time.sleep(0.05)
        return Reconstruction(_grey(observation))


class ReturnsAnything(Attack):
    """Returns what no contract allows."""

    what: str = Field("images", description="images, diagnostics, status, labels or nothing")

    def reconstruct(self, observation, context):
        odd = {
            "images": lambda: Reconstruction([[0.5]]),
            "diagnostics": lambda: Reconstruction(_grey(observation), diagnostics=[1, 2]),
            "status": lambda: Reconstruction(_grey(observation), status="splendid"),
            "labels": lambda: Reconstruction(_grey(observation), labels=torch.zeros(7)),
            "nothing": lambda: None,
        }
        return odd[self.what]()


class Claims(Attack):
    """Certifies two grey images."""

    def reconstruct(self, observation, context):
        return Reconstruction(_grey(observation, count=2), certified=torch.tensor([True, True]))


SEEN = []  # every tensor that the last `Inspects` could reach


class Inspects(Attack):
    """Collects every tensor that can be reached from what it is handed, closures and bound objects included."""

    def reconstruct(self, observation, context):
        SEEN[:] = reachable(observation, context)
        return Reconstruction(_grey(observation))


def reachable(*objects):
    """The tensors that can be reached from some objects without going through modules, classes and globals."""
    waiting, known, tensors = list(objects), {}, []
    while waiting:
        item = waiting.pop()
        if id(item) in known or isinstance(item, ModuleType | type):
            continue
        known[id(item)] = item  # kept alive, so that no id comes twice
        if isinstance(item, torch.Tensor):
            tensors.append(item)
        if isinstance(item, FunctionType):
            waiting += [item.__closure__, item.__defaults__, item.__kwdefaults__, item.__dict__]
        else:
            waiting += gc.get_referents(item)
            waiting += vars(item).values() if hasattr(item, "__dict__") else []
    return tensors


def overwrite(*objects):
    """Write over every tensor that can be reached from some objects, and set torch up as nobody expects it."""
    with torch.no_grad():
        for tensor in reachable(*objects):
            tensor.zero_()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(3)
    torch.set_grad_enabled(False)


class Refuses(Attack):
    """Supports nothing."""

    needs: str = Field("a miracle", description="what it asks for")

    def supports(self, observation):
        return f"this model is not {self.needs}"

    def reconstruct(self, observation, context):
        raise AssertionError("never called")


class SupportsRaises(Attack):
    """Fails while it is asked whether it applies."""

    def supports(self, observation):
        raise KeyError("fc.weight")

    def reconstruct(self, observation, context):
        raise AssertionError("never called")


NOTED = {}  # the seeds of the generators that each role was given: its own one, and torch's global one


class NotesAttack(Attack):
    """Notes its seeds."""

    def reconstruct(self, observation, context):
        NOTED["attack"] = context.generator.initial_seed(), torch.initial_seed()
        return Reconstruction(_grey(observation))


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
