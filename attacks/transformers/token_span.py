"""Whole batches from the first block of a vision transformer: every token apart, then its patch, then its image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from gibench.attack import Attack, Context, Reconstruction, lacking
from gibench.observation import Observation

from ..exact.linear_layer import features
from ..exact.layers import InputLayer
from ..exact.low_rank import Factors, factorize
from .block import Block, find_block
from .grouping import grouped
from .patches import PatchEmbedding, find_patch_embedding
from .separate import TokenEquations, determined, separate


class TokenSpan(Attack):
    """Recovers the images of a batch whose tokens are fewer than the numbers of one.

    A batch of B images of T patches sends `R = B (T + 1)` tokens through the first block (with a class token). Then:

    1. The gradients of its MLP's two layers have rank R, and tell the tokens that enter the MLP apart, see
       `separate.py`.
    2. Such a token is, but for the scale and mean that the normalisation took, its patch's embedding, its position and
       what attention adds. The embedding's gradient and that of queries, keys and values have the span of all patches
       and of all that attention is fed, so this is linear in few unknowns: the patch, its position being the one that
       leaves nothing over.
    3. What attention added is a mean of what the tokens of the same image have, so its weights say which patches
       belong together, see `grouping.py`.

    Nothing is drawn from a prior, and nothing is certified: what an image leaves over in 2 is in the diagnostics.

    Ours. DAGER lists the tokens of a vocabulary and asks of each whether it lies in the row space of a gradient; TIGER
    moves embeddings to the least distance from it. Patches cannot be listed, and of attention's gradient alone the
    span tells little: normalisation only scales, so that every affine mixture of the batch's patches at a position
    lies in it as well. The activation of the MLP tells them from mixtures, as in `layer-pair`.
    """

    references: ClassVar[tuple[str, ...]] = (
        "nearest work: Petrov et al., DAGER: Exact Gradient Inversion for Large Language Models, NeurIPS 2024, "
        "arXiv 2405.15586",
        "nearest work: Kalikman et al., TIGER: Inverting Transformer Gradients via Embedding-Subspace Distance "
        "Optimization, 2026, arXiv 2606.18312",
    )

    def supports(self, observation: Observation) -> str | None:
        embedding = find_patch_embedding(observation.model, observation.image_shape)
        if isinstance(embedding, str):
            return embedding
        if not embedding.positions:
            return f"needs learned positions that are added to what '{embedding.name}' makes of each patch"
        block = find_block(observation.model, observation.image_shape, embedding)
        if isinstance(block, str):
            return block
        read = [embedding.name, block.qkv, block.up, block.down]
        if reason := lacking(observation, [f"{name}.weight" for name in read] + [f"{block.up}.bias"]):
            return reason
        return _too_many(observation.model, embedding, block, observation.batch_size or 1)

    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        observation = observation.in_single()
        embedding = find_patch_embedding(observation.model, observation.image_shape)
        assert isinstance(embedding, PatchEmbedding)  # else it is not supported
        block = find_block(observation.model, observation.image_shape, embedding)
        assert isinstance(block, Block)
        context.progress("reading the ranks off the singular values", None)
        spans = _read(observation, embedding, block, context.generator)
        if isinstance(spans, str):
            return _nothing(observation, spans)
        context.progress(f"telling {spans.tokens} tokens apart", None)
        entering = _tokens(observation.model, block, spans, context)
        placed = _placed(observation.model, embedding, block, spans, entering)
        members = grouped(placed.position.tolist(), placed.affinity.tolist(), len(embedding.pixels))[: spans.images]
        patches = placed.patches.new_zeros(len(members), *embedding.pixels.shape)
        left = []
        for image, tokens in zip(patches, members, strict=True):
            image[placed.position[tokens]] = placed.patches[tokens]
            left.append(float(placed.left[tokens].max()))
        images = observation.denormalize(embedding.images(patches, observation.image_shape))
        return Reconstruction(
            images.nan_to_num(0.5, 1, 0).clamp(0, 1),
            diagnostics={
                "finding": ""
                if len(entering) == spans.tokens
                else f"{spans.tokens - len(entering)} of {spans.tokens} tokens are not found",
                "images": spans.images,
                "tokens": spans.tokens,
                "tokens_found": len(entering),
                "patches_by_image": [len(tokens) for tokens in members],
                "left_over_by_image": left,
            },
        )


@dataclass(frozen=True)
class _Spans:
    """What the gradients' row spaces say, in float64."""

    images: int  # B
    tokens: int  # R, of all images
    patches: Tensor  # [n, B T], orthonormal: the span of all patches
    attended: Tensor  # [width, k], orthonormal: the span of what attention is fed
    up: Factors  # of the gradient of the MLP's first layer
    active: Tensor  # [m, R], orthonormal: the span of the activations


