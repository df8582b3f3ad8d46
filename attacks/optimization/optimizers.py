"""Steps from a value and its slope, for R restarts at once: points are `[R, D]`, and no restart sees another.

One `step` takes the slope at the point that the last one gave; nothing waits for the device.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

Schedule = Literal["constant", "step", "cosine"]
GradientSign = Literal["off", "soft", "hard"]


def step_size(first: float, schedule: Schedule, warmup: int, iteration: int, iterations: int) -> float:
    """The step size of an iteration, counted from 0.

    `step` multiplies by 0.1 at 3/8, 5/8 and 7/8 of all iterations, `cosine` falls to zero along half a cosine; the
    first `warmup` iterations rise linearly from zero instead.
    """
    if iteration < warmup:
        return first * iteration / warmup
    if schedule == "step":
        return first * 0.1 ** sum(iteration >= iterations * share // 8 for share in (3, 5, 7))
    if schedule == "cosine":
        return first * (1 + math.cos(math.pi * (iteration - warmup) / max(iterations - warmup, 1))) / 2
    return first


def signed(slope: Tensor, form: GradientSign, share: float) -> Tensor:
    """The slope, its sign (`hard`), or `tanh(s g) / s` with s the share of iterations that are left (`soft`)."""
    if form == "hard":
        return slope.sign()
    return (slope * share).tanh() / share if form == "soft" else slope


class Optimizer(ABC):
    """Moves points downhill."""

    @abstractmethod
    def step(self, points: Tensor, slopes: Tensor, size: float) -> Tensor:
        """The next points `[R, D]`."""


class Adam(Optimizer):
    """Kingma and Ba, ICLR 2015, with its usual constants (0.9, 0.999, 1e-8)."""

    def __init__(self, points: Tensor) -> None:
        self.mean, self.square, self.steps = torch.zeros_like(points), torch.zeros_like(points), 0

    def step(self, points: Tensor, slopes: Tensor, size: float) -> Tensor:
        self.steps += 1
        self.mean.lerp_(slopes, 0.1)
        self.square.mul_(0.999).addcmul_(slopes, slopes, value=0.001)
        share = math.sqrt(1 - 0.999**self.steps)  # of the root, since the mean square began at zero
        root = self.square.sqrt().add_(1e-8 * share)
        return points.addcdiv(self.mean, root, value=-size * share / (1 - 0.9**self.steps))


class Langevin(Optimizer):
    """Another optimizer's steps with normal noise on every entry, in units of the step size (Yin et al., CVPR 2021)."""

    def __init__(self, plain: Optimizer, noise: float, generator: torch.Generator) -> None:
        self.plain, self.noise, self.generator = plain, noise, generator

    def step(self, points: Tensor, slopes: Tensor, size: float) -> Tensor:
        moved = self.plain.step(points, slopes, size)
        drawn = torch.randn(moved.shape, generator=self.generator, device=moved.device, dtype=moved.dtype)
        return moved.add(drawn, alpha=self.noise * size)


class LBFGS(Optimizer):
    """Limited-memory BFGS without a line search, as `torch.optim.LBFGS` does it by default, for each restart alone.

    The first step is no longer than 1 in the sum of its entries; pairs enter the memory of the last `memory` steps only
    where the slope grew along the step, by more than `curvature` of the product of the two norms. Without a line search
    an early step can leap to where a sigmoid is flat and no slope leads back: no entry moves by more than `reach`.

    The two loops over the memory are two triangular systems in the products of the pairs (Byrd, Nocedal and Schnabel,
    Mathematical Programming 1994), so that a step is a few operations instead of six for each pair.
    """

    def __init__(self, points: Tensor, memory: int = 100, curvature: float = 1e-10, reach: float = 1.0) -> None:
        restarts, size = points.shape
        self.limit, self.threshold, self.reach = memory, curvature, reach
        self.steps = points.new_zeros(restarts, memory, size)  # a ring: slot `taken % memory` is the next
        self.changes = torch.zeros_like(self.steps)  # of the slope; both are zero where there is no such pair
        self.products = points.new_zeros(restarts, memory, memory, dtype=torch.float64)  # of steps and later changes
        self.scale = points.new_ones(restarts)
        self.taken = 0
        self.last: tuple[Tensor, Tensor] | None = None  # the slope at the point before, and the move from there

    def step(self, points: Tensor, slopes: Tensor, size: float) -> Tensor:
        if self.last is None:
            length = slopes.abs().sum(1).clamp_min(torch.finfo(slopes.dtype).tiny)
            move = -slopes * (size * (1 / length).clamp_max(1))[:, None]
        else:
            self._remember(slopes - self.last[0], self.last[1])
            move = self._direction(slopes) * size
        farthest = move.abs().amax(1).clamp_min(torch.finfo(move.dtype).tiny)
        move = move * (self.reach / farthest).clamp_max(1)[:, None]
        self.last = slopes, move
        return points + move

    def _remember(self, change: Tensor, move: Tensor) -> None:
        product, square = torch.linalg.vecdot(change, move), torch.linalg.vecdot(change, change)
        good = product > self.threshold * (square * torch.linalg.vecdot(move, move)).sqrt()
        slot = self.taken % self.limit
        self.taken += 1
        self.steps[:, slot] = torch.where(good[:, None], move, 0)
        self.changes[:, slot] = torch.where(good[:, None], change, 0)
        self.products[:, :, slot] = _products(self.steps, self.changes[:, slot])
        self.products[:, slot, slot] = torch.where(good, product, 1).double()
        self.scale = torch.where(good, product / square, self.scale)

    def _direction(self, slopes: Tensor) -> Tensor:
        used = min(self.taken, self.limit)
        oldest = self.taken % self.limit if self.taken > self.limit else 0
        steps, changes = self.steps[:, :used], self.changes[:, :used]
        upper = self.products[:, :used, :used].roll((-oldest, -oldest), (1, 2)).triu()  # from the oldest to the newest
        known = _products(steps, -slopes).roll(-oldest, 1)
        back = torch.linalg.solve_triangular(upper, known[..., None], upper=True).squeeze(2)
        middle = self.scale[:, None] * (-slopes - _combination(back.roll(oldest, 1), changes))
        known = upper.diagonal(dim1=1, dim2=2) * back - _products(changes, middle).roll(-oldest, 1)
        forth = torch.linalg.solve_triangular(upper.mT, known[..., None], upper=False).squeeze(2)
        return middle + _combination(forth.roll(oldest, 1), steps)


def _products(vectors: Tensor, other: Tensor) -> Tensor:
    """Of each of `[R, m, D]` with `[R, D]`: `[R, m]`, in float64."""
    return (vectors @ other[..., None]).squeeze(2).double()


def _combination(weights: Tensor, vectors: Tensor) -> Tensor:
    """`[R, D]` from weights `[R, m]` and vectors `[R, m, D]`."""
    return (weights.to(vectors.dtype)[:, None] @ vectors).squeeze(1)
