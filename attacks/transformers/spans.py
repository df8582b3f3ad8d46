"""What the gradients' row spaces say of a batch's tokens, patches and activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gibench.observation import Observation

from ..exact.low_rank import Factors, factorize
from .block import Block
from .patches import PatchEmbedding
from .separate import determined


@dataclass(frozen=True)
class Spans:
    """What the gradients' row spaces say, in float64."""

    images: int  # B
    tokens: int  # R, of all images
    patches: Tensor  # [n, B T], orthonormal: the span of all patches
    attended: Tensor  # [width, k], orthonormal: the span of what attention is fed
    up: Factors  # of the gradient of the MLP's first layer
    active: Tensor  # [m, R], orthonormal: the span of the activations


def too_many(model: nn.Module, embedding: PatchEmbedding, block: Block, images: int) -> str | None:
    """Why the tokens of so many images cannot be told apart, or None."""
    count, before = len(embedding.pixels), embedding.before
    width, numbers = embedding.weight.shape
    neurons = len(model.get_parameter(f"{block.up}.weight"))
    tokens, patches = images * (count + before), images * count
    unknown = patches + block.heads * (patches + before) + count  # of a token: its patch, each head, each position
    if patches < numbers and tokens < width and unknown < width and determined(tokens, neurons):
        return None
    return (
        f"{images} x {count + before} tokens are too many: needs fewer patches than the {numbers} numbers of one, "
        f"{unknown} unknowns of each token below the width {width}, and {tokens} tokens' {tokens * (tokens + 3) // 2} "
        f"products within the MLP's {neurons} neurons"
    )


def read_spans(
    observation: Observation, embedding: PatchEmbedding, block: Block, generator: torch.Generator
) -> Spans | str:
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
    if reason := too_many(observation.model, embedding, block, images):
        return reason
    return Spans(images, tokens, rows_of(embedded), rows_of(attended), up, rows_of(down))


def rows_of(factors: Factors) -> Tensor:
    """An orthonormal basis `[n, rank]` of the row space."""
    rows: Tensor = factors.inputs * (len(factors.basis) ** 0.5 / factors.singular_values[:, None])
    return rows.T


def linear(model: nn.Module, name: str) -> tuple[Tensor, Tensor]:
    """A layer's weight and bias, zero where it has none, in float64."""
    layer = model.get_submodule(name)
    weight = layer.get_parameter("weight").detach().double()
    bias = getattr(layer, "bias", None)
    return weight, weight.new_zeros(len(weight)) if bias is None else bias.detach().double()