def _too_many(model: nn.Module, embedding: PatchEmbedding, block: Block, images: int) -> str | None:
    """Why the tokens of so many images cannot be told apart, or None."""
    count, before = len(embedding.pixels), embedding.before
    width, neurons = len(embedding.weight), len(model.get_parameter(f"{block.up}.weight"))
    tokens = images * (count + before)
    if images * count < min(embedding.weight.shape) and tokens < width and determined(tokens, neurons):
        return None
    return (
        f"{images} x {count + before} tokens are too many: needs fewer patches than the {min(embedding.weight.shape)} "
        f"numbers of one, fewer tokens than the width {width}, and {neurons} neurons for every pair of tokens"
    )


def _read(
    observation: Observation, embedding: PatchEmbedding, block: Block, generator: torch.Generator
) -> _Spans | str:
    """The spans, or why the gradients do not have them."""
    gradient = observation.gradient()

    def factors(name: str, weight: Tensor) -> Factors | None:
        bias = gradient.get(f"{name}.bias", weight.new_zeros(len(weight)))
        return factorize(weight, bias, generator)

    parts = gradient[f"{block.qkv}.weight"].chunk(3)  # queries and keys are sent back far less than values
    joined = torch.cat([part / part.norm().clamp_min(torch.finfo(part.dtype).tiny) for part in parts])
    embedded, attended, up, down = (
        factors(embedding.name, gradient[f"{embedding.name}.weight"].flatten(1)),
        factorize(joined, joined.new_zeros(len(joined)), generator),
        factors(block.up, gradient[f"{block.up}.weight"]),
        factors(block.down, gradient[f"{block.down}.weight"]),
    )
    if embedded is None or attended is None or up is None or down is None:
        return "the gradients' singular values show no rank gap"
    count, ranks = len(embedding.pixels), (embedded.rank, up.rank, down.rank)
    images = ranks[0] // count
    tokens = images * (count + embedding.before)
    if ranks != (images * count, tokens, tokens):
        return (
            f"the ranks {ranks[0]}, {ranks[1]} and {ranks[2]} of the gradients of '{embedding.name}', '{block.up}' and "
            f"'{block.down}' are not those of whole images of {count} patches"
        )
    if reason := _too_many(observation.model, embedding, block, images):
        return reason
    return _Spans(images, tokens, _rows(embedded), _rows(attended), up, _rows(down))


def _rows(factors: Factors) -> Tensor:
    """An orthonormal basis `[n, rank]` of the row space."""
    return (factors.inputs * (len(factors.basis) ** 0.5 / factors.singular_values[:, None])).T


def _linear(model: nn.Module, name: str) -> tuple[Tensor, Tensor]:
    """A layer's weight and bias, zero where it has none, in float64."""
    layer = model.get_submodule(name)
    weight = layer.get_parameter("weight").detach().double()
    bias = getattr(layer, "bias", None)
    return weight, weight.new_zeros(len(weight)) if bias is None else bias.detach().double()


