"""The first two layers' gradients together: how well points satisfy the equations, and how sharply these tell an image.

The equations themselves are in `equations.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from gibench.observation import Observation

from ..exact.kinks import determined_moves
from ..exact.layers import followed_by_relu
from ..exact.linear_layer import EXACT, EXCESS, SAFETY, LayerGradient, features
from ..exact.low_rank import Factors
from ..exact.select import complement
from ..exact.sphere import normalized
from ..exact.witness import BLUNT, read_next
from .equations import Equations
from .network import Network

_HOLDS = 0.5  # of the rank: with less, the second gradient does not hold the activations
_ROUNDING = 1.0  # times eps |w| |x|: the network's own arithmetic
_OUTPUTS = 2.5  # of the second layer for each image: with fewer, those that do not fire determine no direction
_TURNS = 4.0  # standard deviations of the angle by which noise turns a direction of V
_NEIGHBOURS, _CHANCE = 8, 2  # of an image; and neurons more than coordinates with which some point agrees by chance
_SURE = 1e-5  # an angle that softens no equation
NO_PAIR = "needs a linear layer that the first layer's activation feeds, and it alone"
_WITHIN = 4.0  # times what noise explains: a residual that counts as none


@dataclass(frozen=True)
class Judged:
    """Points and how well they satisfy their equations."""

    inputs: Tensor  # [B, n], see `Factors`
    points: Tensor  # [B, K], scaled so that `ones . c = 1`
    rows: Tensor  # [B, K], the images' coordinates in the rows of `inputs`
    outside: Tensor  # [K], root mean square of what the equations leave over
    noise: Tensor  # [K], root mean square of what noise explains of it
    pixel_noise: Tensor  # [K], of an image's numbers, given its point
    active: Tensor  # [K], how many distinct neurons tell of it, as the active ones of a ReLU do

    @cached_property
    def images(self) -> Tensor:
        """The images as the model takes them, `[K, n]`; not needed to tell how well the equations hold."""
        return self.rows.T @ self.inputs

    @property
    def residual(self) -> Tensor:
        """What the equations leave over, in units of what noise explains, `[K]`."""
        return self.outside / self.noise

    @property
    def solved(self) -> Tensor:
        """The points that satisfy their equations within the noise, `[K]`."""
        return self.residual <= _WITHIN

    def select(self, index: Tensor) -> Judged:
        """Those points, in that order."""
        return Judged(self.inputs, *(part[..., index] for part in self._by_image()))

    def join(self, other: Judged) -> Judged:
        """These points and then the other ones."""
        mine, others = self._by_image(), other._by_image()
        return Judged(self.inputs, *(torch.cat(parts, dim=-1) for parts in zip(mine, others, strict=True)))

    def _by_image(self) -> tuple[Tensor, ...]:
        return self.points, self.rows, self.outside, self.noise, self.pixel_noise, self.active


@dataclass(frozen=True)
class NextLayer:
    """The first two layers' gradients, in coordinates c of the images in which F is orthonormal."""

    equations: Equations
    gradient: LayerGradient  # of the first layer
    second: Factors  # of the second layer's gradient
    triangle: Tensor  # R [B, B]: c is R times the image's coordinates in the rows of `gradient.factors.inputs`
    then: tuple[Tensor, Tensor] | None = (
        None  # the second layer's weight [k, m] and bias [k], where ReLUs follow both layers
    )
    network: Network | None = None  # where another activation follows the first
    free: int = 0  # coordinates of every image beside one for each of them, see `free_scales.py`

    @property
    def images(self) -> int:
        """How many there are, by the rank."""
        return self.gradient.factors.rank - self.free

    def space(self, directions: Tensor) -> Tensor:
        """A basis `[B, k]` of where the images lie whose directions `directions [B, K]` are not.

        It is orthonormal, but that of a smooth activation gives random starts the size of images whose numbers are of
        size 1: where images are nearly orthogonal to `ones`, points near one another would be far from it in size.
        """
        basis: Tensor = torch.linalg.qr(self.triangle @ complement(directions)).Q
        if self.equations.activation.smooth:
            ones = self.equations.ones @ basis
            usual = len(ones) ** 0.5 / (ones.norm() * self.gradient.layer.norms.norm())
            held = normalized(ones)
            basis = basis + torch.outer(basis @ held, held) * (usual - 1)
        return basis

    def without(self, directions: Tensor) -> Equations:
        """The equations with V without the images whose directions in the second gradient, `[r, K]`, are given."""
        if not 0 < directions.shape[1] < self.second.rank:
            return self.equations
        left = torch.linalg.qr(self.second.singular_values[:, None] * complement(directions)).Q
        return replace(self.equations, activations=self.equations.activations @ left)

    def random(self, count: int, space: Tensor, generator: torch.Generator) -> Tensor:
        """Starts `[B, count]` in a space with a basis `[B, k]`."""
        drawn = torch.randn(space.shape[1], count, generator=generator, device=generator.device, dtype=space.dtype)
        starts: Tensor = space @ drawn
        return starts

    def judge(self, points: Tensor) -> Judged:
        """Whether points `[B, K]` are images: they must satisfy the equations."""
        equations, factors, layer = self.equations, self.gradient.factors, self.gradient.layer
        points = points / (equations.ones @ points)
        rows = torch.linalg.solve_triangular(self.triangle, points, upper=True)
        seen, slopes = equations.activation.with_slopes(equations.features @ points)
        inside = equations.activations.T @ seen
        outside = (seen - equations.activations @ inside).square().sum(dim=0)
        pixel_noise = factors.sigma * rows.norm(dim=0) / len(seen) ** 0.5
        arithmetic = self._arithmetic(rows)
        forward = (layer.norms.square() @ slopes.double().square()) * (pixel_noise.square() + arithmetic.square())
        free = max(len(seen) - len(inside), 1)
        backward = (self.second.sigma * (inside / self.second.singular_values[:, None]).norm(dim=0)).square()
        noise = (backward + forward / free).sqrt()
        active = factors.distinct(equations.activation.tells(slopes))
        return Judged(factors.inputs, points, rows, (outside / free).sqrt(), noise, pixel_noise, active)

    def errors(self, judged: Judged, expired: Callable[[], bool] = lambda: False) -> Tensor:
        """Predicted standard deviation of the least certain number of each image, to first order: `[K]`.

        It is large where other points satisfy the equations nearly as well, as between images of one pattern, under
        any pattern that may be the image's, see `exact/kinks.py`. Where time does not suffice it is infinite.
        """
        equations, errors = self.equations, torch.full_like(judged.noise, torch.inf)
        copies = len(equations.features) / self.gradient.factors.distinct_neurons  # repeat one another's errors
        noise = torch.maximum(judged.noise, judged.outside) * copies**0.5
        inputs = torch.linalg.solve_triangular(self.triangle.T, self.gradient.factors.inputs, upper=False)
        blur = self.gradient.layer.norms[:, None] * (judged.pixel_noise**2 + self._arithmetic(judged.rows) ** 2).sqrt()
        angles = _TURNS * len(blur) ** 0.5 * self.second.sigma / self.second.singular_values
        shaky = (equations.activations * angles)[:, angles > _SURE]
        slopes = equations.slopes(judged.points)
        for part, normal in equations.normals(slopes):
            if expired():
                break
            for k, place in enumerate(range(part.start, part.stop)):
                point = judged.points[:, place]
                moves = determined_moves(equations, shaky, normal[k], point, noise[place], blur[:, place])
                errors[place] = torch.inf if moves is None else (moves.T @ inputs).norm(dim=0).max()
        fed = equations.features @ judged.points - self.gradient.layer.bias.double()[:, None]
        bend = (slopes * fed).to(noise)
        bend = (bend - equations.activations @ (equations.activations.T @ bend)).norm(dim=0)
        errors[noise > BLUNT * bend] = torch.inf  # of the scale, which no equation sees, the bias gradient alone tells
        return (errors.square() + judged.pixel_noise.square()).sqrt()

    def _arithmetic(self, rows: Tensor) -> Tensor:
        """What the network's own arithmetic does to a number of each image `rows [B, K]`, of unit weights: `[K]`."""
        factors = self.gradient.factors
        images = (factors.singular_values[:, None] * rows).norm(dim=0) / len(factors.basis) ** 0.5
        size: Tensor = _ROUNDING * self.gradient.layer.eps * images
        return size


