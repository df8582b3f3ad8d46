"""Clipping of the whole update. It hides its size and nothing else."""

from __future__ import annotations

import torch
from pydantic import Field

from gibench.defense import Defense, DefenseContext, Magnitude
from gibench.observation import Update


class Clip(Defense):
    """Scale the update down to an L2 norm, over all tensors, that it may not exceed; no privacy is promised."""

    references = (
        "Geyer et al., Differentially Private Federated Learning, 2017, arXiv 1712.07557 (without its noise)",
    )

    max_norm: Magnitude = Field(1.0, description="L2 norm that the update has at most")

    def release(self, update: Update, context: DefenseContext) -> Update:
        norms = torch.stack([torch.linalg.vector_norm(value) for value in update.tensors.values()])
        scale = (self.max_norm / torch.linalg.vector_norm(norms)).clamp(max=1)
        return Update({name: value * scale for name, value in update.tensors.items()}, update.kind)
