"""Whole batches from the first block of a vision transformer: every token apart, then its patch, then its image."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from gibench.attack import Attack, Context, Reconstruction, lacking
from gibench.observation import Observation

from .block import Block, find_block
from .grouping import grouped
from .patches import PatchEmbedding, find_patch_embedding
from .placement import placed_patches
from .separate import TokenEquations, separate
from .spans import Spans, linear, read_spans, rows_of, too_many

_WEAK = 2  # directions in which a token is left open


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
        return too_many(observation.model, embedding, block, observation.batch_size or 1)

    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        observation = observation.in_single()
        embedding = find_patch_embedding(observation.model, observation.image_shape)
        assert isinstance(embedding, PatchEmbedding)  # else it is not supported
        block = find_block(observation.model, observation.image_shape, embedding)
        assert isinstance(block, Block)
        context.progress("reading the ranks off the singular values", None)
        spans = read_spans(observation, embedding, block, context.generator)
        if isinstance(spans, str):
            return _nothing(observation, spans)
        context.progress(f"telling {spans.tokens} tokens apart", None)
        entering = _tokens(observation.model, block, spans, context)
        placed = placed_patches(observation.model, embedding, block, spans, entering)
        members = grouped(placed.position.tolist(), placed.affinity.tolist(), len(embedding.pixels))[: spans.images]
        patches = placed.patches.new_zeros(len(members), *embedding.pixels.shape)  # what is not found is mid-range
        left, lost = [], spans.tokens - len(entering)
        for image, tokens in zip(patches, members, strict=True):
            image[placed.position[tokens]] = placed.patches[tokens]
            left.append(float(placed.left[tokens].max()))
        images = observation.denormalize(embedding.images(patches, observation.image_shape))
        return Reconstruction(
            images.nan_to_num(0.5, 1, 0).clamp(0, 1),
            diagnostics={
                "finding": f"{lost} of {spans.tokens} tokens are not found" if lost else "",
                "images": spans.images,
                "tokens": spans.tokens,
                "tokens_found": len(entering),
                "patches_by_image": [len(tokens) for tokens in members],
                "left_over_by_image": left,
            },
        )


def _tokens(model: nn.Module, block: Block, spans: Spans, context: Context) -> Tensor:
    """What enters the MLP, before the weights of its normalisation, each of mean 0 and variance 1.

    `[K, width, 1 + weak]`: beside each token the directions in which its equations hold it least. Of two tokens that
    are nearly one, noise leaves open which mixture of them is a solution.
    """
    weight, bias = linear(model, block.up)
    scale, shift = linear(model, block.second)
    rows, up = rows_of(spans.up), spans.up
    ones = up.ones * len(up.basis) ** 0.5 / up.singular_values
    equations = TokenEquations(
        features=weight @ rows + torch.outer(bias, ones),
        activations=spans.active,
        ones=ones,
        activation=block.activation,
        spread=float((weight.square() @ (scale.square() + shift.square())).mean().sqrt()),
    )

    def length(points: Tensor) -> Tensor:
        lengths: Tensor = ((points @ rows.T - shift) / scale).norm(dim=1) / len(rows) ** 0.5
        return lengths

    points = separate(equations, length, context.generator, context.expired)
    directions = rows @ equations.weakest(points, min(_WEAK, len(ones) - 1))
    tokens: Tensor = torch.cat([(points @ rows.T - shift)[:, :, None], directions], dim=2) / scale[:, None]
    return tokens


def _nothing(observation: Observation, finding: str) -> Reconstruction:
    images = torch.zeros(0, *observation.image_shape, device=observation.mean.device)
    return Reconstruction(images, diagnostics={"finding": finding})
