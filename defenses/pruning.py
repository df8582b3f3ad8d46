"""Gradient sparsification: only a share of the update's entries is sent, the others are zero."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from gibench.defense import Defense, DefenseContext, Guarantee
from gibench.observation import Update


class Pruning(Defense):
    """Keep the largest entries, or entries chosen at random; nothing is carried over to a later update.

    Of n entries exactly round((1 - sparsity) * n) are kept, in each tensor or in all together. The server sees which:
    the others are zero.
    """

    references = (
        "Lin et al., Deep Gradient Compression, ICLR 2018, arXiv 1712.01887",
        "Zhu et al., Deep Leakage from Gradients, NeurIPS 2019, arXiv 1906.08935, section 5.2",
    )

    sparsity: float = Field(0.9, ge=0, le=1, description="share of the entries that is dropped")
    scope: Literal["tensor", "global"] = Field("tensor", description="where the share is taken of")
    choice: Literal["largest", "random"] = Field("largest", description="which entries are kept: by size, or by chance")

    def release(self, update: Update, context: DefenseContext) -> Update:
        tensors = dict(update.tensors)
        if self.scope == "tensor":
            return Update({name: self._prune(value, context) for name, value in tensors.items()}, update.kind)
        joined = self._prune(torch.cat([value.flatten() for value in tensors.values()]), context)
        parts = torch.split(joined, [value.numel() for value in tensors.values()])
        return Update(
            {name: part.view_as(tensors[name]) for name, part in zip(tensors, parts, strict=True)}, update.kind
        )

    def guarantee(self, context: DefenseContext) -> Guarantee:
        return Guarantee(costs={"kept_share": 1 - self.sparsity})

    def _prune(self, value: Tensor, context: DefenseContext) -> Tensor:
        entries = value.flatten()
        count = round((1 - self.sparsity) * len(entries))
        if self.choice == "random":
            generator = context.generator
            kept = torch.randperm(len(entries), generator=generator, device=generator.device)[:count]
        else:
            kept = entries.abs().topk(count, sorted=False).indices
        sent = torch.zeros_like(entries)
        sent[kept] = entries[kept]
        return sent.view_as(value)
