"""One seed a cell, and from it a separate generator for each role, so that roles cannot disturb each other."""

from __future__ import annotations

import hashlib
from typing import Literal

import torch

Role = Literal["data", "model", "defense", "attack"]


def derive(seed: int, role: Role) -> int:
    """A 63-bit seed for one role of a cell: the same batch, model and noise for every attack in a column."""
    digest = hashlib.sha256(f"gibench/{seed}/{role}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, role: Role, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` for one role of a cell."""
    return torch.Generator(device).manual_seed(derive(seed, role))
