"""GradInversion finds batches behind BatchNorm, and its parts do what they are there for."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from gibench import batch_norm
from gibench.attack import Context
from gibench.attacks.optimization.gradinversion import GradInversion
from gibench.registry import create
from gibench.threat_model import ThreatModel

CPU = torch.device("cpu")


def normed():
    convolution = nn.Conv2d(3, 12, 3, padding=1, stride=2), nn.BatchNorm2d(12), nn.ReLU()
    return nn.Sequential(*convolution, nn.Flatten(), nn.Linear(192, 5))


@pytest.fixture(scope="module")
def scene(make_scene):
    return make_scene(normed, [1, 3])


def granted(scene, source):
    """The scene's observation with BatchNorm's statistics, with the batch's statistics or without."""
    seen = scene.observation
    if source == "none":
        return seen
    exact = batch_norm.of_batches(seen.model, [seen.normalize(scene.images)])
    return replace(seen, bn_statistics=exact, threat_model=ThreatModel(seen.threat_model.knows | {"bn_statistics"}))


def found(observation, **settings):
    attack = GradInversion(**{"max_iterations": 150, "restarts": 2, **settings})
    return attack(observation, Context(torch.Generator().manual_seed(0), CPU)).reconstruction


def psnr(found, truth):
    return -10 * torch.log10((found - truth).square().mean()).item()


def test_a_batch_behind_batchnorm_is_found_with_its_labels_and_statistics_are_worth_something(scene):
    known, unknown = (found(granted(scene, source)) for source in ("exact", "none"))
    assert known.labels.tolist() == unknown.labels.tolist() == [1, 3]
    assert psnr(known.images, scene.images) > 20
    assert psnr(known.images, scene.images) > psnr(unknown.images, scene.images) + 1


def test_the_group_draws_restarts_together_and_without_it_none_sees_another(scene):
    seen = granted(scene, "none")
    settings = {"langevin": 0.0, "max_iterations": 30}  # whose noise is drawn for all restarts at once
    apart, alone = (found(seen, group=0.0, restarts=count, **settings).diagnostics for count in (2, 1))
    assert apart["objective_by_restart"][0] == pytest.approx(alone["objective"], rel=1e-5)
    assert found(seen, restarts=1, **settings).diagnostics["objective"] == alone["objective"]
    together = found(seen, group=10.0, **settings).diagnostics["objective_by_restart"]
    assert max(together) / min(together) < max(apart["objective_by_restart"]) / min(apart["objective_by_restart"])


def test_the_same_seed_gives_the_same_bits_and_noise_is_of_the_seed(scene):
    one, other = (found(granted(scene, "exact"), max_iterations=5).images for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, found(granted(scene, "exact"), max_iterations=5, langevin=0.0).images)


def test_specs_of_attacks_that_were_there_before_are_what_they_were():
    for name in ("dlg", "invertinggradients", "sme"):
        assert {"group", "langevin"} & set(create("attack", name).settings()) == set()
    kept = create("attack", "gradinversion").settings()
    assert {name: kept[name] for name in ("group", "langevin")} == {"group": "0.1", "langevin": "0.2"}
    assert create("attack", "dlg:langevin=0.1").settings()["langevin"] == "0.1"
