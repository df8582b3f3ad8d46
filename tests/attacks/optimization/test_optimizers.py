"""Optimisers take the steps of torch's own; schedules and signs are as published."""

import math

import pytest
import torch

from gibench.attacks.optimization.optimizers import LBFGS, Adam, Langevin, signed, step_size


def banana(points):
    """Rosenbrock's function in pairs, `[R]`, with its slope `[R, D]`."""
    points = points.detach().requires_grad_()
    x, y = points[:, ::2], points[:, 1::2]
    value = (10 * (y - x.square()).square() + (1 - x).square()).sum(1)
    (slope,) = torch.autograd.grad(value.sum(), points)
    return value.detach(), slope


def path(optimizer, points, steps, size=0.5):
    found = []
    for _ in range(steps):
        points = optimizer.step(points, banana(points)[1], size)
        found.append(points)
    return torch.stack(found)


def start(restarts=1):
    return torch.randn(restarts, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64) / 4


def test_adam_takes_torchs_steps():
    ours = path(Adam(start()), start(), 50, 0.1)
    points = start().requires_grad_()
    optimizer = torch.optim.Adam([points], lr=0.1)
    for expected in ours:
        optimizer.zero_grad()
        points.grad = banana(points)[1]
        optimizer.step()
        assert torch.allclose(points, expected, rtol=1e-9)


def test_lbfgs_takes_torchs_steps():
    ours = path(LBFGS(start(), memory=3), start(), 12)
    points = start().requires_grad_()
    optimizer = torch.optim.LBFGS([points], lr=0.5, max_iter=1, history_size=3, tolerance_grad=0, tolerance_change=0)

    def closure():
        value, points.grad = banana(points)
        return value

    for expected in ours:
        optimizer.step(closure)
        assert torch.allclose(points, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", [Adam, LBFGS])
def test_restarts_do_not_see_each_other(kind):
    together = path(kind(start(4)), start(4), 30)
    for restart in range(4):
        alone = start(4)[restart : restart + 1]
        assert torch.allclose(together[:, restart : restart + 1], path(kind(alone), alone, 30), rtol=1e-6)


def test_langevin_adds_noise_of_the_step_size_to_anothers_steps():
    def noisy(noise, size):
        generator = torch.Generator().manual_seed(5)
        return path(Langevin(Adam(start(40)), noise, generator), start(40), 1, size)

    plain, shorter = (path(Adam(start(40)), start(40), 1, size) for size in (0.1, 0.05))
    assert torch.equal(noisy(0.0, 0.1), plain)
    drawn = (noisy(0.2, 0.1) - plain) / 0.1
    assert torch.allclose((noisy(0.2, 0.05) - shorter) / 0.05, drawn)
    assert float(drawn.mean()) == pytest.approx(0, abs=0.2 * 4 / math.sqrt(drawn.numel()))
    assert float(drawn.std()) == pytest.approx(0.2, rel=4 / math.sqrt(2 * drawn.numel()))
    assert (drawn[:, 0] - drawn[:, 1]).abs().min() > 0  # every restart has its own
    assert torch.equal(noisy(0.2, 0.0), start(40)[None])  # what stands still is not shaken


def test_lbfgs_reaches_the_minimum():
    points = path(LBFGS(start()), start(), 200, 1.0)[-1]
    assert torch.allclose(points, torch.ones_like(points), atol=1e-6)


def test_no_entry_of_an_lbfgs_step_goes_further_than_its_reach():
    points = 30 * start()
    found = torch.cat([points[None], path(LBFGS(points, reach=0.25), points, 40, 1.0)])
    assert found.diff(dim=0).abs().max() <= 0.25 + 1e-12


def test_the_step_schedule_falls_tenfold_at_three_five_and_seven_eighths():
    sizes = [step_size(1.0, "step", 0, i, 80) for i in range(80)]
    assert [sizes[i] for i in (0, 29, 30, 49, 50, 69, 70, 79)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )


def test_the_cosine_schedule_rises_through_the_warm_up_and_falls_to_zero():
    sizes = [step_size(2.0, "cosine", 10, i, 110) for i in range(110)]
    assert sizes[0] == 0
    assert sizes[5] == pytest.approx(1)
    assert sizes[10] == pytest.approx(2)
    assert sizes[60] == pytest.approx(1)
    assert sizes[109] == pytest.approx(1 - math.cos(math.pi / 100), abs=1e-9)


def test_signs_are_hard_soft_or_left_off():
    slope = torch.tensor([-3.0, 0.0, 0.5])
    assert signed(slope, "hard", 0.5).tolist() == [-1, 0, 1]
    assert signed(slope, "off", 0.5).tolist() == slope.tolist()
    assert signed(slope, "soft", 0.5).tolist() == pytest.approx([-math.tanh(1.5) / 0.5, 0, math.tanh(0.25) / 0.5])
