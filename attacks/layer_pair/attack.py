"""Whole batches, exactly, from the gradients of two successive linear layers with an activation between."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from gibench.attack import Attack, Context, Reconstruction, lacking
from gibench.observation import Observation

from ..exact.layers import find_input_layer, next_linear
from ..exact.likelihood import Likely, polish
from ..exact.linear_layer import read_gradient, unsupported
from ..trunk.attack import images_behind
from ..trunk.network import Behind, behind_trunk
from .claims import CONTRADICTED, claims
from .free_scales import look_with_free_scales
from .next_layer import NO_PAIR, read_next_layer
from .rounds import find_images


class LayerPair(Attack):
    """Recovers every image of a batch from the gradients of the first two linear layers, a known activation between.

    The row space of the second gradient holds each image's activations, and the first gradient's row space its pixels:
    fixed points between an activation pattern and the point that fits it best are images, see `equations.py`, where
    smooth activations are too. Starts are random and all move at once, by products (`search.py`) while these find
    images, by solves after; once images are found, later starts lie in the space that their directions leave. An image
    that satisfies its equations within the noise is certified, if no image of the batch may hide in the mean of
    several. Under noise a whole batch is moved to where all layers' gradients are most likely, see
    `exact/likelihood.py`.

    Behind convolutions, or where the images' own layer cannot be read and a later pair can, what is recovered are the
    features that enter the first of the two layers, and each image is sought by its own, see `trunk/`.

    Beside SPEAR and SPEAR++ it needs one layer more, and in exchange no sparse columns: near-duplicates, trained
    networks and widths below four times the batch are no obstacles in themselves.

    Ours; the nearest work tests what transformers are fed against the row space of a gradient. DAGER takes discrete
    tokens from a vocabulary and asks of each candidate whether it lies in that space; TIGER moves embeddings to the
    least distance from it. Here no candidates are listed: an image is a point of the first gradient's row space, and
    given a ReLU pattern its place in the second's is a linear problem, so what a descent comes near is solved exactly.
    """

    references: ClassVar[tuple[str, ...]] = (
        "the rank and row space of a linear layer's gradient: Dimitrov et al., SPEAR: Exact Gradient Inversion of "
        "Batches in Federated Learning, NeurIPS 2024, arXiv 2403.03945",
        "nearest work: Petrov et al., DAGER: Exact Gradient Inversion for Large Language Models, NeurIPS 2024, "
        "arXiv 2405.15586",
        "nearest work: Kalikman et al., TIGER: Inverting Transformer Gradients via Embedding-Subspace Distance "
        "Optimization, 2026, arXiv 2606.18312",
    )

    patience: int = Field(10, ge=1, description="rounds of solves without a new image before it gives up")
    starts: int = Field(2, ge=1, description="of each round of solves, for every image not yet found")

    def supports(self, observation: Observation) -> str | None:
        behind = behind_trunk(observation, self._applies)
        if isinstance(behind, str):
            return behind
        return self._applies(observation if behind is None else behind.shown)

    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        behind = behind_trunk(observation, self._applies)
        if isinstance(behind, Behind):
            return images_behind(behind, observation, self._read, context)
        return self._read(observation, context)

    def _applies(self, observation: Observation) -> str | None:
        """Why the first two linear layers' gradients tell nothing, or None."""
        if reason := unsupported(observation):
            return reason
        layer = find_input_layer(observation.model, observation.image_shape)
        name = None if isinstance(layer, str) else next_linear(observation.model, layer)
        if name is None:
            return NO_PAIR
        return lacking(observation, [f"{name}.weight"])

    def _read(self, observation: Observation, context: Context) -> Reconstruction:
        """What the first linear layer is fed."""
        context.progress("reading the ranks off the singular values", None)
        gradient = read_gradient(observation, context.generator)
        if gradient is None:
            return _nothing(observation, "the gradient's singular values show no rank gap", 0)
        following = read_next_layer(observation, gradient, context.generator)
        if isinstance(following, str):
            return _nothing(observation, following, gradient.factors.rank)
        best = find_images(following, following.triangle[:, :0], self.patience, self.starts, context)
        withheld = ""
        for _ in range(2):  # the second time with free scales, where the images contradict the bias gradient's
            doubted, budget = withheld == CONTRADICTED, (self.patience, self.starts, context)
            following, best = look_with_free_scales(following, best, *budget, doubted=doubted)
            certified, errors, withheld = claims(observation, gradient, following, best, context.expired)
            if withheld != CONTRADICTED:
                break
        likely = Likely(best.images, errors, certified, False)
        if not bool(certified.all()):
            likely = polish(observation, gradient, best.images, errors, certified, context)
        certified = likely.certified
        order = certified.to(torch.uint8).argsort(descending=True, stable=True)
        images = observation.denormalize(likely.inputs.view(-1, *observation.image_shape))
        rank, solved = gradient.factors.rank, int(best.solved.sum())
        return Reconstruction(
            images.nan_to_num(0.5, 1, 0)[order],
            certified=certified[order],
            diagnostics={
                "finding": f"{rank - solved} of {rank} images are not found" if solved < rank else "",
                "rank": rank,
                "withheld": withheld,
                "next_rank": following.second.rank,
                "scales_by_next_layer": bool(following.free),
                "solved": solved,
                "residual_by_image": best.residual[order].tolist(),
                "predicted_error_by_image": likely.error[order].tolist(),
                "most_likely": likely.moved,
            },
        )


def _nothing(observation: Observation, finding: str, rank: int) -> Reconstruction:
    images = torch.zeros(0, *observation.image_shape, device=observation.mean.device)
    return Reconstruction(images, diagnostics={"finding": finding, "rank": rank})
