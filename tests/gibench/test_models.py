"""The networks: their shapes, their layers, their first weights, and that they learn."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gibench import seeds
from gibench.errors import UsageError
from gibench.registry import create

NAMES = ("mlp", "linear", "lenet", "convnet", "resnet18")
PARAMETERS = {  # for 3x32x32 and ten classes
    "mlp": (3072 + 1) * 200 + 4 * 201 * 200 + 201 * 10,
    "linear": 30_730,
    "lenet": 12 * 76 + 2 * 12 * 301 + 769 * 10,
    "convnet": 32 * 28 + 32 * 289 + 64 * 289 + 64 * 577 + 128 * 577 + 128 * 1153 + 513 * 10,
    "resnet18": 11_173_962,  # as every ResNet-18 with the CIFAR stem
}


def build(spec, image_shape=(3, 32, 32), num_classes=10, seed=0):
    with seeds.isolated(seed, "model"):
        return create("model", spec).build(image_shape, num_classes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("image_shape", [(3, 32, 32), (1, 8, 8), (1, 25, 25), (3, 64, 48)])
def test_a_model_takes_images_of_any_shape_to_one_logit_a_class(name, image_shape):
    model = build(name, image_shape, 7)
    assert model(torch.rand(2, *image_shape)).shape == (2, 7)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_has_the_parameters_of_its_layers(name):
    assert sum(parameter.numel() for parameter in build(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", NAMES)
def test_first_weights_follow_the_seed(name):
    one, same, other = (build(name, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 6))
def test_an_mlp_has_depth_hidden_layers_of_width_neurons(width, depth):
    model = build(f"mlp:width={width},depth={depth}", (1, 2, 3), 4)
    sizes = [(layer.in_features, layer.out_features) for layer in model if isinstance(layer, nn.Linear)]
    assert sizes == [(6, width), *[(width, width)] * (depth - 1), (width, 4)]
    assert [type(layer) for layer in model] == [nn.Flatten, *[nn.Linear, nn.ReLU] * depth, nn.Linear]


@pytest.mark.parametrize("name", ["mlp", "linear", "convnet", "lenet:init=default"])
def test_first_weights_are_those_of_torch_by_default(name):
    for layer in build(name).modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            weight, bias = layer.weight.detach(), layer.bias.detach()
            bound = 1 / math.sqrt(weight[0].numel()) * (1 + 1e-6)  # both are uniform up to it
            assert 0.9 * bound < weight.abs().max() <= bound
            assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)
            assert bias.abs().max() <= bound


def test_lenet_starts_uniform_between_minus_and_plus_one_half():
    values = torch.cat([parameter.detach().flatten() for parameter in build("lenet").parameters()])
    assert values.min() >= -0.5
    assert values.max() <= 0.5
    assert values.mean() == pytest.approx(0, abs=0.01)
    assert values.var() == pytest.approx(1 / 12, rel=0.03)


def test_lenet_is_that_of_dlg():
    layers = [layer for layer in build("lenet") if not isinstance(layer, nn.Flatten)]
    assert [type(layer) for layer in layers] == [nn.Conv2d, nn.Sigmoid] * 3 + [nn.Linear]
    assert [layer.stride for layer in layers[:6:2]] == [(2, 2), (2, 2), (1, 1)]
    assert layers[-1].in_features == 768


def test_resnet18_keeps_the_resolution_of_small_images():
    assert build("resnet18").conv1.stride == (1, 1)
    assert build("resnet18", (3, 64, 64)).conv1.stride == (2, 2)


def test_convnet_refuses_images_that_its_pooling_would_use_up():
    with pytest.raises(UsageError, match="convnet takes images from 4 px up, not 3x9: use mlp or linear"):
        build("convnet", (1, 3, 9))


@pytest.mark.parametrize("spec", ["mlp:width=0", "mlp:depth=0", "convnet:width=0", "lenet:init=normal"])
def test_settings_out_of_range_are_refused(spec):
    with pytest.raises(UsageError, match="is refused: Input should be"):
        create("model", spec)
