"""One seed a cell, and from it a separate generator for each role, so that roles cannot disturb each other."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import numpy as np
import torch

# What a plugin may set in torch for all that runs after it: how to ask for it, and how to put it back.
_SWITCHES: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
)

Role = Literal["data", "model", "client", "defense", "attack"]


def derive(seed: int, role: Role) -> int:
    """A 63-bit seed for one role of a cell: the same batch, model and noise for every attack in a column."""
    digest = hashlib.sha256(f"gibench/{seed}/{role}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, role: Role, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` for one role of a cell."""
    return torch.Generator(device).manual_seed(derive(seed, role))


def isolated(seed: int, role: Role) -> AbstractContextManager[None]:
    """Seed torch's, numpy's and Python's global generators for one role; afterwards they and torch are as before."""
    return seeded(derive(seed, role))


@contextmanager
def seeded(value: int) -> Iterator[None]:
    """The same, with what `derive` gave: who holds it alone can derive no other role's."""
    states = random.getstate(), np.random.get_state()
    switches = [get() for get, _ in _SWITCHES]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(value)
        random.seed(value)
        np.random.seed(value % 2**32)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            for before, (get, put_back) in zip(switches, _SWITCHES, strict=True):
                if get() != before:
                    put_back(before)
