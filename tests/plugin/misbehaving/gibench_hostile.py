"""An attack and a model that end, block or change the process that they run in."""

import ctypes
import gc
import os
import random
import resource
import signal
import socket
import sys
import threading
import time

import numpy as np
import torch
from pydantic import Field
from torch import nn
from tqdm import tqdm

from gibench.attack import Attack, Reconstruction
from gibench.cell import Cell
from gibench.datasets.base import Split
from gibench.errors import NotApplicableError
from gibench.models.base import Model


def exit_at_once():
    os._exit(0)


def crash():
    ctypes.string_at(0)


def swallow():
    """Go on whatever is raised."""
    while True:
        try:
            time.sleep(60)
        except BaseException:
            continue


def block():
    """Stay inside one native call that lets no other thread run."""
    ctypes.PyDLL(None).sleep(3600)


class Own(BaseException):
    """What only `except BaseException` catches."""


def raise_own():
    raise Own("neither an exception nor an exit")


class Unspeakable(Exception):
    """An error that cannot say what it is."""

    def __str__(self):
        raise RuntimeError("no words")


def raise_unspeakable():
    raise Unspeakable


def claim_not_to_apply():
    raise NotApplicableError("this is a failure, whatever it says")


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(3600)


def kill_group():
    os.killpg(0, signal.SIGKILL)


def exhaust():
    """Take memory without end."""
    held = []
    while True:
        held.append(bytearray(2**26))


ENDS = {
    "exit": exit_at_once,
    "crash": crash,
    "abort": os.abort,
    "swallow": swallow,
    "block": block,
    "own": raise_own,
    "unspeakable": raise_unspeakable,
    "not-applicable": claim_not_to_apply,
    "interrupt": interrupt,
    "kill-group": kill_group,
    "exhaust": exhaust,
}


def close_files():
    os.closerange(0, 256)


def write_to_files():
    """Write what is no message wherever something can be written."""
    for number in range(3, 64):
        try:
            os.set_blocking(number, False)
            os.write(number, b"\xff" * 64)
        except OSError:
            pass


def fork():
    """Let both go on."""
    os.fork()


def leave_a_process():
    """Leave one that is in no group, and holds what was open."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(20)
        os._exit(0)


def draw_elsewhere():
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)


def patch():
    torch.nn.functional.cross_entropy = lambda *arguments, **options: torch.zeros(())
    torch.Tensor.mean = lambda *arguments, **options: torch.zeros(())
    np.mean = lambda *arguments, **options: 0.5


def patch_gibench():
    from gibench import attack, scoring

    attack.warm_up = lambda device: None
    scoring.score = None


def hide():
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def few_files():
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))


def little_memory():
    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))


def deaf():
    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def until(asked, value):
    """The value, once what is asked is so."""
    while not asked():
        time.sleep(0.01)
    return value


def linger():
    threading.Thread(target=time.sleep, args=(3600,)).start()


LEAVES = {
    "dtype": lambda: torch.set_default_dtype(torch.float64),
    "device": lambda: torch.set_default_device("meta"),
    "grad": lambda: torch.set_grad_enabled(False),
    "threads": lambda: torch.set_num_threads(7),
    "deterministic": lambda: torch.use_deterministic_algorithms(True),
    "denormal": lambda: torch.set_flush_denormal(True),
    "random": draw_elsewhere,
    "folder": lambda: os.chdir("/"),
    "environment": lambda: os.environ.update(PATH="", HOME="/nowhere"),
    "umask": lambda: os.umask(0o777),
    "signals": deaf,
    "patch": patch,
    "patch-gibench": patch_gibench,
    "streams": hide,
    "few-files": few_files,
    "little-memory": little_memory,
    "thread": linger,
    "bar": lambda: list(tqdm(range(3))),
    "timeout": lambda: socket.setdefaulttimeout(1e-9),
    "closed": close_files,
    "written": write_to_files,
    "fork": fork,
    "process": leave_a_process,
}


class HostileAttack(Attack):
    """Does one thing that no plugin should, and finds grey."""

    what: str = Field("exit", description="a key of ENDS or LEAVES, or what it returns")

    def supports(self, observation):
        if self.what == "supports":
            time.sleep(3600)

    def reconstruct(self, observation, context):
        images = torch.full((1, *observation.image_shape), 0.25)
        if self.what in ENDS:
            ENDS[self.what]()
        if self.what in LEAVES:
            LEAVES[self.what]()
        returned = {
            "complex": lambda: Reconstruction(images.to(torch.complex64)),
            "million": lambda: Reconstruction(images.expand(10**6, -1, -1, -1)),
            "late-million": lambda: Reconstruction(until(context.expired, images).expand(10**6, -1, -1, -1)),
            "claims-numbers": lambda: Reconstruction(images, certified=torch.tensor([float("nan")])),
            "reason": lambda: Reconstruction(images, status="diverged", reason=7),
        }
        return returned.get(self.what, lambda: Reconstruction(images))()


class HostileModel(Model):
    """Does the same while it is built, and is a linear network."""

    what: str = Field("exit", description="a key of ENDS or LEAVES")

    def build(self, image_shape, num_classes):
        (ENDS | LEAVES)[self.what]()
        return nn.Sequential(nn.Flatten(), nn.Linear(image_shape[0] * image_shape[1] * image_shape[2], num_classes))


class Searches(Attack):
    """Returns a batch of images that is in memory, if there is one, and says how many cells are."""

    def reconstruct(self, observation, context):
        found = [torch.zeros(1, *observation.image_shape)]
        for item in gc.get_objects():
            values = vars(item).values() if type(item) is Split else [item]
            tensors = [each for each in values if issubclass(type(each), torch.Tensor)]
            found += [each for each in tensors if self._is_batch(each, observation)]
        cells = sum(type(item) is Cell for item in gc.get_objects())
        return Reconstruction(found[-1], diagnostics={"batches": len(found), "cells": cells})

    @staticmethod
    def _is_batch(tensor, observation):
        return tensor.is_floating_point() and tuple(tensor.shape) == (observation.batch_size, *observation.image_shape)


class TellsGpu(Attack):
    """Reports which GPUs its process is shown."""

    def reconstruct(self, observation, context):
        images = torch.zeros(1, *observation.image_shape)
        return Reconstruction(images, diagnostics={"gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "all")})


class BlocksFacts(Attack):
    """Never says what it is."""

    @property
    def budget(self):
        block()

    def reconstruct(self, observation, context):
        raise AssertionError("never called")
