"""The surrogate model extension: its gradient is that at a point between two sets of weights, which moves too."""

import pytest
import torch
from torch.nn import functional

from gibench.attack import Context
from gibench.attacks.optimization.invertinggradients import InvertingGradients
from gibench.attacks.optimization.sme import SurrogateModelExtension
from gibench.observation import Update
from gibench.registry import create

LOCAL_STEPS = "fedavg:epochs=5,lr=1.0,local_batch_size=2"


def fresh():
    return Context(torch.Generator().manual_seed(0), torch.device("cpu"))


def psnr(run, scene):
    return -10 * torch.log10((run.reconstruction.images - scene.images).square().mean()).item()


def points_of(attack, problem, scene, alphas):
    """One candidate for each alpha."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(len(alphas), scene.images.numel(), generator=generator, dtype=torch.float64)
    scaled = torch.tensor(alphas, dtype=torch.float64)[:, None] * attack.step_size / attack.alpha_step_size
    return torch.cat([images, scaled], 1)


@pytest.mark.parametrize("alphas", [[0.0], [0.3], [0.7, 1.0]])
def test_the_value_is_the_cosine_of_the_surrogates_gradient_and_the_delta(see, alphas):
    scene, attack = see(LOCAL_STEPS), SurrogateModelExtension(total_variation=0.0)
    model, delta = scene.observation.model, scene.observation.update.tensors
    problem, _ = attack._problem(scene.observation)
    points = points_of(attack, problem, scene, alphas)
    values, _ = problem(points)
    for point, alpha, value in zip(points, alphas, values, strict=True):
        weights = {name: start.detach() + alpha * delta[name] for name, start in model.named_parameters()}
        weights = {name: weight.requires_grad_() for name, weight in weights.items()}
        logits = torch.func.functional_call(model, weights, (point[:-1].reshape(scene.images.shape),))
        gradient = torch.autograd.grad(functional.cross_entropy(logits, scene.labels), list(weights.values()))
        one, other = (torch.cat([part.flatten() for part in parts]) for parts in (gradient, delta.values()))
        assert value.item() == pytest.approx(1 + (one @ other / (one.norm() * other.norm())).item(), rel=1e-9)


def test_slopes_agree_with_finite_differences_in_images_and_in_alpha(see):
    scene, attack = see(LOCAL_STEPS), SurrogateModelExtension(alpha_step_size=0.5)
    problem, _ = attack._problem(scene.observation)
    points = points_of(attack, problem, scene, [0.3, 0.6])
    _, slope = problem(points)
    for only in (slice(None, -1), slice(-1, None)):
        way = torch.zeros_like(points)
        way[:, only] = torch.randn(way[:, only].shape, generator=torch.Generator().manual_seed(2), dtype=way.dtype)
        rise = (problem(points + 1e-5 * way)[0] - problem(points - 1e-5 * way)[0]) / 2e-5
        torch.testing.assert_close((slope * way).sum(1), rise.detach(), rtol=1e-5, atol=1e-9)
        assert bool((rise.abs() > 1e-6).all())


def test_alpha_starts_where_it_is_told_and_its_first_step_is_its_own(see):
    scene = see(LOCAL_STEPS)
    attack = SurrogateModelExtension(alpha=0.25, alpha_step_size=0.01, max_iterations=1)
    assert attack(scene.observation, fresh()).reconstruction.diagnostics["alpha_by_restart"] == [pytest.approx(0.25)]
    attack = attack.model_copy(update={"max_iterations": 2, "step_size": 0.1, "schedule": "constant"})
    (alpha,) = attack(scene.observation, fresh()).reconstruction.diagnostics["alpha_by_restart"]
    assert abs(alpha - 0.25) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("boxed", [True, False])
def test_alpha_stays_between_the_two_sets_of_weights(see, boxed):
    attack = SurrogateModelExtension(alpha_step_size=2.0, max_iterations=5, restarts=3, boxed=boxed)
    found = attack(see(LOCAL_STEPS).observation, fresh()).reconstruction.diagnostics["alpha_by_restart"]
    assert len(found) == 3
    assert all(0 <= alpha <= 1 for alpha in found)


def test_labels_may_be_sought_along_with_the_images(see):
    scene = see(LOCAL_STEPS, knows=("batch_size",))
    run = SurrogateModelExtension(max_iterations=3, label_strategy="joint")(scene.observation, fresh())
    assert run.status == "ok"
    assert run.reconstruction.labels.shape == (4,)


def test_in_the_middle_of_short_steps_the_true_images_match_to_second_order(see):
    scene, attack = see("fedavg:epochs=5,lr=0.001"), SurrogateModelExtension(total_variation=0.0)
    problem, _ = attack._problem(scene.observation)
    points = points_of(attack, problem, scene, [0.0, 0.4, 1.0])  # gradients are taken after 0 to 4 of the 5 steps
    points[:, :-1] = scene.observation.normalize(scene.images).flatten()
    received, middle, sent = problem(points)[0].tolist()
    assert middle < min(received, sent) / 1000


def test_it_finds_what_reading_the_delta_as_a_gradient_does_not(see, relu_net):
    scene = see("fedavg:epochs=10,lr=0.5", build=relu_net)
    settings = {"max_iterations": 300, "total_variation": 0.0, "gradient_sign": "off", "step_size": 0.1}
    plain, extended = (
        attack(**settings)(scene.observation, fresh()) for attack in (InvertingGradients, SurrogateModelExtension)
    )
    assert psnr(extended, scene) > psnr(plain, scene) + 1


def test_a_gradient_is_skipped(make_scene, sigmoid_net):
    scene = make_scene(sigmoid_net, [0])
    assert isinstance(scene.observation.update, Update)
    run = SurrogateModelExtension()(scene.observation, fresh())
    assert run.status == "skipped"
    assert "invertinggradients" in run.reason


def test_it_is_registered_as_adaptive():
    assert create("attack", "sme").adaptive