def certain(following: NextLayer, judged: Judged, errors: Tensor, pixel_scale: Tensor) -> Tensor:
    """The images that round to the true 8-bit pixels, `[K]`.

    The inactive neurons of an image, and those that are saturated, say nothing of it but that they are: only the others
    can contradict a wrong one, so they must be more than its unknowns, copies not counted.

    Args:
        following: the equations.
        judged: the images.
        errors: predicted by `NextLayer.errors`.
        pixel_scale: `[C]`, pixels in [0, 1] per unit of model input.
    """
    determined = judged.active >= len(judged.points) + EXCESS
    sure = judged.solved & determined & (SAFETY * errors * pixel_scale.max() < EXACT)
    return sure & told_apart(following, judged)


def told_apart(following: NextLayer, judged: Judged) -> Tensor:
    """Which images differ from those nearest to them at more neurons than a point among them can choose, `[K]`.

    Where every neuron but a few is alike for k + 1 images, each point of the space through them satisfies all equations
    but those few, and with k free coordinates as many of these can be met anywhere: by points that are no images. Of a
    smooth activation a neuron is alike for images where its tangent at one is its value at the others, within noise.
    """
    equations = following.equations
    values = equations.features @ judged.points
    slopes = equations.activation.slopes(values).to(values)
    size = slopes.square().sum(dim=0)
    distance = size[:, None] + size - 2 * slopes.T @ slopes
    distance[:, ~judged.solved] = torch.inf
    nearest = distance.fill_diagonal_(torch.inf).argsort(dim=1)
    apart = torch.ones_like(judged.solved)
    differing = torch.zeros_like(values, dtype=torch.bool)
    others = int(judged.solved.sum()) - 1
    for k in range(min(_NEIGHBOURS, max(others, 0))):
        differing |= equations.activation.apart(values, values[:, nearest[:, k]], _WITHIN * judged.noise)
        apart &= following.gradient.factors.distinct(differing) > k + 1 + _CHANCE
    return apart


