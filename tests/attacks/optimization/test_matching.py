"""Both ways to the gradient of a gradient-matching objective agree with plain double differentiation."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from gibench.attacks.optimization import chain
from gibench.attacks.optimization.matching import ChainMatching, PlainMatching, make, recorded
from gibench.registry import create

SHAPE = (3, 8, 8)
CLASSES = 5


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 12, bias=False), nn.Tanh()).append(
        nn.Linear(12, CLASSES)
    )


def convnet():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, dilation=2, padding=(2, 1), bias=False),
        nn.Sigmoid(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12, CLASSES),
    )


def patches():
    """A linear layer on more than one position of an image."""
    return nn.Sequential(nn.Flatten(2), nn.Linear(64, 6), nn.ReLU(), nn.Flatten(), nn.Linear(18, CLASSES))


def parts():
    """Every kind of step, a reused one, and parts without one of their own before and after the first weights."""
    gelu = nn.GELU()
    return nn.Sequential(
        nn.Tanh(),
        nn.Sigmoid(),
        nn.Conv2d(3, 4, 3),
        gelu,
        nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
        nn.AvgPool2d(2, stride=1),
        nn.Sequential(nn.Flatten(), nn.Linear(36, 10), gelu, nn.Identity()),
        nn.Linear(10, CLASSES),
        nn.Sigmoid(),
    )


def normalised():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(144, CLASSES)
    )


def reference(model, gradient, images, targets, objective):
    """The value and its derivative for one candidate, written out."""
    images = images.clone().requires_grad_()
    loss = functional.cross_entropy(model(images), targets)
    found = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    pairs = list(zip(found, gradient.values(), strict=True))
    if objective == "cosine":
        norms = [sum(part.square().sum() for part in parts).sqrt() for parts in zip(*pairs, strict=True)]
        value = 1 - sum((a * b).sum() for a, b in pairs) / (norms[0] * norms[1])
    else:
        power = 2 if objective == "l2" else 1
        value = sum((a - b).abs().pow(power).sum() for a, b in pairs)
        value = value / sum(b.abs().pow(power).sum() for _, b in pairs)
    return value.detach(), torch.autograd.grad(value, images)[0]


def case(build, batch, restarts):
    torch.manual_seed(0)
    model = build().double()
    targets = torch.randint(CLASSES, (batch,))
    loss = functional.cross_entropy(model(torch.randn(batch, *SHAPE, dtype=torch.float64)), targets)
    gradient = dict(
        zip(dict(model.named_parameters()), torch.autograd.grad(loss, list(model.parameters())), strict=True)
    )
    return model, gradient, torch.randn(restarts, batch, *SHAPE, dtype=torch.float64), targets


WAYS = [(ChainMatching, build) for build in (mlp, convnet, patches, parts)] + [
    (PlainMatching, build) for build in (mlp, convnet, normalised)
]


@pytest.mark.parametrize(("way", "build"), WAYS)
@pytest.mark.parametrize(
    ("objective", "batch", "restarts"), list(itertools.product(["cosine", "l2", "l1"], [2, 24], [1, 3]))
)
def test_value_and_derivative_are_those_of_each_restart_alone(way, build, objective, batch, restarts):
    model, gradient, images, targets = case(build, batch, restarts)
    images.requires_grad_()
    match = way(model, gradient, objective)(images, targets.expand(restarts, -1))
    (slope,) = torch.autograd.grad(match.outputs, [images], match.weights)
    for restart in range(restarts):
        value, expected = reference(model, gradient, images[restart].detach(), targets, objective)
        assert torch.allclose(match.value[restart], value, rtol=1e-9)
        assert torch.allclose(slope[restart], expected, rtol=1e-7, atol=1e-9 * expected.abs().max().item())


@pytest.mark.parametrize("way", [ChainMatching, PlainMatching])
def test_labels_may_be_probabilities_and_have_a_derivative(way):
    model, gradient, images, _ = case(mlp, 2, 2)
    logits = torch.randn(2, 2, CLASSES, dtype=torch.float64, requires_grad=True)

    def value(logits):
        return way(model, gradient, "l2")(images.requires_grad_(), logits.softmax(2))

    match = value(logits)
    (slope,) = torch.autograd.grad(match.outputs, [logits], match.weights)
    moved = logits.detach().clone()
    moved[1, 0, 3] += 1e-6
    rise = (value(moved).value - match.value) / 1e-6
    assert torch.allclose(rise, torch.stack([torch.zeros_like(slope[1, 0, 3]), slope[1, 0, 3]]), atol=1e-5)


@pytest.mark.parametrize(("way", "build"), [(ChainMatching, convnet), (PlainMatching, convnet)])
@pytest.mark.parametrize("restarts", [1, 2])
def test_inputs_of_watched_layers_are_given(way, build, restarts):
    model, gradient, images, targets = case(build, 2, restarts)
    match = way(model, gradient, "cosine", ["6"])(images.requires_grad_(), targets.expand(restarts, -1))
    assert torch.allclose(match.inputs["6"], torch.stack([model[:6](batch) for batch in images]))


@pytest.mark.parametrize("restarts", [1, 2])
def test_a_penalty_on_a_watched_layers_input_has_the_same_slope_both_ways(restarts):
    model, gradient, images, targets = case(convnet, 2, restarts)
    slopes = []
    for way in (ChainMatching, PlainMatching):
        match = way(model, gradient, "cosine", ["2", "6"])(images.requires_grad_(), targets.expand(restarts, -1))
        penalty = match.inputs["2"].square().sum() + match.inputs["6"].sin().sum()
        outputs, weights = [*match.outputs, penalty], [*match.weights, torch.ones_like(penalty)]
        slopes += torch.autograd.grad(outputs, [images], weights)
    assert torch.allclose(*slopes, rtol=1e-9)


def test_chains_of_linear_layers_convolutions_and_parts_without_parameters_are_found():
    assert all(chain.links(build()) for build in (mlp, convnet, patches, parts))
    nested = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(192, 5), nn.ReLU()))
    assert [name for name, _ in chain.links(nested)] == ["0", "1.0", "1.1"]


def test_a_part_without_parameters_may_occur_twice():
    relu = nn.ReLU()
    assert len(chain.links(nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 4), relu))) == 4


def test_normalisation_grouped_convolutions_shared_layers_and_other_modules_are_no_chain():
    shared = nn.Linear(192, 192)
    tied = nn.Linear(192, 192)
    tied.weight = shared.weight
    assert chain.links(normalised()) is None
    assert chain.links(nn.Sequential(nn.Conv2d(3, 3, 3, groups=3))) is None
    assert chain.links(nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared)) is None
    assert chain.links(nn.Sequential(nn.Flatten(), shared, nn.ReLU(), tied)) is None
    assert chain.links(nn.Sequential(nn.Linear(4, 4), nn.ELU(inplace=True))) is None
    assert chain.links(nn.Sequential(nn.Flatten(), nn.TransformerEncoderLayer(192, 2))) is None


def test_the_model_is_left_as_it_was():
    model, gradient, images, targets = case(normalised, 4, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    match = PlainMatching(model, gradient, "cosine")(images.requires_grad_(), targets[None])
    torch.autograd.grad(match.outputs, [images], match.weights)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_recording_takes_its_hooks_away():
    model = mlp()
    with recorded(model, ("1",)):
        model(torch.zeros(1, *SHAPE))
    assert not model[1]._forward_pre_hooks


@pytest.mark.parametrize("training", [True, False])
def test_candidates_are_evaluated_in_the_mode_that_is_observed(training):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)).double()
    images, targets = torch.randn(3, 1, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 3])
    parameters = dict(model.named_parameters())
    client = copy.deepcopy(model).train(training)
    loss = functional.cross_entropy(client(images), targets)
    gradient = dict(zip(parameters, torch.autograd.grad(loss, list(client.parameters())), strict=True))
    for mode, reached in ((training, True), (not training, False)):
        match = make(model.train(mode), gradient, "l2")(images[None], targets[None])
        assert (float(match.value) < 1e-20) == reached


BY_CHANNEL = nn.Sequential(nn.Unflatten(1, (3, 4, 4)), nn.Dropout2d(0.5), nn.Flatten())


@pytest.mark.parametrize("dropout", [nn.Dropout(0.5), BY_CHANNEL])
def test_dropout_draws_nothing_and_candidates_are_evaluated_without(dropout):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), dropout, nn.Linear(48, 4)).double()
    images, targets = torch.randn(3, 1, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 3])
    without = copy.deepcopy(model).eval()
    loss = functional.cross_entropy(without(images), targets)
    found = torch.autograd.grad(loss, list(without.parameters()))
    gradient = dict(zip(dict(model.named_parameters()), found, strict=True))
    drawn = torch.get_rng_state()
    for restarts in (1, 2):
        match = make(model.train(), gradient, "l2")(
            images.expand(restarts, -1, -1, -1, -1), targets.expand(restarts, -1)
        )
        assert float(match.value.max()) < 1e-20
    assert torch.equal(torch.get_rng_state(), drawn)
    assert dropout.training


class Calls(nn.Module):
    """A part of a network that is written as a function; `outer` makes the network no chain."""

    def __init__(self, function, *parts):
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x):
        return self.function(self, x)


def attention(module, x):
    """Of four tokens, with a share of its weights dropped."""
    x = x.view(len(x), 4, 12)
    return module.parts[0](x, x, x, need_weights=False)[0].flatten(1)


def products(module, x):
    x = x.view(len(x), 4, 12)
    return functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5 * module.training).flatten(1)


MASKS = {
    "function": Calls(lambda module, x: functional.dropout(x, training=module.training)),
    "always": Calls(lambda module, x: functional.dropout(x)),
    "torch's": Calls(lambda module, x: torch.dropout(x, 0.5, module.training)),
    "by channel": Calls(lambda module, x: functional.dropout2d(input=x.view(-1, 3, 4, 4), p=0.5).flatten(1)),
    "alpha": Calls(lambda module, x: functional.alpha_dropout(x, 0.5, module.training)),
    "products": Calls(products),
    "attention": Calls(attention, nn.MultiheadAttention(12, 2, dropout=0.5, batch_first=True)),
    "recurrent": Calls(
        lambda module, x: module.parts[0](x.view(len(x), 4, 12))[0].flatten(1),
        nn.GRU(12, 12, 2, batch_first=True, dropout=0.5),
    ),
}
ALWAYS = dict.fromkeys(["always", "by channel"], lambda module, x: x)  # what eval mode leaves on


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", MASKS)
def test_dropout_as_a_function_draws_nothing_either(name, whole):
    torch.manual_seed(0)
    part = copy.deepcopy(MASKS[name])
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), part, nn.Linear(48, 4)).double()
    if not whole:
        model = Calls(lambda module, x: module.parts[0](x), model)
    images, targets = torch.randn(3, 1, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 3])
    without = copy.deepcopy(model).eval()
    if name in ALWAYS:
        next(each for each in without.modules() if getattr(each, "function", None) is part.function).function = ALWAYS[
            name
        ]
    loss = functional.cross_entropy(without(images), targets)
    found = torch.autograd.grad(loss, list(without.parameters()))
    gradient = dict(zip(dict(model.named_parameters()), found, strict=True))
    drawn = torch.get_rng_state()
    for restarts in (1, 2) if name != "recurrent" else (1,):
        several = images.expand(restarts, -1, -1, -1, -1), targets.expand(restarts, -1)
        assert float(make(model.train(), gradient, "l2")(*several).value.max()) < 1e-20
    assert torch.equal(torch.get_rng_state(), drawn)


def test_a_vision_transformer_can_be_matched():
    torch.manual_seed(0)
    model = create("model", "vit-tiny:depth=1,width=12,heads=3").build((1, 8, 8), 4).double()
    images, targets = torch.randn(2, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 3])
    gradient = dict(
        zip(
            dict(model.named_parameters()),
            torch.autograd.grad(functional.cross_entropy(model(images), targets), list(model.parameters())),
            strict=True,
        )
    )
    match = make(model, gradient, "cosine")
    assert float(match(images[None], targets[None]).value) < 1e-12
    candidate = torch.randn(1, 2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    found = match(candidate, targets[None])
    (slope,) = torch.autograd.grad(found.outputs, [candidate], found.weights)
    step = 1e-6 * slope / slope.norm()
    rise = (match(candidate + step, targets[None]).value - match(candidate - step, targets[None]).value) / 2e-6
    assert float(rise) == pytest.approx(float(slope.norm()), rel=1e-4)
