"""The closed form for one image: what positions are sent back makes the patch embedding's gradient a linear system."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from gibench.attack import Attack, Context, Reconstruction, lacking
from gibench.observation import Observation

from ..exact.linear_layer import EXACT, SAFETY
from ..optimization.labels import output_layer
from .patches import PatchEmbedding, find_patch_embedding

_OTHERS = 0.1  # share of the gradient that one image does not explain
_HIDDEN = 0.05  # predicted error, in pixels of [0, 1]: what is found is no image then


class April(Attack):
    """Lu et al.: learned positions are added to the tokens, so their gradient is that of every token of the one image.

    With `D = dL/dE_pos [T, width]` known, the gradient of the patch embedding is `D^T P` for the patches `P [T, n]`:
    linear, with one solution where D has rank T. Under noise it is regularised by what the residual shows of the noise,
    pixels having unit variance.

    Deviation: the paper solves the system that the first attention's weights make, `D^T z = W_q^T dL/dW_q +
    W_k^T dL/dW_k + W_v^T dL/dW_v` for its input z, and so asks for a network without residual and normalisation there
    (its design A). The patch embedding's own gradient is a system with the same D, which holds whatever follows.

    The image is certified where five standard deviations of the predicted error are within half a grey level, and the
    network, shown it, sends back the same direction to the positions, far better than if it were half a grey level
    brighter or darker: a client that scales the two gradients differently would shift it.
    """

    references: ClassVar[tuple[str, ...]] = (
        "Lu et al., APRIL: Finding the Achilles' Heel on Privacy for Vision Transformers, CVPR 2022, arXiv 2112.14087",
    )

    def supports(self, observation: Observation) -> str | None:
        if observation.batch_size is not None and observation.batch_size > 1:
            return (
                f"is a closed form for one image: the positions are sent back the sum of the {observation.batch_size} "
                "images' tokens"
            )
        embedding = find_patch_embedding(observation.model, observation.image_shape)
        if isinstance(embedding, str):
            return embedding
        if not embedding.positions:
            return f"needs learned positions that are added to what '{embedding.name}' makes of each patch"
        if (count := len(embedding.pixels)) > len(embedding.weight):
            return f"needs tokens of at least as many numbers as there are patches, {count}, and they have " + str(
                len(embedding.weight)
            )
        return lacking(observation, [f"{embedding.name}.weight", embedding.positions])

    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        observation = observation.in_single()
        embedding = find_patch_embedding(observation.model, observation.image_shape)
        assert isinstance(embedding, PatchEmbedding)  # else it is not supported
        gradient = observation.gradient()
        back = embedding.added(gradient[embedding.positions]).double()
        if not bool(back.any()):
            none = back.new_zeros(0, *observation.image_shape)
            return Reconstruction(none, diagnostics={"finding": "nothing is sent back to the positions"})
        sent = gradient[f"{embedding.name}.weight"].flatten(1).double()
        patches, error, unexplained = solve_patches(back, sent)
        inputs = embedding.images(patches[None], observation.image_shape)
        label = _label(observation, gradient)
        predicted = error * float(observation.std.max())
        hidden = predicted > _HIDDEN or unexplained > _OTHERS
        certified = SAFETY * predicted < EXACT and _sent_back(observation, embedding, inputs, back, label)
        return Reconstruction(
            observation.denormalize(inputs).nan_to_num(0.5, 1, 0).clamp(0, 1),
            labels=label if observation.labels is None else None,
            certified=torch.tensor([certified], device=inputs.device),
            diagnostics={
                "layer": embedding.name,
                "positions": embedding.positions,
                "unexplained": unexplained,
                "predicted_error": predicted,
                "finding": "the gradient is not of one image, or noise hides it" if hidden else "",
            },
        )


def solve_patches(back: Tensor, sent: Tensor) -> tuple[Tensor, float, float]:
    """The patches of which the embedding's gradient is made.

    Args:
        back: what each token is sent back, D `[T, width]` in float64.
        sent: the embedding's gradient, `D^T P [width, n]`.

    Returns:
        P `[T, n]`, the standard deviation of its worst patch's numbers, and the share of the gradient's length that it
        leaves unexplained.
    """
    left, values, right = torch.linalg.svd(back.mT, full_matrices=False)
    inside = left.mT @ sent
    outside = (sent - left @ inside).norm()
    tiny = torch.finfo(values.dtype).tiny
    free = max((len(left) - len(values)) * sent.shape[1], 1)
    noise = float(outside) / free**0.5
    inverse = right.mT * (values / (values.square() + noise**2).clamp_min(tiny))
    error = noise * float((right.mT / values.clamp_min(tiny)).norm(dim=1).max())
    return inverse @ inside, error, float(outside / sent.norm().clamp_min(tiny))


def _label(observation: Observation, gradient: dict[str, Tensor]) -> Tensor | None:
    """The one image's class `[1]`: it alone raises its logit, so its entry of the last bias's gradient is negative."""
    if observation.labels is not None:
        return observation.labels
    name = output_layer(observation.model, observation.num_classes, observation.image_shape)
    if name is None or f"{name}.bias" not in gradient:
        return None
    return gradient[f"{name}.bias"].argmin()[None]


def _sent_back(
    observation: Observation, embedding: PatchEmbedding, inputs: Tensor, back: Tensor, label: Tensor | None
) -> bool:
    """Whether the network, shown the image, sends this direction back to its patches' positions."""
    if label is None:
        return False
    half = EXACT / float(inputs.abs().max() * observation.std.max())
    distance = []
    for scale in (1.0, 1 + half, 1 - half):
        own = _gradient_at_positions(observation, embedding, scale * inputs, label)
        distance.append((own / own.norm() - back / back.norm()).norm())
    return bool(SAFETY * distance[0] < min(distance[1:]))


def _gradient_at_positions(
    observation: Observation, embedding: PatchEmbedding, inputs: Tensor, label: Tensor
) -> Tensor:
    """`[T, width]` in float64."""
    model = observation.model
    positions = model.get_parameter(embedding.positions)
    state = {embedding.positions: positions.detach().clone().requires_grad_()}
    with torch.enable_grad(), torch.random.fork_rng([positions.device] if positions.is_cuda else []):
        buffers = {name: each.clone() for name, each in model.named_buffers()}
        logits = torch.func.functional_call(model, {**buffers, **state}, (inputs.to(positions),))
        (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, label), list(state.values()))
    return embedding.added(gradient).double()
