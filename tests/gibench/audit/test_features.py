"""Behind a trunk the features are recovered exactly, and the report says so and no more."""

import pytest
import torch
from torch import nn

import gibench
from gibench.audit import render
from gibench.head import find_head
from tests.gibench.audit.conftest import MEAN, STD, pictures, trained

SHAPE = (1, 12, 12)


class Skips(nn.Module):
    """The images go around the first linear layer, too."""

    def __init__(self):
        super().__init__()
        self.trunk, self.flat = nn.Conv2d(1, 2, 3, padding=1), nn.Flatten()
        self.first, self.last = nn.Linear(288, 288), nn.Linear(288, 10)

    def forward(self, images):
        features = self.flat(torch.relu(self.trunk(images)))
        return self.last(torch.relu(self.first(features)) + images.flatten(1).repeat(1, 2))


class Twice(Skips):
    """The first linear layer is called twice."""

    def forward(self, images):
        features = self.first(self.flat(torch.relu(self.trunk(images))))
        return self.last(torch.relu(self.first(torch.relu(features))))


class Branches(Skips):
    """Python decides by the data."""

    def forward(self, images):
        return super().forward(images if images.sum() > 0 else -images)


def network():
    torch.manual_seed(0)
    trunk = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten()
    return nn.Sequential(*trunk, nn.Linear(144, 100), nn.ReLU(), nn.Linear(100, 60), nn.ReLU(), nn.Linear(60, 10))


@pytest.fixture(scope="module")
def sent():
    return trained(pictures(4, SHAPE), model=network())


@pytest.mark.parametrize("kind", ["gradient", "auto"])
def test_the_features_are_certified_and_the_images_are_not(sent, kind):
    update = sent.gradient if kind == "gradient" else sent.delta
    report = gibench.audit(sent.model, update, SHAPE, MEAN, STD, kind=kind, attacks=["layer-pair"], device="cpu")
    assert (report.verdict, report.exit_code(), report.certified_inputs, len(report.images)) == ("SUSPECT", 4, 0, 0)
    assert report.kind == ("gradient" if kind == "gradient" else "delta")
    assert (report.features.layer, report.features.size, report.features.candidates) == ("4", 144, 4)
    if kind == "gradient":  # the rounding of a delta shows as an image more
        assert (report.features.rank, report.features.certified) == (4, 4)
    true = sent.model[:4]((sent.images - MEAN) / STD).detach()  # in the mode in which the client had it
    found = report.features.top.found.images.flatten(1)
    assert float((found[:, None] - true[None]).abs().amax(2).amin(1).max()) < 1e-4
    assert "the 144 numbers that enter layer '4'" in report.reason
    assert "Features behind the trunk" in render.text(report)
    assert report.as_dict()["features"]["candidates"] == 4


def test_other_features_are_not_certified(sent):
    other = network()
    with torch.no_grad():
        other[0].weight.mul_(1.5)  # the trunk alone is another: what enters the layer is what the client's trunk made
    report = gibench.audit(other, sent.gradient, SHAPE, kind="gradient", attacks=["layer-pair"], device="cpu")
    assert report.features.certified == 4
    with torch.no_grad():
        other[4].weight.mul_(1.5)
    report = gibench.audit(
        other, sent.gradient, SHAPE, kind="gradient", attacks=["layer-pair:patience=1"], device="cpu"
    )
    assert (report.features.certified, report.verdict) == (0, "NOT SHOWN")


def test_a_network_that_cannot_be_traced_is_told():
    model = Branches()
    update = trained(pictures(2, SHAPE), model=model).gradient
    report = gibench.audit(model, update, SHAPE, attacks=["random"], device="cpu")
    (line,) = [each for each in report.assumed if "no features behind a trunk are looked for" in each]
    assert "the network cannot be traced (TraceError: symbolically traced variables cannot be used" in line


@pytest.mark.parametrize("model", [Skips, Twice])
def test_where_the_layers_after_it_see_more_there_is_no_head(model):
    assert find_head(model(), SHAPE) is None


def test_what_images_enter_as_they_are_has_no_features():
    assert find_head(nn.Sequential(nn.Flatten(), nn.Linear(144, 5)), SHAPE) is None
    assert find_head(nn.Conv2d(1, 1, 1), SHAPE) is None
    rows = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))  # rows, and not whole images
    assert find_head(rows, SHAPE) is None