def _tokens(model: nn.Module, block: Block, spans: _Spans, context: Context) -> Tensor:
    """What enters the MLP, before the weights of its normalisation: `[K, width]`, each of mean 0 and variance 1."""
    weight, bias = _linear(model, block.up)
    scale, shift = _linear(model, block.second)
    rows, up = _rows(spans.up), spans.up
    ones = up.ones * len(up.basis) ** 0.5 / up.singular_values
    equations = TokenEquations(
        features=weight @ rows + torch.outer(bias, ones),
        activations=spans.active,
        ones=ones,
        activation=block.activation,
        spread=float((weight.square() @ (scale.square() + shift.square())).mean().sqrt()),
    )

    def normalized(points: Tensor) -> Tensor:
        return (points @ rows.T - shift) / scale

    def length(points: Tensor) -> Tensor:
        return normalized(points).norm(dim=1) / len(rows) ** 0.5

    return normalized(separate(equations, length, context.generator, context.expired))


@dataclass(frozen=True)
class _Placed:
    """Tokens that are a patch's, with their patch."""

    patches: Tensor  # [K, n]
    position: Tensor  # [K], of the patch in the image
    left: Tensor  # [K], what the patch leaves unexplained of its token, as a share of its length
    affinity: Tensor  # [K, K], with how much weight the token of a row attends to that of a column


_LEFT = 0.2  # of a token's length that a patch may leave unexplained: of another position's it is far more


def _placed(
    model: nn.Module, embedding: PatchEmbedding, block: Block, spans: _Spans, entering: Tensor
) -> _Placed:
    """The patches of the tokens: what of a token is embedding, what position, and what attention has added to it.

    For a token u of mean 0, `s u = E p + attention + position` but for the mean, with the scale s, the patch p in the
    span of all patches and each head's attention in the span of what it is fed.
    """
    joined, added = _linear(model, block.qkv)
    out, out_bias = _linear(model, block.out)
    width = len(out)
    values, constant = joined[2 * width :], added[2 * width :]
    heads = torch.cat(
        [
            one @ (each @ spans.attended)
            for one, each in zip(out.chunk(block.heads, dim=1), values.chunk(block.heads), strict=True)
        ],
        dim=1,
    )
    weight = embedding.weight.double()
    positions = embedding.added(model.get_parameter(embedding.positions).detach()).double() + embedding.bias.double()
    system = _centred(torch.cat([weight @ spans.patches, heads], dim=1))
    known = _centred((positions + out @ constant + out_bias).T)  # [width, T]
    outside = torch.linalg.qr(system).Q
    tokens = entering.T
    rest, missing = (each - outside @ (outside.T @ each) for each in (tokens, known))
    scale = (rest.T @ missing) / rest.square().sum(dim=0)[:, None]  # [K, T]
    over = (scale[:, None] * rest.T[:, :, None] - missing).norm(dim=1) / missing.norm(dim=0)
    left, position = over.min(dim=1)
    real = (left < _LEFT).nonzero()[:, 0]  # the others are no patches' tokens
    position, left = position[real], left[real]
    due = scale[real, position] * tokens[:, real] - known[:, position]
    solved = torch.linalg.lstsq(system, due).solution
    own, fed = solved.split([spans.patches.shape[1], heads.shape[1]])
    patches = (spans.patches @ own).T
    entered = torch.cat([patches @ weight.T + positions[position], block.prefix.double()])
    scale_first, shift_first = _linear(model, block.first)
    first = nn.functional.layer_norm(entered, (width,), scale_first, shift_first)
    mixtures = spans.attended @ fed.view(block.heads, -1, len(real))  # [heads, width, K]
    weights = torch.linalg.lstsq(first.T, mixtures.transpose(0, 1).flatten(1)).solution
    affinity = weights.view(len(first), block.heads, -1).abs().mean(dim=1)[: len(real)].T
    return _Placed(patches, position, left, affinity)


def _centred(columns: Tensor) -> Tensor:
    return columns - columns.mean(dim=0)


def _nothing(observation: Observation, finding: str) -> Reconstruction:
    images = torch.zeros(0, *observation.image_shape, device=observation.mean.device)
    return Reconstruction(images, diagnostics={"finding": finding})
