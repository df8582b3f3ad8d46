"""The control that attacks another batch's update is the attack it names, and takes no update of the truth."""

from dataclasses import replace

import pytest
import torch

from gibench.attack import Context
from gibench.attacks.wrong_gradient import WrongGradient
from gibench.errors import UsageError
from gibench.registry import create

BOTH = {"batch_size", "local_hyperparameters"}


def fresh():
    return Context(torch.Generator().manual_seed(0), torch.device("cpu"))


def control(text="analytic"):
    return WrongGradient(attack=text)


def test_an_observation_of_the_truth_is_not_attacked(make_scene, relu_net):
    run = control()(make_scene(relu_net, [0]).observation, fresh())
    assert (run.status, run.reconstruction) == ("skipped", None)
    assert "of the truth itself" in run.reason


@pytest.mark.parametrize("text", ["analytic", "idlg:max_iterations=3", "cocktailparty:max_iterations=3"])
def test_on_another_batch_s_update_it_does_what_the_attack_does(make_scene, relu_net, text):
    observation = make_scene(relu_net, [0, 1]).observation
    found = control(text)(replace(observation, foreign=True), fresh()).reconstruction
    plain = create("attack", text)(observation, fresh()).reconstruction
    assert torch.equal(found.images, plain.images)
    assert dict(found.diagnostics) == dict(plain.diagnostics)


def test_certificates_of_the_other_batch_are_no_claim_about_the_truth(make_scene, relu_net):
    observation = make_scene(relu_net, [0, 1]).observation
    assert create("attack", "analytic")(observation, fresh()).reconstruction.certified is not None
    assert control()(replace(observation, foreign=True), fresh()).reconstruction.certified is None


def test_it_is_skipped_for_the_reasons_of_the_attack_it_runs(make_scene, relu_net, sigmoid_net):
    run = control("idlg")(replace(make_scene(relu_net, [0], knows=()).observation, foreign=True), fresh())
    assert run.status == "skipped"
    assert "batch_size" in run.reason
    run = control("spearpp")(replace(make_scene(sigmoid_net, [0]).observation, foreign=True), fresh())
    assert run.status == "skipped"
    assert "begins with Conv2d" in run.reason


@pytest.mark.parametrize(
    ("text", "adaptive", "requires", "budget"),
    [
        ("analytic", False, set(), None),
        ("mean-image", False, {"prior"}, None),
        ("dlg:max_iterations=40", False, {"batch_size"}, "40 iterations"),
        ("dlg-adaptive:restarts=3", True, BOTH, "300 iterations from each of 3 starts"),
        ("spear:draws=5000", False, set(), "5,000 draws"),
        ("spearpp-pruned", True, set(), "12 rounds of search"),
    ],
)
def test_what_it_knows_needs_and_may_spend_is_the_attack_s(text, adaptive, requires, budget):
    attack = control(text)
    assert (attack.adaptive, attack.requires, attack.budget) == (adaptive, requires, budget)
    assert attack.control
    assert not attack.oracle


def test_the_attack_it_runs_is_resolved_with_all_its_settings():
    assert control("analytic").attack == "analytic:tolerance=0.001"


def test_an_unknown_attack_is_refused_at_once():
    with pytest.raises(UsageError, match="unknown attack"):
        WrongGradient.from_settings("wrong-gradient", {"attack": "analytical"})
