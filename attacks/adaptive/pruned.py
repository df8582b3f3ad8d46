"""SPEAR++ on pruned gradients: the entries that were dropped are completed first."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from gibench.attack import Context, Reconstruction
from gibench.observation import Observation

from ..exact.layers import InputLayer, find_input_layer, next_linear
from ..exact.linear_layer import EXACT, SAFETY
from ..exact.low_rank import whiten
from ..spearpp.attack import SpearPP
from .matrix_completion import Completion, complete_matrix

_DETERMINED = 1e-4  # of what a whole row or column would say in every direction: a neuron below it is left out


class PrunedSpearPP(SpearPP):
    """Completes the first layer's gradient from the entries that were kept, then does what `spearpp` does.

    It knows that the update was pruned: an entry that is zero was dropped, by whatever rule, and every other one is the
    gradient's. The rank is read off by hold-out, and is at most the batch size where that is granted. A neuron of which
    hardly more entries were kept than there are images says nothing and is left out, be it dead or dropped.

    In a weight delta the kept entries alone are rounded as weights are; what that leaves beyond the rank is exchanged
    for white noise, lest it pass for further images.

    Where a pixel has fewer kept entries than the batch has images, its value is undetermined and wrong. Certificates
    allow for what completion adds to the error.
    """

    adaptive: ClassVar[bool] = True
    references: ClassVar[tuple[str, ...]] = (
        *SpearPP.references,
        "Jain et al., Low-rank Matrix Completion using Alternating Minimization, STOC 2013, arXiv 1212.0467",
    )

    without: str | None = Field(
        "next-layer", description="as of `spearpp`; by default the next layer, whose gradient is pruned as well"
    )

    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        context.progress("completing the gradient", None)
        layer = find_input_layer(observation.model, observation.image_shape)
        assert isinstance(layer, InputLayer)  # else it is unsupported
        tensors = dict(observation.update.tensors)
        weight, bias = tensors[f"{layer.name}.weight"], tensors[f"{layer.name}.bias"]
        pruned = torch.cat([weight, bias[:, None]], dim=1)
        known = pruned != 0
        start = time.perf_counter()
        size = observation.batch_size
        spoke = (known.sum(dim=1) > (size or 1)).nonzero()[:, 0]
        if not len(spoke):
            return super().reconstruct(observation, context)  # it says why nothing can be found
        completion = complete_matrix(pruned[spoke].double(), known[spoke], context.generator, size, context.expired)
        kept = completion.rows > _DETERMINED
        whole = torch.zeros_like(pruned)
        matrix = completion.matrix[kept]
        if observation.update.kind == "weight_delta":  # what rounding of weights left in the kept entries is not white
            matrix = whiten(matrix, completion.rank, context.generator)
        whole[spoke[kept]] = matrix.to(pruned)
        tensors |= {f"{layer.name}.weight": whole[:, :-1], f"{layer.name}.bias": whole[:, -1]}
        following = next_linear(observation.model, layer)
        if following is not None and f"{following}.weight" in tensors:  # it has to confirm the images' scales
            seen = tensors[f"{following}.weight"]
            tensors[f"{following}.weight"], told = _completed(seen, completion.rank, context)
            tensors[f"{layer.name}.weight"][~told] = 0  # a neuron of which the next layer tells nothing is left out
            tensors[f"{layer.name}.bias"][~told] = 0
        seconds = time.perf_counter() - start
        completed = replace(observation, update=replace(observation.update, tensors=tensors))
        found = super().reconstruct(completed, context)
        undetermined = int((completion.columns[:-1] <= _DETERMINED).sum())
        diagnostics: dict[str, Any] = dict(found.diagnostics) | {
            "completed_rank": completion.rank,
            "held_out_error": completion.held_out,
            "neurons_used": int((tensors[f"{layer.name}.weight"] != 0).any(dim=1).sum()),
            "pixels_undetermined": undetermined,
        }
        diagnostics["seconds"] = {"completion": seconds, **found.diagnostics["seconds"]}
        return replace(found, certified=_still_certified(found, completion, observation), diagnostics=diagnostics)


def _completed(pruned: Tensor, rank: int, context: Context) -> tuple[Tensor, Tensor]:
    """A weight gradient `[k, m]` of that rank at most, completed, and of which neurons it tells `[m]`.

    Rows of which too little was kept are zero.
    """
    known = pruned != 0
    spoke = (known.sum(dim=1) > rank).nonzero()[:, 0]
    whole = torch.zeros_like(pruned)
    if bool(known.all()) or not len(spoke):
        return pruned, torch.ones_like(known[0])
    completion = complete_matrix(pruned[spoke].double(), known[spoke], context.generator, rank, context.expired)
    kept = completion.rows > _DETERMINED
    # What completion misses looks like signal: noise of that size tells whoever reads the rank how far to trust it.
    noise = torch.randn(completion.matrix.shape, generator=context.generator, device=pruned.device, dtype=torch.float64)
    missed = completion.held_out * completion.matrix[known[spoke]].abs().median()
    whole[spoke[kept]] = (completion.matrix + missed * noise)[kept].to(pruned)
    return whole, completion.columns > _DETERMINED


def _still_certified(found: Reconstruction, completion: Completion, observation: Observation) -> Tensor | None:
    """The certificates whose predicted error, which is for whole data, leaves room for what is missing."""
    if found.certified is None:
        return None
    growth = (1 / (completion.known * completion.columns.min())) ** 0.5  # inf where a pixel or the scale is open
    error = found.certified.new_tensor(found.diagnostics["predicted_error_by_image"], dtype=torch.float64)
    return found.certified & (error * growth * observation.std.max() * SAFETY < EXACT)
