"""Attacks that do what plugins should not, and a few that are odd but right."""

import gc
import os
import random
import signal
import sys
import time
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import torch
from pydantic import Field

from gibench.attack import Attack, Reconstruction


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
    """Returns the labels it was granted, and changes everything it was shown, in place."""

    def supports(self, observation):
        overwrite(*observation.surrogate_data.__dict__.values())

    def reconstruct(self, observation, context):
        labels = observation.labels.clone()
        overwrite(observation, context)
        return Reconstruction(_grey(observation, len(labels)).float(), labels)


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

    what: str = Field("images", description="images, diagnostics, status, labels, claims or nothing")

    def reconstruct(self, observation, context):
        odd = {
            "images": lambda: Reconstruction([[0.5]]),
            "diagnostics": lambda: Reconstruction(_grey(observation), diagnostics=[1, 2]),
            "status": lambda: Reconstruction(_grey(observation), status="splendid"),
            "labels": lambda: Reconstruction(_grey(observation), labels=torch.zeros(7)),
            "claims": lambda: Reconstruction(_grey(observation), certified=torch.tensor([float("nan")])),
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
