"""The closed form: a row of a linear layer's weight gradient over its entry of the bias gradient is an image."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from gibench.attack import Attack, Context, Reconstruction, lacking
from gibench.observation import Observation

from .layers import find_first_linear
from .neurons import distinct_neurons

_OPPOSITE = 2  # neurons that may agree whatever the batch: their derivatives are each other's negative


class Analytic(Attack):
    """Phong et al.; Geiping et al., section 3: `dL/dW_j / dL/db_j` for each neuron j of the first linear layer.

    It is the mean of the images weighted by their derivatives at that neuron: for one image the image itself, and in a
    batch the image of every neuron that fires for that one alone. Of the rows that could be images, all pixels in
    [0, 1], those that several neurons agree on come first, then those with the most variance.

    Images are certified only where all neurons agree, which a batch of one image alone brings about: a few neurons may
    agree on a mixture of images whose derivatives are alike. Copies of one neuron do, and so do the two logits of a
    linear model of two classes, so more than two distinct neurons must agree.
    """

    references: ClassVar[tuple[str, ...]] = (
        "Phong et al., Privacy-Preserving Deep Learning via Additively Homomorphic Encryption, IEEE TIFS 2018",
        "Geiping et al., Inverting Gradients: How easy is it to break privacy in federated learning?, NeurIPS 2020, "
        "arXiv 2003.14053",
    )

    tolerance: float = Field(1e-3, gt=0, description="how far, in pixels of [0, 1], rows that agree may differ")

    def supports(self, observation: Observation) -> str | None:
        name = find_first_linear(observation.model, observation.image_shape)
        if not name:
            return "needs a linear layer fed by the flattened images"
        if observation.model.get_submodule(name).bias is None:
            return f"needs a bias in the first linear layer ('{name}' has none)"
        return lacking(observation, [f"{name}.weight", f"{name}.bias"])

    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        name = find_first_linear(observation.model, observation.image_shape)
        gradient = observation.gradient()
        weight, bias = gradient[f"{name}.weight"].double(), gradient[f"{name}.bias"].double()
        alive = bias.abs() > 1e-6 * bias.abs().max()
        rows = (weight[alive] / bias[alive, None]).view(-1, *observation.image_shape)
        pixels = observation.denormalize(rows)
        outside = torch.maximum(-pixels, pixels - 1).flatten(1).amax(1) if len(pixels) else bias.new_zeros(0)
        pixels = pixels[outside < self.tolerance]
        groups = _agreeing(pixels.flatten(1), self.tolerance)
        groups.sort(key=lambda group: (len(group), float(pixels[group[0]].var())), reverse=True)
        agreed = [group for group in groups if len(group) > 1]
        limit = observation.batch_size if observation.batch_size is not None else max(len(agreed), 1)
        images = [pixels[group].median(0).values for group in groups[:limit]]
        found = torch.stack(images) if images else pixels.new_zeros(0, *observation.image_shape)
        alone = len(groups) == 1 and len(groups[0]) == int(alive.sum())
        layer = [observation.model.get_parameter(f"{name}.{kind}").detach()[alive] for kind in ("weight", "bias")]
        alone = alone and int(distinct_neurons(*layer).max()) >= _OPPOSITE
        return Reconstruction(
            found.clamp(0, 1),
            certified=torch.full((len(found),), alone, device=found.device),
            diagnostics={"neurons": int(alive.sum()), "in_range": len(pixels), "agreed": len(agreed)},
        )


def _agreeing(rows: Tensor, tolerance: float) -> list[list[int]]:
    """Rows `[K, n]` in groups that differ from their first by less than the tolerance in every pixel."""
    left = list(range(len(rows)))
    groups = []
    while left:
        near = (rows[left] - rows[left[0]]).abs().amax(1) < tolerance
        groups.append([index for index, same in zip(left, near.tolist(), strict=True) if same])
        left = [index for index, same in zip(left, near.tolist(), strict=True) if not same]
    return groups
