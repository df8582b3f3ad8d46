"""Grid, residual and looks, against what is known of the truth."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gibench.audit.looks import look, weight_decay
from gibench.audit.observe import observation_of
from gibench.audit.pixels import check_pixels, on_grid
from gibench.audit.protocol import Protocol
from gibench.audit.residual import residual
from tests.gibench.audit.conftest import MEAN, SHAPE, STD, network, pictures, trained

PROTOCOL = Protocol(image_shape=SHAPE, mean=(MEAN,), std=(STD,))


def normalized(images, mean, std):
    return (images.double() - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)


@settings(max_examples=25)
@given(
    st.lists(st.floats(0.05, 0.9), min_size=3, max_size=3),
    st.lists(st.floats(0.1, 2), min_size=3, max_size=3),
    st.sampled_from([0.9, 0.997, 1.003, 1.1]),
    st.integers(0, 99),
)
def test_the_grid_tells_right_from_wrong_and_proposes_what_is_right(mean, std, factor, seed):
    inputs = normalized(pictures(4, (3, 16, 16), seed), mean, std)
    inputs += 1e-4 / 255 * torch.randn(inputs.shape, generator=torch.Generator().manual_seed(seed))
    assert check_pixels(inputs, torch.tensor(mean), torch.tensor(std)).passed
    found = check_pixels(inputs, torch.tensor(mean), factor * torch.tensor(std))
    assert not found.passed
    assert found.std == pytest.approx(std, rel=2e-3)
    if all(float(channel.min()) == 0 for channel in pictures(4, (3, 16, 16), seed).transpose(0, 1)):
        assert found.mean == pytest.approx(mean, abs=2e-3)


def test_a_mean_slightly_off_and_pixels_from_0_to_255_are_flagged():
    inputs = normalized(pictures(4), [MEAN], [STD])
    assert not check_pixels(inputs, torch.tensor([MEAN + 1e-3]), torch.tensor([STD])).passed
    found = check_pixels(255 * pictures(4), torch.zeros(1), torch.ones(1))
    assert not found.passed
    assert "outside [0, 1]" in found.reason
    assert found.std == pytest.approx((1 / 255,), rel=1e-3)


def test_few_levels_tell_nothing():
    assert "too few distinct" in check_pixels((pictures(4) > 0.5).double(), torch.zeros(1), torch.ones(1)).reason


def test_colours_last_are_seen_by_their_neighbours():
    ramp = torch.arange(32).view(1, 1, 32, 1) + torch.arange(32).view(1, 1, 1, 32)
    images = (ramp * 3 + torch.tensor([10, 40, 60]).view(1, 3, 1, 1)).double() / 255
    assert check_pixels(images, torch.zeros(3), torch.ones(3)).passed
    last = images.permute(0, 2, 3, 1).reshape(1, 3, 32, 32)
    found = check_pixels(last, torch.zeros(3), torch.ones(3))
    assert (found.passed, found.on_grid) == (False, True)
    assert "another order" in found.reason


def test_images_lie_on_the_grid_and_their_mixtures_do_not():
    images = pictures(3)
    both = torch.cat([images, 0.3 * images[:1] + 0.7 * images[1:2]])
    assert on_grid(both, torch.zeros(1), torch.ones(1)).tolist() == [True, True, True, False]


def test_the_truth_leaves_no_residual_and_tells_labels_and_targets(plain):
    inputs = (plain.images - MEAN) / STD
    observation = observation_of(plain.model, plain.gradient, True, PROTOCOL, 10)
    found = residual(observation, inputs)
    assert found.share < 1e-5
    assert found.gradient_sign is True
    assert found.labels.tolist() == list(range(8))
    torch.testing.assert_close(found.targets(1 / 8), torch.eye(10).double()[:8], atol=1e-4, rtol=0)
    assert residual(observation_of(plain.model, plain.gradient, False, PROTOCOL, 10), inputs).gradient_sign is False
    assert residual(observation_of(network(seed=1), plain.gradient, True, PROTOCOL, 10), inputs).share > 0.5
    assert residual(observation, inputs[:4]).share > 0.1
    assert residual(observation, inputs + 0.1 * torch.randn(inputs.shape)).share > 1e-3


@pytest.mark.parametrize("decay", [1e-4, 1e-2])
def test_weight_decay_is_read_off_a_delta_and_off_no_other(plain, decay):
    sent = trained(pictures(), weight_decay=decay)
    weights = dict(sent.model.named_parameters())
    found = look(sent.delta, {name: each.detach() for name, each in weights.items()}, 784).decay
    assert found == pytest.approx(-0.1 * decay, rel=1e-2)
    assert look(plain.delta, dict(plain.model.state_dict()), 784).decay is None
    assert look(plain.gradient, dict(plain.model.state_dict()), 784).decay is None


@pytest.mark.parametrize("shape", [(40, 90), (90, 40), (300, 350)])
def test_weight_decay_needs_no_particular_shape(shape):
    made = torch.Generator().manual_seed(0)
    rows, columns = shape
    weights = torch.randn(rows, columns, generator=made, dtype=torch.float64)
    low = torch.randn(rows, 9, generator=made, dtype=torch.float64) @ torch.randn(
        9, columns, generator=made, dtype=torch.float64
    )
    assert weight_decay(low - 0.03 * weights, weights) == pytest.approx(-0.03, rel=1e-6)
    assert weight_decay(torch.randn(rows, columns, generator=made, dtype=torch.float64), weights) is None


def test_signs_levels_and_dropped_entries_are_seen(plain):
    weights = dict(plain.model.state_dict())
    honest = look(plain.gradient, weights, 784)
    assert (honest.signs_only, honest.quantized, honest.dtype) == (False, False, "float32")
    assert honest.dropped < 0.01
    assert look({name: each.sign() * 1e-3 for name, each in plain.gradient.items()}, weights, 784).signs_only
    step = float(plain.gradient["1.weight"].abs().max()) / 127
    assert look({name: (each / step).round() * step for name, each in plain.gradient.items()}, weights, 784).quantized
    pruned = {name: each * (torch.rand_like(each) > 0.5) for name, each in plain.gradient.items()}
    assert look(pruned, weights, 784).dropped > 0.4
    dead = {
        name: each * (torch.arange(len(each)) % 2).view(-1, *[1] * (each.ndim - 1))
        for name, each in plain.gradient.items()
    }
    assert look(dead, weights, 784).dropped < 0.01
