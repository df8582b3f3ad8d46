"""The networks: their shapes, their layers, their first weights, and that they learn."""

import math
import re
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gibench
from gibench import seeds
from gibench.errors import UsageError
from gibench.models import pretrained
from gibench.plugin import format_value
from gibench.registry import create, entries, readable, resolve

NAMES = ("mlp", "resmlp", "linear", "lenet", "convnet", "strided-cnn:width=20", "resnet18", "resnet18:norm=group")
GROWN = {  # a spec, images and classes, the parameters that its paper or the library that it is best known from has
    "fedavg-cnn": ((1, 28, 28), 10, 1_663_370),  # McMahan et al., section 3
    "lenet5": ((1, 28, 28), 10, 61_706),
    "vgg11:width=4096": ((3, 224, 224), 1000, 132_863_336),  # torchvision
    "vgg11:batch_norm=true,width=4096": ((3, 224, 224), 1000, 132_868_840),
    "resnet18": ((3, 224, 224), 1000, 11_689_512),
    "resnet18:norm=group": ((3, 224, 224), 1000, 11_689_512),
    "vit-tiny:patch=16": ((3, 224, 224), 1000, 5_717_416),  # timm's deit_tiny_patch16_224
}
PARAMETERS = {  # for 3x32x32 and ten classes
    "mlp": (3072 + 1) * 200 + 4 * 201 * 200 + 201 * 10,
    "resmlp": 3073 * 200 + 4 * 201 * 200 + 201 * 10,
    "linear": 30_730,
    "strided-cnn:width=20": 32 * 28 + 64 * 289 + (64 * 16 * 16 + 1) * 20 + 21 * 10,
    "lenet": 12 * 76 + 2 * 12 * 301 + 769 * 10,
    "convnet": 32 * 28 + 32 * 289 + 64 * 289 + 64 * 577 + 128 * 577 + 128 * 1153 + 513 * 10,
    "resnet18": 11_173_962,  # as every ResNet-18 with the CIFAR stem
    "resnet18:norm=group": 11_173_962,
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


@pytest.mark.parametrize("spec", GROWN)
def test_a_network_has_the_size_that_is_known_of_it(spec):
    image_shape, classes, count = GROWN[spec]
    with torch.device("meta"):
        model = create("model", spec).build(image_shape, classes)
        assert model(torch.empty(2, *image_shape)).shape == (2, classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["fedavg-cnn", "lenet5", "vgg11", "strided-cnn:stages=3,width=9", "vit-tiny:depth=1", "convnet"]),
    st.integers(1, 3),
    st.integers(1, 70),
    st.integers(1, 70),
)
def test_every_size_is_taken_or_refused_in_one_line(spec, channels, height, width):
    with torch.device("meta"):
        try:
            model = create("model", spec).build((channels, height, width), 5)
        except UsageError as error:
            refusal = str(error)
        else:
            refusal = None
            assert model(torch.empty(2, channels, height, width)).shape == (2, 5)
    assert refusal is None or re.search("from \\d+ px up|no whole number of them", refusal)


def test_the_usual_sizes_are_taken_where_they_can_be():
    for spec in ("fedavg-cnn", "lenet5", "vgg11", "strided-cnn", "vit-tiny", "resnet18", "resmlp"):
        with torch.device("meta"):
            assert create("model", spec).build((3, 32, 32), 10)(torch.empty(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("relu", nn.ReLU), ("leaky_relu", nn.LeakyReLU), ("gelu", nn.GELU), ("silu", nn.SiLU), ("tanh", nn.Tanh)],
)
def test_an_mlp_has_the_activation_that_is_asked_for(name, kind):
    model = build(f"mlp:activation={name},depth=2,width=5", (1, 2, 2))
    assert [type(layer) for layer in model][2::2] == [kind, kind]


def test_settings_that_came_later_are_named_where_they_are_not_the_default():
    assert str(resolve("model", "mlp:activation=relu")) == "mlp:depth=5,width=200"
    assert str(resolve("model", "mlp:activation=tanh")) == "mlp:activation=tanh,depth=5,width=200"
    assert str(resolve("model", "resnet18:norm=batch,weights=none")) == "resnet18"
    assert readable("model", "resnet18:norm=group") == "resnet18:norm=group"


def test_a_vit_attends_as_torch_does():
    block = build("vit-tiny:depth=1,width=24,heads=3", (3, 8, 8)).blocks[0].attention
    x = torch.randn(2, 5, 24)
    query, key, value = (each.unflatten(2, (3, 8)).transpose(1, 2) for each in block.qkv(x).chunk(3, 2))
    theirs = nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(block(x), block.out(theirs))


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    """A machine without torch's files and without a way to them."""

    def refuse(*arguments, **options):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["resnet18", "vgg11", "vgg11:batch_norm=true"])
