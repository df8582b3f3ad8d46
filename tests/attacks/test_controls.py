"""The negative controls see the prior and the batch size, and nothing else."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from gibench.attack import Context
from gibench.attacks.controls import MeanImage, RandomImages
from gibench.observation import ImagePrior, Observation, ThreatModel, Update

SHAPE = (3, 4, 5)


def observation(knows, **granted):
    model = nn.Sequential(nn.Flatten(), nn.Linear(60, 2))
    update = Update({name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()})
    threat_model = ThreatModel(frozenset(knows))
    return Observation(model, update, SHAPE, torch.zeros(3), torch.ones(3), 2, threat_model, **granted)


def context(seed=0):
    return Context(torch.Generator().manual_seed(seed), torch.device("cpu"))


def test_random_fills_the_batch_uniformly():
    images = RandomImages()(observation({"batch_size"}, batch_size=200), context()).reconstruction.images
    assert images.shape == (200, *SHAPE)
    assert abs(images.mean() - 1 / 2) < 0.01
    assert abs(images.var() - 1 / 12) < 0.01
    assert images.min() >= 0
    assert images.max() <= 1


def test_random_returns_one_image_when_the_batch_size_is_withheld():
    assert len(RandomImages()(observation(set()), context()).reconstruction.images) == 1


def test_random_depends_on_the_generator_alone():
    same = [RandomImages()(observation(set()), context(1)).reconstruction.images for _ in range(2)]
    other = RandomImages()(observation(set()), context(2)).reconstruction.images
    assert torch.equal(*same)
    assert not torch.equal(same[0], other)


@pytest.mark.parametrize(("batch_size", "count"), [(None, 1), (6, 6)])
def test_mean_image_repeats_the_prior(batch_size, count):
    prior = ImagePrior(torch.rand(SHAPE), torch.ones(SHAPE))
    seen = observation({"prior"}, prior=prior, batch_size=batch_size)
    images = MeanImage()(seen, context()).reconstruction.images
    assert images.shape == (count, *SHAPE)
    assert all(torch.equal(image, prior.mean) for image in images)


def test_mean_image_is_skipped_without_the_prior():
    run = MeanImage()(replace(observation({"batch_size"}), batch_size=3), context())
    assert (run.status, run.reconstruction) == ("skipped", None)
    assert "prior" in run.reason
