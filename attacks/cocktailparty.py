"""The Cocktail Party Attack: the images of a batch as independent components of the first linear layer's gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from gibench.attack import Attack, Context, Reconstruction, lacking
from gibench.observation import Observation

from .exact.layers import NOT_FED, find_first_linear, not_its_own
from .exact.low_rank import factorize, leading
from .exact.products import times
from .optimization.descent import descend
from .optimization.optimizers import Adam, step_size
from .optimization.priors import total_variation


class CocktailParty(Attack):
    """Kariyappa et al.: every row of `dL/dW = G^T X` mixes the batch's images; independent component analysis unmixes.

    The gradient is centred and whitened to as many components as images; unit directions w in them are moved by Adam so
    that `w X` is least Gaussian (`negentropy` times its approximate negentropy, the squared mean of log cosh), smooth
    (total variation), and unlike the others (`decorrelation` times the mean of `exp(temperature |cos|) - 1`).

    | setting | value | published |
    |---|---|---|
    | negentropy | 1.0 | the released code computes the term, then replaces it with zero: `negentropy=0` runs that |
    | decorrelation | 1.47 | for Tiny ImageNet at batch size 128 |
    | temperature | 12.4 | the same |
    | total_variation | 3.1 | the same |
    | step_size | 0.001 | the same |
    | max_iterations | 25000 | the same |
    | schedule | cosine | the same |

    Deviations: sign and scale, which the paper leaves open and its code picks with the truth, come from the bias
    gradient. With M the unmixing, `M dL/dW = C X` and `M dL/db = C 1`: row i is `c_i x_i`, and `c_i` is known. Where
    the unmixing is poor and pixels leave [0, 1], they are brought back by the sign of `c_i` and the image's own range,
    as the paper does. Labels are not needed; nor is the batch size, where the gradient's rank shows it.
    """

    references: ClassVar[tuple[str, ...]] = (
        "Kariyappa et al., Cocktail Party Attack: Breaking Aggregation-Based Privacy in Federated Learning using "
        "Independent Component Analysis, ICML 2023, arXiv 2209.05578",
    )

    negentropy: float = Field(1.0, ge=0, description="weight of the negentropy")
    decorrelation: float = Field(1.47, ge=0, description="weight of the decorrelation")
    temperature: float = Field(12.4, gt=0, description="of the decorrelation: how much more close directions weigh")
    total_variation: float = Field(3.1, ge=0, description="weight of the total variation")
    step_size: float = Field(1e-3, gt=0, description="Adam's first step, decayed to zero along a cosine")
    max_iterations: int = Field(25_000, ge=1, description="steps of Adam")

    @property
    def budget(self) -> str:
        return f"{self.max_iterations:,} iterations"

    def supports(self, observation: Observation) -> str | None:
        first = find_first_linear(observation.model, observation.image_shape)
        if first is None:
            return NOT_FED
        name = first.name
        if observation.model.get_submodule(name).bias is None:
            return f"needs a bias in the first linear layer ('{name}' has none) to find sign and scale of each image"
        read = [f"{name}.weight", f"{name}.bias"]
        if reason := not_its_own(observation.model, name, observation.image_shape) or lacking(observation, read):
            return reason
        limit = min(observation.update.tensors[f"{name}.weight"].shape)
        if observation.batch_size is not None and observation.batch_size > limit:
            return f"a batch of {observation.batch_size} is more than the {limit} that the layer's rank can hold"
        return None

    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        first = find_first_linear(observation.model, observation.image_shape)
        assert first is not None  # else it is unsupported
        gradient = observation.gradient()
        weight, bias = first.by_pixel(gradient[f"{first.name}.weight"]), gradient[f"{first.name}.bias"].double()
        count = observation.batch_size
        if count is None:
            factors = factorize(weight, bias, context.generator)
            if factors is None:
                finding = {
                    "finding": "the gradient's singular values show no rank gap, so the batch size stays unknown"
                }
                return Reconstruction(bias.new_zeros(0, *observation.image_shape), diagnostics=finding)
            count = factors.rank
        mixture = _Mixture.of(weight, count, context.generator)
        components = _Components(self, mixture.whitened.float(), observation.image_shape)
        start = torch.eye(count, device=weight.device).flatten()[None]
        outcome = descend(
            components,
            start,
            Adam(start),
            self.max_iterations,
            lambda i: step_size(self.step_size, "cosine", 0, i, self.max_iterations),
            lambda slope, _: slope,
            None,
            context,
        )
        unmixing = components.directions(outcome.points)[0].double() @ mixture.whitening
        sources, scales = times(weight.T, unmixing.T).T, unmixing @ bias
        pixels = _into_range(sources, scales, observation)
        diverged = not bool(outcome.values.isfinite().all())
        return Reconstruction(
            pixels,
            diagnostics={"objective": outcome.values[0].item(), "iterations": outcome.iterations, "components": count},
            status="diverged" if diverged else "ok",
            reason="the objective left the finite numbers" if diverged else "",
        )


@dataclass(frozen=True)
class _Mixture:
    """A gradient, centred and whitened."""

    whitened: Tensor  # [B, n]: rows of zero mean and unit variance, uncorrelated
    whitening: Tensor  # [B, m]: takes the gradient, less its rows' means, to that

    @classmethod
    def of(cls, gradient: Tensor, count: int, generator: torch.Generator) -> _Mixture:
        gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        left, values, right = leading(gradient - gradient.mean(1, keepdim=True), count, generator)
        scale = math.sqrt(gradient.shape[1] - 1)
        floor = values[0] * torch.finfo(values.dtype).eps
        return cls(scale * right, scale * left.T / values[:, None].clamp_min(floor))


@dataclass(frozen=True)
class _Components:
    """The objective of the analysis: directions `[1, B * B]` to a value and its slope."""

    weights: CocktailParty
    whitened: Tensor  # [B, n]
    image_shape: tuple[int, int, int]

    def directions(self, points: Tensor) -> Tensor:
        """Unit directions `[1, B, B]`, one a row."""
        count = len(self.whitened)
        return functional.normalize(points.view(-1, count, count), dim=2)

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The value `[1]` and the slope `[1, B * B]`, in closed form: autograd takes twice the time."""
        weights, directions = self.weights, self.directions(points)[0]
        sources = directions @ self.whitened
        similar = directions @ directions.T
        power = (weights.temperature * similar.abs()).exp()
        value = weights.decorrelation * (power - 1).mean()
        by_similar = weights.decorrelation * weights.temperature / similar.numel() * power * similar.sign()
        slope = 2 * by_similar @ directions  # each product stands twice in the matrix
        by_sources = torch.zeros_like(sources)
        if weights.total_variation:
            images = sources.view(1, -1, *self.image_shape).requires_grad_()
            smooth = weights.total_variation * total_variation(images)
            value = value + smooth.detach()[0]
            by_sources += torch.autograd.grad(smooth, images)[0].view_as(sources)
        if weights.negentropy:
            means = log_cosh(sources).mean(1, keepdim=True)
            value = value - weights.negentropy * means.square().mean()
            by_sources -= 2 * weights.negentropy / sources.numel() * means * sources.tanh()
        slope = slope + by_sources @ self.whitened.T
        lengths = points.view_as(directions).norm(dim=1, keepdim=True)
        slope = (slope - directions * (directions * slope).sum(1, keepdim=True)) / lengths
        return value[None], slope.view_as(points)


def log_cosh(values: Tensor) -> Tensor:
    """`log(cosh(x))` without overflow."""
    size = values.abs()
    return size + functional.softplus(-2 * size) - math.log(2)


def _into_range(sources: Tensor, scales: Tensor, observation: Observation) -> Tensor:
    """Images `[B, C, H, W]` from sources `[B, n]`: over their scales, and what then leaves [0, 1] by its own range."""
    tiny = partial(torch.full_like, scales)(torch.finfo(scales.dtype).tiny)
    safe = torch.where(scales.abs() < tiny, tiny, scales)
    pixels = observation.denormalize((sources / safe[:, None]).view(-1, *observation.image_shape))
    low, high = pixels.amin((1, 2, 3), keepdim=True), pixels.amax((1, 2, 3), keepdim=True)
    stretched = (pixels - low) / (high - low).clamp_min(torch.finfo(pixels.dtype).eps)
    outside = torch.maximum(-low, high - 1) > 0.5
    return torch.where(outside, stretched, pixels).clamp(0, 1).nan_to_num(0.5)