def test_pretrained_weights_that_cannot_be_downloaded_are_refused_before_anything_runs(name, call):
    spec = name + ("," if ":" in name else ":") + "weights=imagenet"
    with pytest.raises(
        UsageError, match=r"cannot be downloaded \(URLError: .*no route to host.*: get https://.* put it at"
    ):
        create("model", spec).prepare()
    if name == "vgg11":
        outcome = call("run", "--attack", "random", "--dataset", "photos", "--model", spec)
        assert outcome.code == 2
        assert "the ImageNet weights of vgg11 cannot be downloaded" in outcome.err


def test_a_damaged_file_of_pretrained_weights_is_refused(no_network):
    file = no_network / "checkpoints" / "resnet18-f37072fd.pth"
    file.parent.mkdir()
    file.write_bytes(b"half of it")
    with pytest.raises(UsageError, match="is damaged: delete it"):
        create("model", "resnet18:weights=imagenet").prepare()


@pytest.mark.parametrize(
    ("spec", "architecture", "shape", "part"),
    [("resnet18", "resnet18", (3, 64, 64), ""), ("vgg11:width=20", "vgg11", (3, 32, 32), "features.")],
)
def test_pretrained_weights_are_all_but_the_last_layers(spec, architecture, shape, part, tmp_path, monkeypatch):
    with torch.device("meta"):
        theirs = torchvision.models.get_model(architecture, num_classes=1000).state_dict()
    theirs = {
        name: torch.rand(value.shape).to(value.dtype) if name.startswith(part) else torch.zeros(1)
        for name, value in theirs.items()
    }
    wanted = {name: value for name, value in theirs.items() if name.startswith(part) and not name.startswith("fc.")}
    torch.save(theirs, tmp_path / "weights.pth")
    monkeypatch.setattr(pretrained, "fetch", lambda architecture: tmp_path / "weights.pth")
    found = build(spec + (",weights=imagenet" if ":" in spec else ":weights=imagenet"), shape, 10).state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    plain = build(spec, shape, 10).state_dict()
    last = list(plain)[-1]
    assert torch.equal(found[last], plain[last])  # drawn as it is without them
    with pytest.raises(UsageError, match=r"leave weights.* out"):
        build(spec + (",weights=imagenet" if ":" in spec else ":weights=imagenet"), (1, *shape[1:]), 10)


@pytest.mark.parametrize(
    ("spec", "shape", "complaint"),
    [
        ("fedavg-cnn", (3, 3, 32), "fedavg-cnn takes images from 4 px up, not 3x32"),
        ("lenet5", (1, 11, 11), "lenet5 takes images from 12 px up"),
        ("vgg11", (3, 28, 28), "vgg11 takes images from 32 px up, not 28x28: use mlp or linear"),
        ("vit-tiny", (1, 6, 8), "patches of 4 px, and 6x8 is no whole number of them"),
        ("vit-tiny:heads=5", (1, 8, 8), "shares width=192 out to heads=5"),
        ("resnet18:norm=group,weights=imagenet", (3, 64, 64), "has ImageNet weights for 3 channels, 64 px and up"),
    ],
)
def test_images_that_a_network_cannot_take_are_refused(spec, shape, complaint):
    with pytest.raises(UsageError, match=complaint):
        build(spec, shape)


@pytest.mark.parametrize(
    "spec",
    [
        "mlp:activation=sine",
        "resnet18:norm=layer",
        "vgg11:weights=cifar",
        "mlp:width=0",
        "mlp:depth=0",
        "convnet:width=0",
        "lenet:init=normal",
    ],
)
def test_settings_out_of_range_are_refused(spec):
    with pytest.raises(UsageError, match="is refused: Input should be"):
        create("model", spec)


def test_the_page_names_every_model_with_its_settings_and_their_defaults():
    page = (Path(gibench.__file__).parent / "models" / "README.md").read_text("utf-8")
    told = {}
    for line in page.splitlines():
        if line.startswith("| `"):
            name, listed = line.split("|")[1:3]
            told[name.strip(" `")] = set(re.findall(r"`([^`]+)`", listed))
    for entry in entries("model"):
        if entry.distribution == "gibench":
            plugin = create("model", entry.name)
            known = {f"{key}={format_value(getattr(plugin, key))}" for key in type(plugin).model_fields}
            assert told.pop(entry.name) == {text.removesuffix("=") for text in known}
    assert not told
