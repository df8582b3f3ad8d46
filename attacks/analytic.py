"""The closed form: a row of a linear layer's weight gradient over its entry of the bias gradient is an image."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from gibench.attack import Attack, Context, Reconstruction, lacking
from gibench.observation import Observation

from .exact.chunks import chunks
from .exact.layers import NOT_FED, FirstLinear, find_first_linear, last_called, not_its_own
from .exact.linear_layer import EXACT, SAFETY, read_gradient, unsupported
from .exact.neurons import distinct_neurons
from .exact.witness import fit_scales, read_second

_OPPOSITE = 2  # neurons that may agree whatever the batch: their derivatives are each other's negative


class Analytic(Attack):
    """Phong et al.; Geiping et al., section 3: `dL/dW_j / dL/db_j` for each neuron j of the first linear layer.

    It is the mean of the images weighted by their derivatives at that neuron: for one image the image itself, and in a
    batch the image of every neuron that fires for that one alone. Of the rows that could be images, all pixels in
    [0, 1], those that several neurons agree on come first, then those with the most variance.

    An image is certified only where all neurons agree, which a batch of one image brings about, or several that the
    network does not tell apart: not where a larger batch size is known. Copies of one neuron agree whatever the batch,
    and so do the two logits of a linear model of two classes, so more than two distinct neurons must. And the network
    must confirm the scale, which a client that scales weights and biases differently would shift: by the next layer's
    gradient (`exact/witness.py`) or, where the layer makes the logits, by its answer to the image, which is the bias
    gradient. Of other networks nothing is certified.
    """

    references: ClassVar[tuple[str, ...]] = (
        "Phong et al., Privacy-Preserving Deep Learning via Additively Homomorphic Encryption, IEEE TIFS 2018",
        "Geiping et al., Inverting Gradients: How easy is it to break privacy in federated learning?, NeurIPS 2020, "
        "arXiv 2003.14053",
    )

    tolerance: float = Field(1e-3, gt=0, description="how far, in pixels of [0, 1], rows that agree may differ")

    def supports(self, observation: Observation) -> str | None:
        first = find_first_linear(observation.model, observation.image_shape)
        if first is None:
            return NOT_FED
        name = first.name
        if observation.model.get_submodule(name).bias is None:
            return f"needs a bias in the first linear layer ('{name}' has none)"
        return not_its_own(observation.model, name, observation.image_shape) or lacking(
            observation, [f"{name}.weight", f"{name}.bias"]
        )

    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        first = find_first_linear(observation.model, observation.image_shape)
        assert first is not None  # else it is unsupported
        name, gradient = first.name, observation.gradient()
        weight, bias = first.by_pixel(gradient[f"{name}.weight"]), gradient[f"{name}.bias"].double()
        alive = bias.abs() > 1e-6 * bias.abs().max()
        pixels = self._in_range(weight, bias, alive.nonzero()[:, 0], observation)
        groups = _agreeing(pixels.flatten(1), self.tolerance)
        groups.sort(key=lambda group: (len(group), float(pixels[group[0]].var())), reverse=True)
        agreed = [group for group in groups if len(group) > 1]
        limit = observation.batch_size if observation.batch_size is not None else max(len(agreed), 1)
        images = [pixels[group].median(0).values for group in groups[:limit]]
        found = torch.stack(images) if images else pixels.new_zeros(0, *observation.image_shape)
        alone = len(groups) == 1 and len(groups[0]) == int(alive.sum())
        layer = [observation.model.get_parameter(f"{name}.{kind}").detach()[alive] for kind in ("weight", "bias")]
        alone = alone and observation.batch_size in (None, 1) and int(distinct_neurons(*layer).max()) >= _OPPOSITE
        withheld = ""
        if alone:
            inputs = observation.normalize(found[:1]).flatten(1)
            alone = _sent_back(observation, first, inputs) or _next_layer_confirms(observation, inputs, context)
            if not alone:
                withheld = (
                    unsupported(observation) or "neither the next layer's gradient nor the logits confirm the scale"
                )
        return Reconstruction(
            found.clamp(0, 1),
            certified=torch.full((len(found),), alone, device=found.device),
            diagnostics={
                "neurons": int(alive.sum()),
                "in_range": len(pixels),
                "agreed": len(agreed),
                "withheld": withheld,
            },
        )

    def _in_range(self, weight: Tensor, bias: Tensor, neurons: Tensor, observation: Observation) -> Tensor:
        """The rows of some neurons that could be images, `[K, C, H, W]`; of the others no copy is kept."""

        def pixels(of: Tensor) -> Tensor:
            return observation.denormalize((weight[of].double() / bias[of, None]).view(-1, *observation.image_shape))

        inside = []
        for part in chunks(len(neurons), 4 * 8 * weight.shape[1], weight.device):
            some = pixels(neurons[part]).flatten(1)
            inside.append(torch.maximum(-some, some - 1).amax(1) < self.tolerance)
        return pixels(neurons[torch.cat(inside)])


def _next_layer_confirms(observation: Observation, inputs: Tensor, context: Context) -> bool:
    """Whether the next layer's gradient asks for the scale of the one image `[1, n]`."""
    gradient = None if unsupported(observation) else read_gradient(observation, context.generator)
    if gradient is None or gradient.factors.rank != 1:
        return False
    second, error = read_second(observation, gradient, context.generator), inputs.new_full((1,), gradient.factors.sigma)
    scales = None if second is None else fit_scales(gradient, second, inputs, error)
    return scales is not None and bool(scales.sharp) and not scales.contradict(error)


def _sent_back(observation: Observation, first: FirstLinear, inputs: Tensor) -> bool:
    """Whether a layer that makes the logits answers the image `[1, n]` by the direction of its bias gradient.

    The image as it is must explain it far better than if it were half a grey level brighter or darker.
    """
    name, layer = first.name, observation.model.get_submodule(first.name)
    assert isinstance(layer, nn.Linear)
    if name != last_called(observation.model):
        return False
    seen = observation.gradient()[f"{name}.bias"].double()
    half = EXACT / float(inputs.abs().max() * observation.std.max())
    scales = inputs.new_tensor([1.0, 1 + half, 1 - half])
    logits = scales[:, None] * (first.by_pixel(layer.weight).double() @ inputs[0]) + layer.bias.detach().double()
    answers = logits.softmax(dim=1)[:, None] - torch.eye(len(seen), dtype=torch.float64, device=seen.device)
    answers = answers / answers.norm(dim=2, keepdim=True)
    distance = (answers - seen / seen.norm()).norm(dim=2).amin(dim=1)  # of the label that suits best
    return bool(SAFETY * distance[0] < distance[1:].min())


def _agreeing(rows: Tensor, tolerance: float) -> list[list[int]]:
    """Rows `[K, n]` in groups that differ from their first by less than the tolerance in every pixel."""
    left = list(range(len(rows)))
    groups = []
    while left:
        parts = (left[part] for part in chunks(len(left), 2 * 8 * rows.shape[1], rows.device))
        near = torch.cat([(rows[some] - rows[left[0]]).abs().amax(1) < tolerance for some in parts])
        groups.append([index for index, same in zip(left, near.tolist(), strict=True) if same])
        left = [index for index, same in zip(left, near.tolist(), strict=True) if not same]
    return groups