def read_next_layer(observation: Observation, gradient: LayerGradient, generator: torch.Generator) -> NextLayer | str:
    """The equations of the layer after the first activation, or why there are none.

    Args:
        observation: the model and the gradient, of which the second layer's weight is a part.
        gradient: of the first layer.
        generator: for the randomised SVD, on the observation's device.
    """
    following = read_next(observation, gradient, generator)
    if following is None:
        return NO_PAIR
    second, rank = following.factors, gradient.factors.rank
    if second is None or second.rank < _HOLDS * rank:
        found = "shows no rank" if second is None else f"has rank {second.rank}"
        return (
            f"the gradient of layer '{following.name}' {found}, and with rank {rank} in the first it had to be as much"
        )
    neurons = gradient.factors.distinct_neurons
    excess = neurons - second.rank - rank + 1
    if excess < EXCESS:
        return (
            f"{neurons} active neurons are too few to determine {rank} images by two layers: "
            f"use {EXCESS - excess} more, copies not counted"
        )
    activations = len(following.weight) ** 0.5 * second.inputs / second.singular_values[:, None]
    then, network, name = None, None, following.name
    if not gradient.layer.activation.sparse:
        network = Network(observation.model, (gradient.layer.name, name), observation.image_shape)
    elif len(following.weight) > _OUTPUTS * rank and followed_by_relu(observation.model, name):
        known = dict(observation.model.named_parameters())
        bias = known.get(f"{name}.bias", following.weight.new_zeros(len(following.weight)))
        then = gradient.takes(known[f"{name}.weight"].detach()), bias.detach()
    return in_coordinates(gradient, activations.T, second, then, network)


def in_coordinates(
    gradient: LayerGradient,
    activations: Tensor,
    second: Factors,
    then: tuple[Tensor, Tensor] | None,
    network: Network | None,
    free: int = 0,
) -> NextLayer:
    """The equations in coordinates in which F is orthonormal; see `NextLayer` and `Equations`."""
    basis, triangle = torch.linalg.qr(features(gradient.factors, gradient.layer))
    ones = torch.linalg.solve_triangular(triangle.T, gradient.factors.ones[:, None], upper=False)[:, 0]
    equations = Equations(basis, activations, ones, gradient.layer.activation)
    return NextLayer(equations, gradient, second, triangle, then, network, free)
