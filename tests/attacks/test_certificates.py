"""What a certificate proves, clause by clause: adversaries for each, and beside them what must stay certified."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from gibench.attacks.exact.linear_layer import read_gradient
from gibench.attacks.layer_pair import LayerPair
from gibench.attacks.layer_pair.next_layer import certain, read_next_layer
from gibench.attacks.spear import Spear
from gibench.attacks.spearpp import SpearPP
from gibench.datasets.base import Split

ATTACKS = {"spearpp": SpearPP(rounds=2), "layer-pair": LayerPair(patience=3), "spear": Spear(draws=4000)}


def with_tensors(seen, tensors):
    update = seen.observation.update
    return replace(seen, observation=replace(seen.observation, update=replace(update, tensors=tensors)))


def changed(seen, change):
    return with_tensors(seen, {name: change(name, value) for name, value in seen.observation.update.tensors.items()})


def claims(attack, seen, context):
    """How many images are exact, certified, and falsely certified; and the run."""
    run = ATTACKS[attack](seen.observation, context())
    result = run.reconstruction
    exact = seen.exact(result.images)
    certified = torch.zeros_like(exact) if result.certified is None else result.certified
    return int(exact.sum()), int(certified.sum()), int((certified & ~exact).sum()), result


# Clause: the scales of the first layer's weights and biases.
@pytest.mark.parametrize("factor", [0.9, 0.99, 1.02])
@pytest.mark.parametrize(("batch_size", "options"), [(8, {}), (6, {"depth": 1, "width": 100}), (14, {"depth": 1})])
def test_biases_scaled_by_themselves_are_corrected_by_the_next_layer(see, context, factor, batch_size, options):
    seen = changed(see(batch_size, **options), lambda name, value: factor * value if name == "1.bias" else value)
    assert claims("spearpp", seen, context)[:3] == (batch_size, batch_size, 0)


@pytest.mark.parametrize("attack", ["spearpp", "layer-pair"])
@pytest.mark.parametrize("factor", [0.1, 0.9, 0.9997, 1.01, 3.0])  # so near to 1 the images solve their equations
def test_the_equations_of_the_next_layer_tell_the_scales_too(see, context, attack, factor):
    seen = changed(see(8), lambda name, value: factor * value if name == "1.bias" else value)
    assert claims(attack, seen, context)[:3] == (8, 8, 0)


@pytest.mark.parametrize("factor", [0.97, 1.0])
def test_spear_corrects_the_scales_as_well(see, context, factor):
    seen = changed(see(6), lambda name, value: factor * value if name == "1.bias" else value)
    assert claims("spear", seen, context)[:3] == (6, 6, 0)


def test_without_a_next_layer_nothing_confirms_the_scales(see, context):
    seen = see(6)
    first = {name: value for name, value in seen.observation.update.tensors.items() if name.startswith("1.")}
    for attack in ("spearpp", "spear"):
        exact, certified = claims(attack, with_tensors(seen, first), context)[:2]
        assert (exact, certified) == (6, 0), attack
    assert claims("spearpp", with_tensors(seen, first), context)[3].diagnostics["withheld"]


def test_a_next_layer_without_biases_cannot_tell_a_scale(see, context, photos):
    model = see(6).observation.model
    with torch.no_grad():
        model[1].bias.zero_()  # then the activations of all scales are parallel
    for factor in (1.0, 0.9):
        seen = changed(see(6, model=model), lambda name, value, f=factor: f * value if name == "1.bias" else value)
        assert [claims(attack, seen, context)[1] for attack in ATTACKS] == [0, 0, 0]


# Clause: an image is the only point that its equations leave, under every pattern that it may have.
def family(see, seed, count, apart):
    """A batch of 8 whose first images lie on a plane so near one another that they have one pattern; and its layer."""
    drawn = see(8, seed).truth.images
    images = drawn.clone()
    generator = torch.Generator().manual_seed(seed)
    for k in range(1, count):
        images[k] = (drawn[0] + apart * torch.randn(drawn[0].shape, generator=generator)).clamp(0, 1)
    labels = see(8, seed).truth.labels.clone()
    labels[:count] = torch.arange(count)  # the columns are far from parallel
    seen = see(8, seed, truth=Split(images, labels), width=60)
    gradient = read_gradient(seen.observation, torch.Generator().manual_seed(0))
    return seen, gradient, read_next_layer(seen.observation, gradient, torch.Generator().manual_seed(0))


def points_of(seen, gradient, following):
    """The points `[B, B]` of the true images."""
    inputs = seen.observation.normalize(seen.truth.images).flatten(1).double()
    known = torch.cat([gradient.factors.inputs.T, gradient.factors.ones[None]])
    sought = torch.cat([inputs.T, torch.ones(1, len(inputs), dtype=torch.float64)])
    return following.triangle @ torch.linalg.lstsq(known, sought).solution


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [2, 3, 4])
def test_no_point_of_the_plane_through_images_of_one_pattern_is_certain(see, seed, count):
    seen, gradient, following = family(see, seed, count, 2e-3)
    truth = points_of(seen, gradient, following)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(count, 10, generator=generator, dtype=torch.float64)
    weights[0] += 1 - weights.sum(dim=0)
    planted = truth[:, :count] @ weights
    judged = following.judge(torch.cat([planted, truth[:, count:]], dim=1))
    scale = seen.observation.std.double()
    sure = certain(following, judged, following.errors(judged), scale)
    apart = (judged.images[:10, None] - judged.images[10:]).abs().amax(dim=2)  # of none of the others
    near = seen.observation.normalize(seen.truth.images[:count]).flatten(1).double()[:, None] - judged.images[:10]
    exact = (near.abs().amax(dim=2) * scale.max() < 1 / 510).any(dim=0)
    assert apart.min() > 0.1
    assert (~exact).sum() >= 5
    assert not (sure[:10] & ~exact).any()
    assert sure[10:].all()


@pytest.mark.parametrize("seed", range(4))
def test_where_a_line_through_two_images_meets_a_kink_nothing_is_certain(see, seed):
    seen, gradient, following = family(see, seed, 2, 2e-3)
    truth = points_of(seen, gradient, following)
    step = truth[:, 1] - truth[:, 0]
    values, slope = following.equations.features @ truth[:, 0], following.equations.features @ step
    crossings = (-values / slope).abs().argsort()[:6]
    planted = truth[:, :1] + step[:, None] * (-values / slope)[crossings]
    scale = seen.observation.std.double()
    for side in (1 - 1e-9, 1 + 1e-9):  # on the near side and on the far side of the kink
        judged = following.judge(truth[:, :1] + side * (planted - truth[:, :1]))
        certified = certain(following, judged, following.errors(judged), scale)
        assert not certified.any()
    judged = following.judge(truth[:, 2:])
    assert certain(following, judged, following.errors(judged), scale).all()


# Clause: no image of the batch is hidden in another's place.
@pytest.mark.parametrize("attack", ["spearpp", "layer-pair", "spear"])
def test_where_images_are_repeated_nothing_is_certified_if_the_batch_size_tells(see, context, attack):
    drawn = see(8).truth
    again = torch.tensor([0, 1, 2, 3, 4, 4])
    labels = drawn.labels[again].clone()
    for other in (0, 1):  # the label of the copy: the same, or another
        labels[5] = (labels[4] + other) % 10
        truth = Split(drawn.images[again], labels)
        _, certified, _, result = claims(attack, see(6, truth=truth), context)
        assert certified == 0
        assert "the rank is 5 and the batch 6" in result.diagnostics["withheld"] or attack == "spearpp"
        unknown = claims(attack, see(6, truth=truth, knows="nothing"), context)
        assert unknown[2] == 0
        assert unknown[1] == 5 or attack == "spear"


def gradient_of(seen, **loss):
    """The same with the gradient of another loss."""
    model, truth = seen.observation.model, seen.truth
    value = functional.cross_entropy(model(seen.observation.normalize(truth.images)), truth.labels, **loss)
    found = torch.autograd.grad(value, list(model.parameters()))
    return with_tensors(seen, dict(zip(dict(model.named_parameters()), found, strict=True)))


def decayed(seen):
    parameters = dict(seen.observation.model.named_parameters())
    return changed(seen, lambda name, value: value + 1e-5 * parameters[name].detach())


CLIENTS = {  # what the update is, and how many of 6 images must be certified
    "label smoothing": (lambda seen: gradient_of(seen, label_smoothing=0.1), 6),
    "sum": (lambda seen: gradient_of(seen, reduction="sum"), 6),
    "momentum": (lambda seen: changed(seen, lambda _, value: 1.9 * value), 6),
    "weight decay": (decayed, 0),
    "float16": (lambda seen: changed(seen, lambda _, value: value.half()), 0),
    "bfloat16": (lambda seen: changed(seen, lambda _, value: value.bfloat16()), 0),
    "float16 and back": (lambda seen: changed(seen, lambda _, value: (1e3 * value).half().float()), 0),
}


@pytest.mark.parametrize("attack", ["spearpp", "layer-pair"])
@pytest.mark.parametrize("client", CLIENTS)
def test_other_clients_certify_what_is_exact_and_nothing_false(see, context, attack, client):
    change, least = CLIENTS[client]
    _, certified, false, _ = claims(attack, change(see(6)), context)
    assert false == 0
    assert certified >= least


@pytest.mark.parametrize("attack", ["spearpp", "layer-pair"])
def test_a_saturated_last_layer_certifies_nothing_false(see, context, attack):
    model = see(6).observation.model
    with torch.no_grad():
        model[-1].weight.mul_(30)
    assert claims(attack, see(6, model=model), context)[2] == 0
