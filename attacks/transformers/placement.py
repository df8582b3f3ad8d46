"""From tokens that enter a block's MLP to the patches they were, and where these are in their image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from .block import Block
from .patches import PatchEmbedding
from .spans import Spans, linear

_LEFT = 0.1  # share of a token that its patch may leave unexplained: at another position it is far more
_DOUBTFUL = 10.0  # times what most tokens leave over: more is a mixture


@dataclass(frozen=True)
class Placed:
    """Tokens that are a patch's, with their patch."""

    patches: Tensor  # [K, n]
    position: Tensor  # [K], of the patch in the image
    left: Tensor  # [K], what the patch leaves unexplained of its token, as a share
    affinity: Tensor  # [K, K], with how much weight the token of a row attends to that of a column


def placed_patches(model: nn.Module, embedding: PatchEmbedding, block: Block, spans: Spans, entering: Tensor) -> Placed:
    """The patches of the tokens: what of a token is embedding, what position, and what attention has added to it.

    For a token u of mean 0, `s u = E p + attention + position` but for the mean, with the scale s, the patch p in the
    span of all patches and each head's attention in the span of what it is fed. The directions in which u is open are
    unknowns as well: of nearly equal tokens the positions tell the mixture.
    """
    joined, added = linear(model, block.qkv)
    out, out_bias = linear(model, block.out)
    width = len(out)
    values, constant = joined[2 * width :], added[2 * width :]
    parts = zip(out.chunk(block.heads, dim=1), values.chunk(block.heads), strict=True)
    heads = torch.cat([one @ (other @ spans.attended) for one, other in parts], dim=1)
    weight = embedding.weight.double()
    positions = embedding.added(model.get_parameter(embedding.positions).detach()).double() + embedding.bias.double()
    system = _centred(torch.cat([weight @ spans.patches, heads], dim=1))
    known = _centred((positions + out @ constant + out_bias).T)  # [width, T]
    inside = torch.linalg.qr(system).Q
    rest, missing = (each - inside @ (inside.T @ each) for each in (entering, known))
    token, position, amounts, left = _assigned(rest, missing, spans.images)
    tokens = (entering[token] @ amounts[:, :, None])[:, :, 0]  # [K, width], with their scale
    solved = torch.linalg.pinv(system) @ (tokens.T - known[:, position])
    own, fed = solved.split([spans.patches.shape[1], heads.shape[1]])
    patches = (spans.patches @ own).T
    entered = torch.cat([patches @ weight.T + positions[position], block.prefix.double()])
    first = nn.functional.layer_norm(entered, (width,), *linear(model, block.first))
    mixtures = spans.attended @ fed.view(block.heads, spans.attended.shape[1], len(position))  # [heads, width, K]
    weights = torch.linalg.pinv(first.T) @ mixtures  # [heads, K + before, K]
    return Placed(patches, position, left, weights.abs().mean(dim=0)[: len(position)].T)


def _assigned(rest: Tensor, missing: Tensor, images: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Which token is of which position, as often as there are images.

    A token that leaves over much more than most do may be a mixture of nearly equal ones: then the directions in which
    it is open are its unknowns too. Where noise has made one of two such tokens, it is used at both positions.

    Args:
        rest: tokens and their open directions, `[K, width, 1 + weak]`.
        missing: what a position's token must be, `[width, T]`.
        images: B.

    Returns:
        Tokens and positions `[N]`, the amounts `[N, 1 + weak]` of token and directions, and the share that is left.
    """
    alone, over = _fitted(rest[:, :, :1], missing)
    mixed, less = _fitted(rest, missing)
    alone = nn.functional.pad(alone, (0, 0, 0, rest.shape[2] - 1))
    best = over.amin(dim=1)
    doubtful = best > _DOUBTFUL * best.median()
    cost = torch.where(doubtful[:, None], less, over)
    real = (cost.amin(dim=1) < _LEFT).nonzero()[:, 0]  # the others are no patches' tokens
    chosen, slot = linear_sum_assignment(cost[real].repeat_interleave(images, dim=1).cpu().numpy())
    pairs = [(int(real[one]), int(place) // images) for one, place in zip(chosen, slot, strict=True)]
    pairs = [pair for pair in pairs if float(cost[pair]) < _LEFT]
    own = len(pairs)
    for place in range(missing.shape[1]):
        here = [one for one, taken in pairs if taken == place]
        others = [one for one in less[:, place].argsort().tolist() if one not in here]
        pairs += [(one, place) for one in others[: images - len(here)] if float(less[one, place]) < _LEFT]
    token, position = torch.tensor(pairs, dtype=torch.long, device=rest.device).view(-1, 2).T
    opened = doubtful[token] | (torch.arange(len(token), device=rest.device) >= own)
    amounts = torch.where(opened[:, None], mixed[token, :, position], alone[token, :, position])
    return token, position, amounts, torch.where(opened, less[token, position], over[token, position])


def _fitted(rest: Tensor, missing: Tensor) -> tuple[Tensor, Tensor]:
    """The amounts `[K, 1 + weak, T]` that suit each position best, and the share `[K, T]` that is left over."""
    amounts = torch.linalg.pinv(rest) @ missing
    return amounts, (rest @ amounts - missing).norm(dim=1) / missing.norm(dim=0)


def _centred(columns: Tensor) -> Tensor:
    return columns - columns.mean(dim=0)
