"""The attack on the core: it converges, keeps its promises about restarts, labels, clock and failures."""

import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from gibench.attack import Context
from gibench.attacks.optimization.attack import OptimizationAttack
from gibench.attacks.optimization.descent import descend
from gibench.attacks.optimization.dlg import DLG
from gibench.attacks.optimization.idlg import IDLG
from gibench.attacks.optimization.invertinggradients import InvertingGradients
from gibench.attacks.optimization.modern import Modern
from gibench.observation import LocalTraining, Update


def psnr(found, truth):
    return -10 * torch.log10((found - truth).square().mean()).item()


def fresh(seed=0, deadline=None):
    return Context(torch.Generator().manual_seed(seed), torch.device("cpu"), deadline)


def test_dlg_finds_one_image_and_its_label_on_a_smooth_net(make_scene, sigmoid_net):
    scene = make_scene(sigmoid_net, [3])
    run = DLG(max_iterations=25)(scene.observation, fresh())
    assert run.status == "ok"
    assert psnr(run.reconstruction.images, scene.images) > 30
    assert run.reconstruction.labels.tolist() == [3]


def test_idlg_reads_the_label_and_finds_the_image(make_scene, sigmoid_net):
    scene = make_scene(sigmoid_net, [1])
    run = IDLG(max_iterations=25)(scene.observation, fresh())
    assert psnr(run.reconstruction.images, scene.images) > 30
    assert run.reconstruction.labels.tolist() == [1]


def test_inverting_gradients_finds_an_image(make_scene, relu_net):
    scene = make_scene(relu_net, [2])
    run = InvertingGradients(max_iterations=600, total_variation=0.0)(scene.observation, fresh())
    assert psnr(run.reconstruction.images, scene.images) > 25


def test_modern_finds_an_image(make_scene, relu_net):
    scene = make_scene(relu_net, [2])
    run = Modern(max_iterations=600, total_variation=0.0)(scene.observation, fresh())
    assert psnr(run.reconstruction.images, scene.images) > 20


@pytest.mark.parametrize(
    "attack", [DLG(max_iterations=2, restarts=3), InvertingGradients(max_iterations=30, restarts=3)], ids=["dlg", "ig"]
)
def test_restarts_in_one_batch_equal_restarts_one_by_one(make_scene, sigmoid_net, attack):
    observation = make_scene(sigmoid_net, [0, 4]).observation
    together = attack(observation, fresh()).reconstruction.diagnostics["objective_by_restart"]
    generator = torch.Generator().manual_seed(0)
    single = attack.model_copy(update={"restarts": 1})
    alone = [
        single(observation, Context(generator, torch.device("cpu"))).reconstruction.diagnostics["objective"]
        for _ in range(3)
    ]
    assert together == pytest.approx(alone, rel=1e-6)
    assert len(set(alone)) == 3


def test_the_restart_with_the_lowest_objective_wins(make_scene, sigmoid_net):
    found = DLG(max_iterations=1, restarts=4)(make_scene(sigmoid_net, [0]).observation, fresh()).reconstruction
    assert found.diagnostics["objective"] == min(found.diagnostics["objective_by_restart"])


def test_the_same_seed_gives_the_same_bits(make_scene, relu_net):
    observation = make_scene(relu_net, [0, 1]).observation
    found = [InvertingGradients(max_iterations=20)(observation, fresh()).reconstruction.images for _ in range(2)]
    assert torch.equal(*found)


def test_the_best_iterate_is_kept(make_scene, sigmoid_net):
    observation = make_scene(sigmoid_net, [0]).observation
    values = [
        OptimizationAttack(step_size=3.0, max_iterations=n)(observation, fresh()).reconstruction.diagnostics[
            "objective"
        ]
        for n in range(1, 12)
    ]
    assert values == sorted(values, reverse=True)


def test_granted_labels_are_used_and_not_returned(make_scene, relu_net):
    scene = make_scene(relu_net, [1, 1, 1], knows=("batch_size", "labels"))
    found = IDLG(max_iterations=1)(scene.observation, fresh()).reconstruction
    assert found.labels is None


@pytest.mark.parametrize("iterations", range(2, 6))  # the first point is drawn, boxed or not
def test_boxed_images_stay_in_the_box_all_along(make_scene, relu_net, monkeypatch, iterations):
    """Before the last clamp, which what is returned goes through either way."""
    observation = make_scene(relu_net, [0]).observation
    reached = {}

    def spied(problem, *rest):
        outcome = descend(problem, *rest)
        reached[boxed] = observation.denormalize(problem.images(outcome.points))
        return outcome

    monkeypatch.setattr("gibench.attacks.optimization.attack.descend", spied)
    for boxed in (True, False):
        settings = {"max_iterations": iterations, "step_size": 100.0, "total_variation": 0.0, "boxed": boxed}
        InvertingGradients(**settings)(observation, fresh())
    assert reached[True].min() > -1e-6
    assert reached[True].max() < 1 + 1e-6
    assert reached[False].max() > 2


