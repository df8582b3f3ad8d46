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
        root = (self.square / (1 - 0.999**self.steps)).sqrt_().add_(1e-8)
        return points.addcdiv(self.mean, root, value=-size / (1 - 0.9**self.steps))


class LBFGS(Optimizer):
    """Limited-memory BFGS without a line search, as `torch.optim.LBFGS` does it by default, for each restart alone.

    The first step is no longer than 1 in the sum of its entries; pairs enter the memory of the last `memory` steps only
    where the slope grew along the step, by more than `curvature` of the product of the two norms. Without a line search
    an early step can leap to where a sigmoid is flat and no slope leads back: no entry moves by more than `reach`.
    """

    def __init__(self, points: Tensor, memory: int = 100, curvature: float = 1e-10, reach: float = 1.0) -> None:
        restarts, size = points.shape
        self.limit, self.threshold, self.reach = memory, curvature, reach
        self.steps = points.new_zeros(memory, restarts, size)  # oldest first, from the end of the memory
        self.changes = torch.zeros_like(self.steps)
        self.inverse = points.new_zeros(memory, restarts)  # 1 / <change, step>; 0 where there is no such pair
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
        product = _dot(change, move)
        square = _dot(change, change)
        good = product > self.threshold * (square * _dot(move, move)).sqrt()
        slot = self.taken % self.limit
        self.taken += 1
        self.steps[slot], self.changes[slot] = move, change
        self.inverse[slot] = torch.where(good, 1 / product, 0)
        self.scale = torch.where(good, product / square, self.scale)

    def _direction(self, slopes: Tensor) -> Tensor:
        """The two-loop recursion; a pair whose inverse is 0 changes nothing."""
        slots = [index % self.limit for index in range(max(0, self.taken - self.limit), self.taken)]
        direction = -slopes
        weights = {}
        for slot in reversed(slots):
            weights[slot] = self.inverse[slot] * _dot(self.steps[slot], direction)
            direction = torch.addcmul(direction, weights[slot][:, None], self.changes[slot], value=-1)
        direction = direction * self.scale[:, None]
        for slot in slots:
            weight = weights[slot] - self.inverse[slot] * _dot(self.changes[slot], direction)
            direction = torch.addcmul(direction, weight[:, None], self.steps[slot])
        return direction


def _dot(left: Tensor, right: Tensor) -> Tensor:
    product: Tensor = torch.linalg.vecdot(left, right)
    return product
