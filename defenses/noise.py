"""Plain noise on the update. It is not differential privacy: nothing bounds what one image can contribute."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from gibench.defense import Defense, DefenseContext, Guarantee, Magnitude
from gibench.observation import Update


class Noise(Defense):
    """Independent noise of one standard deviation on every entry of what is sent (rule E12: promises nothing)."""

    references = ("Zhu et al., Deep Leakage from Gradients, NeurIPS 2019, arXiv 1906.08935, section 5.1",)

    std: Magnitude = Field(1e-3, description="standard deviation on each entry of the update")
    distribution: Literal["gaussian", "laplacian"] = Field("gaussian", description="of the noise")

    def release(self, update: Update, context: DefenseContext) -> Update:
        draw = _gaussian if self.distribution == "gaussian" else _laplacian
        return Update(
            {name: value + self.std * draw(value, context.generator) for name, value in update.tensors.items()},
            update.kind,
        )

    def guarantee(self, context: DefenseContext) -> Guarantee:
        return Guarantee(costs={"noise_std": self.std})


def _gaussian(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)


def _laplacian(like: Tensor, generator: torch.Generator) -> Tensor:
    """Of standard deviation 1: the difference of two exponential variables, over sqrt(2)."""
    one, other = (torch.empty_like(like).exponential_(generator=generator) for _ in range(2))
    return (one - other) / math.sqrt(2)
