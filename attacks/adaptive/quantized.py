"""SPEAR++ on quantised gradients: rounding leaves every entry within half a level, which is more than noise tells."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from gibench.attack import Context, Reconstruction
from gibench.observation import Observation

from ..exact.chunks import chunks
from ..exact.layers import InputLayer, find_input_layer
from ..exact.low_rank import whiten
from ..spearpp.attack import SpearPP

_MOST = 2**15  # levels of one sign
_EXPLAINED = 0.7  # root mean square of the residuals in half levels; that of rounding is 0.58
_ROUNDS = 2
_POWERS = (2, 4, 8, 16)
_STEPS = 8  # of Newton's method, for each power
_DEVIATIONS = 4  # by which a pre-activation is surely negative
_COPIES = 3  # of each system of equations while it is made and solved
_RIDGE = 1e-12


class QuantizedSpearPP(SpearPP):
    """Does what `spearpp` does, then moves the images to where every entry rounds to the level that was seen.

    It knows that the update was quantised, and reads the levels off it. `spearpp` takes rounding for noise, which least
    squares average. But rounding moves no entry by more than half a level, and among the images that keep to this the
    middle ones are nearer to the true ones: least p-th powers of the residuals, p rising from 2 to 16. In turn the
    neurons' coefficients are fitted on the images that may activate them, the images' scales on the bias gradient, and
    every pixel on all neurons. Where the batch size is granted, it is the rank: what rounding has beyond it, which is
    not white and passes for further images, is exchanged for white noise before the search.

    Where nothing was quantised, or to signs or 2 bits, it is `spearpp`. Images stay as `spearpp` has them if they do
    not explain the levels, and if all are certified; what was moved is not certified.
    """

    adaptive: ClassVar[bool] = True

    def reconstruct(self, observation: Observation, context: Context) -> Reconstruction:
        layer = find_input_layer(observation.model, observation.image_shape)
        assert isinstance(layer, InputLayer)  # else it is unsupported
        weight, bias = (part.double() for part in layer.of(observation.gradient()))
        count = levels(weight)
        if not count:
            return super().reconstruct(observation, context)
        found = super().reconstruct(whitened(observation, layer, context.generator), context)
        if not len(found.images) or (found.certified is not None and bool(found.certified.all())):
            return found
        context.progress("keeping to the levels", None)
        start = time.perf_counter()
        cells = Cells(layer, weight, bias, count)
        inputs = observation.normalize(found.images).flatten(1).double()
        if not cells.explained_by(inputs):
            return found
        moved = observation.denormalize(cells.keep_to(inputs, context.expired).view_as(found.images))
        seconds = {**found.diagnostics["seconds"], "levels": time.perf_counter() - start}
        diagnostics = {**found.diagnostics, "seconds": seconds, "levels": 2 * count + 1}
        certified = torch.zeros(len(moved), dtype=torch.bool, device=moved.device)
        return Reconstruction(moved, certified=certified, diagnostics=diagnostics)


def whitened(observation: Observation, layer: InputLayer, generator: torch.Generator) -> Observation:
    """With white noise, of the same size, in place of what the first layer's gradient has beyond the rank of the batch.

    Rounding is a function of the gradient: it has a structure of its own, which passes for further images.
    """
    if observation.batch_size is None:
        return observation
    name, tensors = f"{layer.name}.weight", observation.update.tensors
    white = whiten(tensors[name].double(), observation.batch_size, generator).to(tensors[name])
    return replace(observation, update=replace(observation.update, tensors={**tensors, name: white}))


class Cells:
    """The first layer's gradient in half levels: every true entry is within 1 of what is seen.

    Args:
        layer: the layer.
        weight: dL/dW as seen, `[m, n]` float64.
        bias: dL/db as seen, `[m]`.
        count: levels of one sign, zero aside; each tensor's largest entry is the last.
    """

    def __init__(self, layer: InputLayer, weight: Tensor, bias: Tensor, count: int) -> None:
        self.layer = layer
        halves = [part.abs().max().clamp_min(torch.finfo(part.dtype).tiny) / (2 * count) for part in (weight, bias)]
        self.weight, self.bias = weight / halves[0], bias / halves[1]
        self.ratio = halves[0] / halves[1]  # what a coefficient of the weights' is to the bias

    def explained_by(self, inputs: Tensor) -> bool:
        """Whether the images `[B, n]`, with the best coefficients, come within the levels, about."""
        rows = torch.linalg.qr(inputs.T).Q
        return float((self.weight - self.weight @ rows @ rows.T).square().mean().sqrt()) < _EXPLAINED

    def keep_to(self, inputs: Tensor, expired: Callable[[], bool]) -> Tensor:
        """The images `[B, n]` moved to the middle of what the levels leave open."""
        columns = self._columns(inputs, None)
        for _ in range(_ROUNDS):
            if expired():
                break
            columns = self._columns(inputs, columns)
            one = torch.ones(len(inputs), 1, dtype=inputs.dtype, device=inputs.device)
            scales = least_powers(columns * self.ratio, self.bias[:, None], one, expired)
            columns, inputs = columns * scales[:, 0], inputs / scales
            inputs = least_powers(columns, self.weight, inputs, expired)
        return inputs

    def _columns(self, inputs: Tensor, before: Tensor | None) -> Tensor:
        """The neurons' coefficients `[m, B]`, zero on images that do not activate them, as far as `before` tells.

        A neuron whose images do not explain its entries has others after all; it is fitted on every image, for high
        powers would heed it alone.
        """
        every = torch.ones(len(self.weight), len(inputs), dtype=torch.bool, device=inputs.device)
        columns = coefficients(inputs, self.weight, every)
        if before is None:
            return columns
        some = coefficients(inputs, self.weight, self._may_be_active(inputs, before))
        explained = (self.weight - some @ inputs).square().mean(dim=1).sqrt() < _EXPLAINED
        return torch.where(explained[:, None], some, columns)

    def _may_be_active(self, inputs: Tensor, columns: Tensor) -> Tensor:
        """Which neurons an image may activate, `[m, B]`: the others' pre-activations are negative beyond doubt."""
        layer = self.layer
        gram = columns.T @ columns
        gram.diagonal().mul_(1 + _RIDGE)
        error = torch.linalg.inv(gram).diagonal().clamp_min(0).sqrt() / math.sqrt(3)  # of a pixel: rounding's is 1/3
        active = inputs @ layer.weight.double().T + layer.bias.double()
        may: Tensor = active > -_DEVIATIONS * error[:, None] * layer.norms
        return may.T


