"""One seed a cell, and from it a separate generator for each role, so that roles cannot disturb each other."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch

Role = Literal["data", "model", "defense", "attack"]


def derive(seed: int, role: Role) -> int:
    """A 63-bit seed for one role of a cell: the same batch, model and noise for every attack in a column."""
    digest = hashlib.sha256(f"gibench/{seed}/{role}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, role: Role, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` for one role of a cell."""
    return torch.Generator(device).manual_seed(derive(seed, role))


@contextmanager
def isolated(seed: int, role: Role) -> Iterator[None]:
    """Seed torch's, numpy's and Python's global generators for one role, and put them back afterwards."""
    value = derive(seed, role)
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(value)
        random.seed(value)
        np.random.seed(value % 2**32)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
