"""The control that attacks another batch's gradient sees nothing of the truth."""

from dataclasses import replace

import pytest
import torch

from gibench.attack import Context
from gibench.attacks.wrong_gradient import WrongGradient
from gibench.errors import UsageError
from gibench.observation import ImagePrior, SurrogateData, Update


def fresh():
    return Context(torch.Generator().manual_seed(0), torch.device("cpu"))


def control(text="analytic"):
    return WrongGradient(attack=text)


def test_it_does_not_depend_on_the_update(make_scene, relu_net):
    observation = make_scene(relu_net, [0, 1]).observation
    other = {name: torch.randn_like(value) for name, value in observation.update.tensors.items()}
    attack = control("invertinggradients:max_iterations=5")
    found = [
        attack(seen, fresh()).reconstruction.images
        for seen in (observation, replace(observation, update=Update(other)))
    ]
    assert torch.equal(*found)


def test_an_exact_attack_gives_the_surrogate_image_that_was_used(make_scene, relu_net):
    images = torch.rand(3, 3, 8, 8)
    scene = make_scene(
        relu_net, [0], knows=("batch_size", "surrogate_data"), surrogate_data=SurrogateData(images, torch.arange(3))
    )
    found = control()(scene.observation, fresh()).reconstruction.images
    assert (images - found).abs().flatten(1).amax(1).min() < 1e-5
    assert (scene.images - found).abs().max() > 0.1


def test_without_surrogate_data_images_are_drawn_from_the_prior(make_scene, relu_net):
    prior = ImagePrior(torch.full((3, 8, 8), 0.3), torch.full((3, 8, 8), 0.01))
    scene = make_scene(relu_net, [0], knows=("batch_size", "prior"), prior=prior)
    found = control()(scene.observation, fresh()).reconstruction.images
    assert (found - 0.3).abs().max() < 0.06


def test_granted_labels_are_replaced_by_those_of_the_other_batch(make_scene, relu_net):
    surrogate = SurrogateData(torch.rand(4, 3, 8, 8), torch.full((4,), 3))
    scene = make_scene(relu_net, [0, 1], knows=("batch_size", "labels", "surrogate_data"), surrogate_data=surrogate)
    run = control("idlg:max_iterations=3")(scene.observation, fresh())
    other = replace(scene.observation, labels=torch.tensor([4, 4]))
    assert torch.equal(
        run.reconstruction.images, control("idlg:max_iterations=3")(other, fresh()).reconstruction.images
    )


def test_it_is_skipped_for_the_reasons_of_the_attack_it_runs(make_scene, relu_net):
    run = control("idlg")(make_scene(relu_net, [0], knows=()).observation, fresh())
    assert run.status == "skipped"
    assert "batch_size" in run.reason


def test_the_attack_it_runs_is_resolved_with_all_its_settings():
    assert control("analytic").attack == "analytic:tolerance=0.001"


def test_an_unknown_attack_is_refused_at_once():
    with pytest.raises(UsageError, match="unknown attack"):
        WrongGradient.from_settings("wrong-gradient", {"attack": "analytical"})