def test_a_deadline_gives_what_was_found_by_then(make_scene, relu_net):
    observation = make_scene(relu_net, [0, 1]).observation
    run = InvertingGradients()(observation, fresh(deadline=time.monotonic() + 0.5))
    assert run.status == "timeout"
    assert run.reconstruction.images.shape == (2, 3, 8, 8)
    assert run.reconstruction.diagnostics["iterations"] < 24_000


class Overflow(nn.Module):
    """Finite at first order, infinite at second."""

    def forward(self, values):
        return values + (values * 1e30).square() * 1e-30


def test_an_objective_that_is_never_finite_has_diverged(make_scene):
    def build():
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 5), Overflow())

    scene = make_scene(partial(build), [0], dtype=torch.float32)
    finite = {name: torch.ones_like(value) for name, value in scene.observation.update.tensors.items()}
    run = DLG(max_iterations=2)(replace(scene.observation, update=Update(finite)), fresh())
    assert run.status == "diverged"
    assert "finite" in run.reason


def test_an_unknown_batch_size_is_skipped_with_the_mend(make_scene, relu_net):
    run = DLG()(make_scene(relu_net, [0], knows=()).observation, fresh())
    assert (run.status, run.reconstruction) == ("skipped", None)
    assert "batch_size" in run.reason


def test_a_gradient_of_another_architecture_is_skipped_with_the_place(make_scene, relu_net):
    scene, other = make_scene(relu_net, [0]), make_scene(partial(relu_net, width=61), [0])
    run = InvertingGradients()(replace(scene.observation, update=other.observation.update), fresh())
    assert run.status == "skipped"
    assert "another architecture" in run.reason
    assert "1.weight" in run.reason


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(context, values):
        return values.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, slopes):
        return slopes


class Once(nn.Module):
    """Differentiable once only."""

    def forward(self, values):
        return Rounded.apply(values)


def test_a_net_that_cannot_be_differentiated_twice_is_skipped(make_scene):
    def build():
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 9), Once(), nn.Linear(9, 5))

    run = InvertingGradients()(make_scene(build, [0]).observation, fresh())
    assert run.status == "skipped"
    assert "twice" in run.reason


def test_labels_that_cannot_be_inferred_are_skipped_unless_granted(make_scene):
    def build():
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 5, bias=False))

    run = InvertingGradients()(make_scene(build, [0]).observation, fresh())
    assert run.status == "skipped"
    assert "grant labels" in run.reason
    granted = make_scene(build, [0], knows=("batch_size", "labels")).observation
    assert InvertingGradients(max_iterations=2)(granted, fresh()).status == "ok"


def test_squared_differences_need_the_scale_that_a_cosine_does_not(make_scene, relu_net):
    observation = make_scene(relu_net, [0]).observation
    delta = {name: -0.1 * value for name, value in observation.update.tensors.items()}
    observation = replace(observation, update=Update(delta, "weight_delta"))
    assert "local_hyperparameters" in DLG()(observation, fresh()).reason
    assert InvertingGradients(max_iterations=2)(observation, fresh()).status == "ok"
    known = replace(observation, local_hyperparameters=LocalTraining(1, 1, 0.1, 0.0, 1, 0.1))
    assert DLG(max_iterations=1)(known, fresh()).status == "ok"


def test_batch_norm_in_train_mode_is_attacked_by_the_statistics_of_the_candidates(make_scene):
    def build():
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Sigmoid(), nn.Flatten(), nn.Linear(256, 5)
        )

    scene = make_scene(build, [0, 1, 2])
    before = {name: value.clone() for name, value in scene.observation.model.state_dict().items()}
    found = [
        InvertingGradients(max_iterations=n, restarts=2)(scene.observation, fresh()).reconstruction for n in (1, 200)
    ]
    assert found[1].diagnostics["objective"] < found[0].diagnostics["objective"] / 2
    assert all(torch.equal(value, before[name]) for name, value in scene.observation.model.state_dict().items())


def test_granted_batch_norm_statistics_enter_the_objective(make_scene):
    def build():
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))

    far = {"1.mean": torch.full((4,), 100.0, dtype=torch.float64), "1.var": torch.ones(4, dtype=torch.float64)}
    scene = make_scene(build, [0, 1], knows=("batch_size", "bn_statistics"), bn_statistics=far)
    attack = InvertingGradients(max_iterations=1)
    without = attack(scene.observation, fresh()).reconstruction.diagnostics["objective"]
    attack = attack.model_copy(update={"batch_norm": 1.0})
    assert attack(scene.observation, fresh()).reconstruction.diagnostics["objective"] > without + 10 * 150


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 9), (1, 28), (3, 224)])
def test_images_of_any_size_and_one_or_three_channels(make_scene, sigmoid_net, channels, side):
    scene = make_scene(partial(sigmoid_net, channels, side), [0, 1], shape=(channels, side, side))
    for attack in (Modern(max_iterations=2), DLG(max_iterations=1)):
        run = attack(scene.observation, fresh())
        assert run.status == "ok"
        assert run.reconstruction.images.shape == (2, channels, side, side)
