"""The first block of a transformer as it is computed, found out by sending images through.

Looked for is the block of the vision transformer: x + attention(norm(x)), then x + MLP(norm(x)). Its layers are known
by what enters and leaves them, so that no name and no source is trusted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .patches import PatchEmbedding, listening

Activation = Callable[[Tensor], Tensor]

_ACTIVATIONS: tuple[Activation, ...] = (F.gelu, partial(F.gelu, approximate="tanh"), F.silu)
_SAME = 1e-4  # of what is compared: what the order of sums may change in it
_PROBES = 2
_NEEDS = (
    "needs a first block as in ViT: normalisation, attention from one layer of queries, keys and values and another "
    "after it, normalisation, two linear layers with GELU or SiLU between, each half added to what enters it"
)


@dataclass(frozen=True)
class Block:
    """The first block's layers by name, and what is before it."""

    first: str  # LayerNorm
    qkv: str  # linear, `[3 width, width]`: queries, keys, values, each head after head
    out: str  # linear, after the heads
    second: str  # LayerNorm
    up: str  # linear, of the MLP
    down: str
    heads: int
    activation: Activation
    prefix: Tensor  # [before, width], the tokens before those of patches, which all images share


def find_block(model: nn.Module, image_shape: tuple[int, int, int], embedding: PatchEmbedding) -> Block | str:
    """The first block, or the reason why the model has none of this kind."""
    like = next(model.parameters())
    generator = torch.Generator(like.device).manual_seed(0)
    images = torch.randn(_PROBES, *image_shape, generator=generator, device=like.device, dtype=like.dtype)
    with listening(model, (nn.LayerNorm, nn.Linear)) as calls, torch.no_grad():
        model(images)
    names = [name for name, _, _ in calls]
    calls = [call for call in calls if names.count(call[0]) == 1]
    patches = embedding.patches(images) @ embedding.weight.T + embedding.bias
    tokens = patches + embedding.added(model.get_parameter(embedding.positions).detach())
    for (first, x, normed), (qkv, entered, left), (out, mixed, added), (second, y, again), (up, fed, risen), (
        down,
        active,
        _,
    ) in zip(*(calls[k:] for k in range(6)), strict=False):
        kinds = [isinstance(model.get_submodule(name), nn.LayerNorm) for name in (first, qkv, out, second, up, down)]
        if kinds != [True, False, False, True, False, False] or x.ndim != 3:
            continue
        heads = _heads(left, mixed)
        activation = next((each for each in _ACTIVATIONS if _same(each(risen), active)), None)
        flow = [(x[:, embedding.before :], tokens), (entered, normed), (y, x + added), (fed, again)]
        if heads and activation and all(_same(*each) for each in flow) and _alike(x[:, : embedding.before]):
            return Block(first, qkv, out, second, up, down, heads, activation, x[0, : embedding.before])
        break
    return _NEEDS


def _heads(joined: Tensor, mixed: Tensor) -> int:
    """How many heads make the mixed tokens of queries, keys and values; 0 where none do."""
    width = mixed.shape[-1]
    if joined.shape[:-1] != mixed.shape[:-1] or joined.shape[-1] != 3 * width:
        return 0
    for heads in (each for each in range(1, width + 1) if width % each == 0):
        queries, keys, values = joined.reshape(*joined.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(queries, keys, values)
        if _same(attended.transpose(1, 2).flatten(2), mixed):
            return heads
    return 0


def _alike(tokens: Tensor) -> bool:
    return all(_same(one, other) for one, other in pairwise(tokens))


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).norm() <= _SAME * other.norm())
