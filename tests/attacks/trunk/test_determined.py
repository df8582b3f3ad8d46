"""An image is certified only where its features tell it from every other."""

import pytest
import torch
from torch import nn

from gibench.attacks.trunk.determined import near_kinks, predicted_errors
from gibench.attacks.trunk.equations import read_features
from gibench.attacks.trunk.network import behind_trunk
from tests.attacks.trunk.conftest import network, pooled, skipping, strided


def equations(model, small, see_small, count=2):
    """The equations of true features, without noise, and the true images as columns."""
    seen = see_small(model, count)
    behind = behind_trunk(seen.observation)
    inputs = seen.observation.normalize(seen.truth.images)
    with torch.no_grad():
        features = behind.head.trunk(inputs)
    return read_features(behind.trunk, features, torch.zeros(count), None), inputs.flatten(1).T


def dense_errors(found, points):
    """The largest standard deviation of a number of each image, by the pseudo-inverse in float64; infinite if singular.

    Kinks are taken to be sure.
    """
    trunk, errors = found.trunk, []
    network = trunk.network.double().requires_grad_(False)
    for k in range(points.shape[1]):
        rows = torch.func.jacrev(lambda x: network(x.view(1, *trunk.image_shape))[0])(points[:, k].double())
        rows = rows[found.known[k]]
        values = torch.linalg.svdvals(rows)
        inverse = torch.linalg.pinv(rows)
        singular = len(values) < len(points) or values[-1] < 1e-6 * values[0]
        errors.append(float("inf") if singular else (found.noise[k] * inverse.norm(dim=1).max()).item())
    network.float()
    return torch.tensor(errors)


def test_the_predicted_error_bounds_that_of_the_pseudo_inverse(small, see_small, context):
    found, points = equations(strided(), small, see_small)
    bound, exact = predicted_errors(found, points, 0.25, context()), dense_errors(found, points)
    assert (bound >= exact).all()
    assert (bound < 1e-4).all()


@pytest.mark.parametrize("model", [pooled, skipping])
def test_what_features_do_not_tell_is_not_determined(small, see_small, context, model):
    found, points = equations(model(), small, see_small)
    assert dense_errors(found, points).isinf().all()
    assert (predicted_errors(found, points, 0.25, context()) > 1e-2).all()


def test_a_way_on_that_is_in_doubt_tells_nothing(small, see_small, context):
    torch.manual_seed(0)
    kernel = nn.Conv2d(3, 6, 1)
    with torch.no_grad():  # a number and its negative: together their ReLUs tell it, but for the first channel
        kernel.weight.zero_()
        for channel in range(3):
            kernel.weight[2 * channel, channel], kernel.weight[2 * channel + 1, channel] = 1, -1
        kernel.bias.copy_(torch.tensor([0.0, 0, 3, 3, 3, 3]))
    model = network(kernel, nn.ReLU(), nn.Conv2d(6, 24, 1), features=24 * 64)
    found, points = equations(model, small, see_small)
    assert (predicted_errors(found, points, 0.25, context()) < 1e-4).all()
    points = points.clone()
    points[5] = 1e-7  # of the first channel, where its kink is
    mask = near_kinks(found, points, 1e-5, context().generator)
    assert all(each[:, :2].flatten(1).sum(1).tolist() == [2, 2] for each in mask.values())
    assert (predicted_errors(found, points, 0.25, context()) > 1e-2).all()


def test_two_inputs_of_a_pool_that_are_alike_may_both_be_the_larger(small, see_small, context):
    found, points = equations(network(nn.MaxPool2d(2), nn.Conv2d(3, 60, 1), nn.ReLU(), features=960), small, see_small)
    images = found.trunk.of_columns(points)
    windows = images.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4).topk(2, dim=4).values
    gap = windows[..., 0] - windows[..., 1]
    (mask,) = near_kinks(found, points, 0.01, context().generator).values()
    assert torch.equal(mask[gap < 0.02], torch.ones_like(mask[gap < 0.02]))
    assert torch.equal(mask[gap > 0.06], torch.zeros_like(mask[gap > 0.06]))
    assert 0 < mask.mean() < 1