def levels(tensor: Tensor) -> int:
    """How many levels of either sign the entries lie on, evenly spaced and 2^k - 1 of them, k > 1; 0 if on none."""
    values = torch.unique(tensor.abs())
    if not 2 <= len(values) <= _MOST:
        return 0
    count = 2 ** round(math.log2(float(values[-1] / values.diff().min()) + 1)) - 1
    steps = values / values[-1] * count
    return count if 1 < count <= _MOST and bool(((steps - steps.round()).abs() < 0.05).all()) else 0


def coefficients(inputs: Tensor, seen: Tensor, free: Tensor) -> Tensor:
    """Least squares of each row of `seen [m, n]` on those of the inputs `[B, n]` that are free for it: `[m, B]`."""
    gram, products = inputs @ inputs.T, (seen @ inputs.T) * free
    for part in chunks(len(seen), _COPIES * 8 * len(inputs) ** 2, inputs.device):
        allowed = free[part]
        systems = torch.where(allowed[:, :, None] & allowed[:, None, :], gram, 0.0)
        systems.diagonal(dim1=1, dim2=2).add_(_RIDGE * gram.diagonal().mean() + ~allowed)
        products[part] = torch.linalg.solve(systems, products[part])
    return products


def least_powers(
    matrix: Tensor, seen: Tensor, start: Tensor, expired: Callable[[], bool], powers: Sequence[int] = _POWERS
) -> Tensor:
    """For each column of `seen [m, P]` the x `[B]` with the least sum of p-th powers of `matrix x - seen`: `[B, P]`.

    p takes the given values in turn, each from where the last has led; for errors that are uniform on an interval a
    high one is nearly the best.
    """
    found = torch.empty_like(start)
    m, unknowns = matrix.shape
    for part in chunks(seen.shape[1], 8 * unknowns * (m + _COPIES * unknowns), matrix.device):
        x, target = start[:, part], seen[:, part]
        for power in powers:
            for _ in range(1 if power == 2 else _STEPS):
                if expired():
                    break
                residual = matrix @ x - target
                weights = (residual.abs() / residual.abs().amax(dim=0).clamp_min(1e-300)) ** (power - 2)
                systems = (weights.T[:, :, None] * matrix).mT @ matrix
                systems.diagonal(dim1=1, dim2=2).add_(_RIDGE * systems.diagonal(dim1=1, dim2=2).mean(1, keepdim=True))
                step = torch.linalg.solve(systems, (matrix.T @ (weights * residual)).T)
                x = x - step.T / (power - 1)
        found[:, part] = x
    return found
