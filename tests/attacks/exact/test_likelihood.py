"""The most likely batch under noise, against automatic differentiation and the Cramer-Rao bound."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from gibench import batches, client, seeds
from gibench.attack import Context
from gibench.attacks.exact.likelihood import polish, solve
from gibench.attacks.exact.linear_layer import read_gradient
from gibench.attacks.exact.relu_chain import Point, read_layers
from gibench.datasets.digits import Digits
from gibench.defenses.noise import Noise
from gibench.defenses.none import NoDefense
from gibench.models.mlp import MLP
from gibench.observation import ThreatModel

BATCH, WIDTH, DEPTH = 5, 60, 3
IMAGES = Digits().load()


def observe(seed, std, width=WIDTH, dtype=torch.float64):
    """The observation, and the true inputs `[B, n]` and labels."""
    truth = batches.draw(IMAGES, BATCH, "unique", 1, seeds.generator(seed, "data"))
    with seeds.isolated(seed, "model"):
        model = MLP(width=width, depth=DEPTH).build(IMAGES.image_shape, IMAGES.num_classes).to(dtype)
    defense = Noise(std=std) if std else NoDefense()
    generator = seeds.generator(seed, "defense")
    seen = client.observe(model, IMAGES, truth, [defense], ThreatModel(), generator, BATCH).observation
    return seen, seen.normalize(truth.images).flatten(1).double(), truth.labels


def polished(seen, start, error, certified=None, **options):
    context = Context(seeds.generator(0, "attack"), torch.device("cpu"), **options)
    gradient = read_gradient(seen, context.generator)
    certified = torch.zeros(len(start), dtype=torch.bool) if certified is None else certified
    return polish(seen, gradient, start, torch.full((len(start),), error, dtype=torch.float64), certified, context)


def moved(inputs, error, seed=0):
    return inputs + error * torch.randn(inputs.shape, generator=torch.Generator().manual_seed(seed), dtype=inputs.dtype)


def flat_gradient(model, inputs, labels):
    """The mean-loss gradient as one vector, by automatic differentiation."""
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def loss(values, x):
        return nn.functional.cross_entropy(torch.func.functional_call(model, values, (x,)), labels)

    return torch.cat([part.flatten() for part in torch.func.grad(loss)(parameters, inputs).values()])


def bound(model, inputs, labels):
    """Cramer-Rao: the covariance of the images per unit of noise, labels and loss known, `[B n, B n]`."""
    jacobian = torch.func.jacfwd(lambda x: flat_gradient(model, x, labels))(inputs).flatten(1)
    return torch.linalg.inv(jacobian.T @ jacobian)


def test_derivatives_are_those_of_automatic_differentiation():
    seen, inputs, labels = observe(0, 1e-6, width=20)
    layers = read_layers(seen)
    probabilities = seen.model(inputs).detach().softmax(dim=1)
    sent = (probabilities - nn.functional.one_hot(labels, 10)) / BATCH
    truth = flat_gradient(seen.model, inputs, labels)
    weights = [1.0, 0.5, 2.0, 3.0]

    def residuals(x, e, *slopes):
        point = Point(layers, x, e)
        return torch.cat(
            [(w**0.5 * r).flatten() for w, r in zip(weights, Point(layers, x, e, slopes).residuals(), strict=True)]
            if slopes
            else [r.flatten() for r in point.residuals()]
        )

    point = Point(layers, inputs, sent)
    of_truth = torch.cat(
        [
            layer.target[:, :-1].flatten() - r[:, :-1].flatten()
            for layer, r in zip(layers, point.residuals(), strict=True)
        ]
    )
    names = [name for name, _ in seen.model.named_parameters()]
    parts = dict(zip(names, truth.split([p.numel() for p in seen.model.parameters()]), strict=True))
    torch.testing.assert_close(of_truth, torch.cat([parts[name] for name in names if "weight" in name]))

    at = (inputs, sent, *point.patterns)
    jacobians = [part.flatten(1) for part in torch.func.jacfwd(residuals, argnums=tuple(range(len(at))))(*at)]
    jacobian = torch.cat([part.reshape(len(part), -1) for part in jacobians], dim=1)
    generator = torch.Generator().manual_seed(1)
    step = [torch.randn(1, *part.shape, generator=generator, dtype=torch.float64) for part in at]
    flat = torch.cat([part.flatten() for part in step])
    normal = torch.cat([part.flatten() for part in point.normal(step, weights)])
    torch.testing.assert_close(normal, jacobian.T @ (jacobian @ flat), rtol=1e-9, atol=1e-12)
    slope = torch.cat([part.flatten() for part in point.slope(point.residuals(), weights)])
    torch.testing.assert_close(slope, -jacobian.T @ residuals(*at), rtol=1e-9, atol=1e-12)
    by_sent = jacobian[:, inputs.numel() : inputs.numel() + sent.numel()]
    torch.testing.assert_close(point.sent_normal(weights), by_sent.T @ by_sent, rtol=1e-9, atol=1e-12)
    spread = [torch.rand(z.shape, generator=generator, dtype=z.dtype) * (z > 0) for z in point.before]
    width = torch.cat([torch.ones_like(flat[: inputs.numel() + sent.numel()]), *(part.flatten() for part in spread)])
    prior = torch.cat(
        [torch.zeros_like(flat[: inputs.numel() + sent.numel()]), *(torch.ones_like(z).flatten() for z in point.before)]
    )
    solved = solve(point, step, weights, spread, lambda: False)
    curved = jacobian * width
    asked = torch.linalg.solve(curved.T @ curved + prior.diag(), flat)
    left = torch.cat([part.flatten() for part in solved]) - asked
    assert (curved @ left).norm() < 1e-2 * (curved @ asked).norm()


@pytest.mark.parametrize(("start", "told", "count"), [(1e-3, 1e-3, 6), (1e-2, 1e-2, 6), (1e-1, torch.inf, 3)])
def test_the_error_reaches_the_cramer_rao_bound(start, told, count):
    """From starts whose error is told, and from blunt ones of which nothing is known."""
    reached, least = [], []
    std = 1e-5
    for seed in range(count):
        seen, inputs, labels = observe(seed, std)
        found = polished(seen, moved(inputs, start, seed), told)
        assert found.moved
        reached.append((found.inputs - inputs).square().mean(dim=1))
        least.append(std**2 * bound(seen.model, inputs, labels).diagonal().view(BATCH, -1).mean(dim=1))
    decibels = 10 * (torch.cat(reached) / torch.cat(least)).log10()
    assert decibels.mean() < 1
    assert decibels.mean() > -1  # nothing unbiased is better


def test_predicted_errors_are_the_actual_ones():
    scores = []
    for seed in range(6):
        seen, inputs, _ = observe(seed, 1e-5)
        found = polished(seen, moved(inputs, 1e-3, seed), 1e-3, torch.ones(BATCH, dtype=torch.bool))
        scores.append(((found.inputs - inputs).square().mean(dim=1).sqrt() / found.error)[found.error < 1e-3])
    scores = torch.cat(scores)
    assert len(scores) > 20
    assert 0.8 < scores.square().mean().sqrt() < 1.25


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_changes_without_noise(dtype):
    seen, inputs, _ = observe(0, 0.0, dtype=dtype)
    start = moved(inputs, 1e-3)
    found = polished(seen, start, 1e-3)
    assert found.inputs is start
    assert not found.moved


def scaled_bias(seen):
    tensors = {name: t * 0.9 if name.endswith("bias") else t for name, t in seen.update.tensors.items()}
    return replace(seen, update=replace(seen.update, tensors=tensors))


def other_network(seen):
    model = MLP(width=WIDTH, depth=DEPTH).build(IMAGES.image_shape, IMAGES.num_classes).double()
    first = dict(seen.model.named_children())["1"]
    dict(model.named_children())["1"].load_state_dict(first.state_dict())
    return replace(seen, model=model)


@pytest.mark.parametrize("fault", [scaled_bias, other_network])
def test_a_gradient_that_no_such_batch_can_have_made_changes_nothing(fault):
    seen, inputs, _ = observe(0, 1e-6)
    start = moved(inputs, 1e-4)
    found = polished(fault(seen), start, 1e-4)
    assert found.inputs is start


def test_a_wrong_image_is_caught_by_the_misfit():
    seen, inputs, _ = observe(0, 1e-6)
    start = inputs.clone()
    start[0] = observe(1, 1e-6)[1][0]
    found = polished(seen, start, 1e-4)
    assert not found.moved


def test_wrong_patterns_are_put_right():
    """Errors move pre-activations across zero, a few of each batch."""
    flipped = 0
    for seed in range(6):
        seen, inputs, _ = observe(seed, 1e-5)
        start = moved(inputs, 1e-2, seed)
        layers, sent = read_layers(seen), torch.zeros(BATCH, 10, dtype=torch.float64)
        pairs = zip(Point(layers, inputs, sent).patterns, Point(layers, start, sent).patterns, strict=True)
        flipped += sum(int((a != b).sum()) for a, b in pairs)
        found = polished(seen, start, 1e-2)
        assert found.moved
        assert (found.inputs - inputs).square().mean().sqrt() < 1e-3
    assert flipped > 6


def test_a_certified_image_keeps_its_certificate_or_does_not_move():
    seen, inputs, _ = observe(0, 1e-5)
    start = moved(inputs, 1e-4)
    sharp = polished(seen, start, 1e-4, torch.ones(BATCH, dtype=torch.bool))
    pixels = (sharp.inputs - inputs).abs().amax(dim=1) * float(seen.std.max())
    went = (sharp.inputs != start).any(dim=1)
    assert sharp.certified.all()
    assert went.any()
    assert (pixels[went] < 1 / 510).all()
    seen, inputs, _ = observe(0, 1e-4)
    blurred = polished(seen, moved(inputs, 1e-2), 1e-2, torch.ones(BATCH, dtype=torch.bool))
    assert blurred.moved
    assert torch.equal(blurred.inputs, moved(inputs, 1e-2))
    assert not polished(seen, moved(inputs, 1e-2), 1e-2).certified.any()


def test_an_expired_deadline_changes_nothing():
    seen, inputs, _ = observe(0, 1e-5)
    start = moved(inputs, 1e-3)
    assert polished(seen, start, 1e-3, deadline=0.0).inputs is start


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Dropout(), nn.Linear(30, 10)),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.ReLU(), nn.Linear(30, 10)),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 30, bias=False)),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.Sigmoid(), nn.Linear(30, 10)),
    ],
)
def test_other_networks_are_left_alone(model):
    seen, _, _ = observe(0, 1e-5)
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    assert read_layers(replace(seen, model=model, update=replace(seen.update, tensors=tensors))) is None
