"""How far a candidate's gradient is from the observed one: values and their slopes, in closed form.

Gradients are lists of tensors `[R, P]`, one a parameter tensor of P entries, for R restarts; targets are lists `[P]`.
Every value is relative to the observed gradient, so that it does not depend on the loss's scale.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Name = Literal["cosine", "cosine-per-layer", "l2", "l2-per-layer", "l1"]


class Objective(ABC):
    """A distance between gradients."""

    def __init__(self, target: Sequence[Tensor]) -> None:
        self.target = list(target)

    @abstractmethod
    def __call__(self, gradients: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The value `[R]`, and for each parameter its derivative by the candidate's gradient `[R, P]`."""


class Difference(Objective):
    """The sum of squared (or absolute) differences of all entries over that of the observed gradient's entries.

    Zhu et al., NeurIPS 2019 (squared); the constant divisor moves no minimum.
    """

    def __init__(self, target: Sequence[Tensor], power: Literal[1, 2]) -> None:
        super().__init__(target)
        self.power = power
        size = torch.stack([part.abs().pow(power).sum() for part in self.target]).sum()
        self.size = size.clamp_min(torch.finfo(size.dtype).tiny)

    def __call__(self, gradients: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        residuals = torch._foreach_sub(list(gradients), self.target)
        if self.power == 1:
            parts = [residual.abs().sum(1) for residual in residuals]
            slopes = [residual.sign() / self.size for residual in residuals]
        else:
            parts = [(residual * residual).sum(1) for residual in residuals]
            slopes = list(torch._foreach_mul(residuals, 2 / self.size))
        return torch.stack(parts).sum(0) / self.size, slopes


class _ByLayer(Objective):
    """One that joins the tensors of a layer.

    Args:
        target: the observed gradient.
        layers: for each tensor the number, from 0 up, of the layer it belongs to.
    """

    def __init__(self, target: Sequence[Tensor], layers: Sequence[int]) -> None:
        super().__init__(target)
        self.layers, self.count = torch.tensor(layers, device=self.target[0].device), max(layers) + 1

    def _by_layer(self, values: Tensor) -> Tensor:
        """Sums over each layer's tensors: `[L, R]` from `[tensors, R]`."""
        return values.new_zeros(self.count, values.shape[1]).index_add(0, self.layers, values)


class Norms(_ByLayer):
    """The sum over layers of the norms of the differences over the sum of those of the observed gradient.

    Yin et al., CVPR 2021; the constant divisor moves no minimum. Unlike with squares no layer is negligible.
    """

    def __init__(self, target: Sequence[Tensor], layers: Sequence[int]) -> None:
        super().__init__(target, layers)
        squares = torch.stack([part.square().sum() for part in self.target])[:, None]
        self.size = self._by_layer(squares).sqrt().sum().clamp_min(torch.finfo(squares.dtype).tiny)

    def __call__(self, gradients: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        residuals = torch._foreach_sub(list(gradients), self.target)
        squares = torch.stack([(residual * residual).sum(1) for residual in residuals])
        norms = self._by_layer(squares).sqrt()
        inverse = torch.where(norms > 0, 1 / norms / self.size, 0)[self.layers]
        slopes = [residual * scale[:, None] for residual, scale in zip(residuals, inverse, strict=True)]
        return norms.sum(0) / self.size, slopes


class Cosine(_ByLayer):
    """One minus the cosine of the angle between the gradients, over all layers jointly (Geiping et al., NeurIPS 2020).

    With `per_layer`, the mean over layers of one minus the cosine of each; a layer whose observed gradient is zero has
    no angle and does not count.

    It depends on the candidate's gradient only through each layer's product with the observed one and squared norm, so
    `weigh` needs no gradient written out.

    Args:
        target, layers: as for all that join tensors.
        per_layer: see above.
    """

    def __init__(self, target: Sequence[Tensor], layers: Sequence[int], per_layer: bool) -> None:
        super().__init__(target, layers)
        squares = self._by_layer(torch.stack([part.square().sum() for part in self.target])[:, None])
        sizes = squares if per_layer else squares.sum(0, keepdim=True)
        counts = sizes > 0
        self.most = counts.any().to(squares.dtype)  # the value where all angles are right
        self.inverse = torch.where(counts, sizes.rsqrt() / counts.sum(), 0)  # of the norms, over the number that count
        self.per_layer = per_layer
        self.tiny = torch.finfo(squares.dtype).tiny

    def weigh(self, products: Tensor, squares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The value and its derivatives by products and squared norms.

        Args:
            products: `[L, R]`, each layer's inner product of the candidate's gradient with the observed one.
            squares: `[L, R]`, each layer's squared norm of the candidate's gradient.

        Returns:
            The value `[R]`, its derivatives by `products` and by half of `squares`, `[L, R]`.
        """
        layers = len(products)
        if not self.per_layer:
            products, squares = products.sum(0, keepdim=True), squares.sum(0, keepdim=True)
        squares = squares.clamp_min(self.tiny)
        inverse = squares.rsqrt() * self.inverse
        cosine = products * inverse
        return self.most - cosine.sum(0), -inverse.expand(layers, -1), (cosine / squares).expand(layers, -1)

    def __call__(self, gradients: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        products = torch.stack([part @ target for part, target in zip(gradients, self.target, strict=True)])
        squares = torch.stack([(part * part).sum(1) for part in gradients])
        value, by_product, by_square = self.weigh(self._by_layer(products), self._by_layer(squares))
        slopes = [
            by_square[layer][:, None] * part + by_product[layer][:, None] * target
            for part, target, layer in zip(gradients, self.target, self.layers.tolist(), strict=True)
        ]
        return value, slopes


def make(name: Name, target: Sequence[Tensor], layers: Sequence[int]) -> Objective:
    """The objective of that name, for one observed gradient; `layers` as for `Cosine`."""
    if name in ("cosine", "cosine-per-layer"):
        return Cosine(target, layers, per_layer=name == "cosine-per-layer")
    if name == "l2-per-layer":
        return Norms(target, layers)
    return Difference(target, power=2 if name == "l2" else 1)
