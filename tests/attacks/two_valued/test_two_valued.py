"""The two-valued search for networks of one hidden layer, against what autograd and the truth say."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gibench.attacks.exact.linear_layer import features
from gibench.attacks.exact.sphere import random_starts
from gibench.attacks.spearpp import SpearPP
from gibench.attacks.spearpp.search import minimize
from gibench.attacks.two_valued.search import last_signals, minimize_two_valued
from gibench.attacks.two_valued.signals import distinct, fit_signals, round_patterns, two_valued
from gibench.observation import Update


@pytest.mark.parametrize("seed", range(3))
def test_every_column_is_a_pattern_times_a_signal(shallow, seed):
    case = shallow(seed=seed)
    t = torch.linalg.pinv(case.backward.coefficients) @ case.residuals
    torch.testing.assert_close(case.backward.coefficients @ t, case.residuals, rtol=0, atol=1e-12)
    signals = case.backward.basis @ t
    torch.testing.assert_close(case.active * signals, case.columns, rtol=0, atol=1e-12)
    assert torch.equal(case.backward.classes(t), case.labels)
    assert torch.equal(case.backward.classes(-t), case.labels)


def test_the_signals_are_whitened_and_those_of_a_class_are_nearly_those_of_its_images(shallow):
    case = shallow(20, 100)
    m = len(case.columns)
    torch.testing.assert_close(case.backward.basis.T @ case.backward.basis / m, torch.eye(9, dtype=torch.float64))
    torch.testing.assert_close(case.backward.signals.square().mean(dim=0), torch.ones(10, dtype=torch.float64))
    own = case.backward.weight.T @ case.residuals
    typical = case.backward.signals[:, case.labels]
    cosines = (own * typical).sum(dim=0) / own.norm(dim=0) / typical.norm(dim=0)
    assert cosines.min() > 0.98
    others = case.backward.signals.roll(1, dims=1)[:, case.labels]
    assert (cosines > (own * others).sum(dim=0) / own.norm(dim=0) / others.norm(dim=0) + 0.5).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("labels", ["iid", "same"])
def test_the_last_bias_gradient_counts_the_classes_to_within_one(shallow, seed, labels):
    case = shallow(20, 100, seed, labels=labels)
    assert (case.backward.counts - case.labels.bincount(minlength=10)).abs().max() < 1


def network(*layers):
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 60), nn.ReLU(), *layers)


class Twice(nn.Module):
    """Its hidden layer is read twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3072, 60), nn.Linear(60, 10)

    def forward(self, images):
        hidden = torch.relu(self.first(images.flatten(1)))
        return self.second(hidden) + hidden[:, :10]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (network(nn.Linear(60, 60), nn.ReLU(), nn.Linear(60, 10)), "a network of one hidden layer"),
        (network(nn.Dropout(), nn.Linear(60, 10)), "a network of one hidden layer"),
        (network(nn.Linear(60, 10), nn.Softplus()), "a network of one hidden layer"),
        (network(nn.Linear(60, 10, bias=False)), "a network of one hidden layer"),
        (Twice(), "a network of one hidden layer"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3072, 30), nn.ReLU(), nn.Linear(30, 10)), "use a wider layer"),
    ],
)
def test_other_networks_are_refused_and_attacked_by_l1_unasked(see, context, model, reason):
    seen = see(3, model=model)
    run = SpearPP(objective="two-valued")(seen.observation, context())
    assert run.status == "skipped"
    assert reason in run.reason
    assert "objective=l1" in run.reason
    auto, l1 = (SpearPP(objective=name, rounds=1)(seen.observation, context()) for name in ("auto", "l1"))
    assert torch.equal(auto.reconstruction.images, l1.reconstruction.images)


def test_the_published_recipe_refuses_it(see, context):
    run = SpearPP(preset="paper", objective="two-valued")(see(4, width=60, depth=1).observation, context())
    assert run.status == "skipped"
    assert "leave out objective=two-valued" in run.reason


@pytest.mark.slow
def test_sparsity_goes_on_where_two_values_miss_images(see, context):
    seen = see(20, 15, width=100, depth=1, labels="same")
    alone, auto = (SpearPP(objective=name, rounds=2)(seen.observation, context()) for name in ("two-valued", "auto"))
    found = [run.reconstruction.diagnostics["directions_found"] for run in (alone, auto)]
    assert found[0] < 20
    assert found[1] > found[0]
    assert not auto.reconstruction.certified.any() or found[1] == 20


def test_the_search_ends_nearer_to_two_values_on_the_sphere(shallow, distance):
    case = shallow(20, 200)
    classes = case.labels.repeat(2)
    signals = case.backward.signals[:, classes]
    starts = random_starts(20, 40, None, torch.Generator().manual_seed(0))
    ends = minimize_two_valued(case.factors.basis, signals, starts, 300, 1.0)
    torch.testing.assert_close(ends.norm(dim=0), torch.ones(40))
    wells = 2**0.5 * signals.float()

    def objective(points):
        columns = case.factors.basis.float() @ points
        return torch.minimum(columns.abs(), (columns - wells).abs()).mean(dim=0)

    assert (objective(ends) < torch.minimum(objective(starts), objective(-starts))).all()
    near = distance(ends.double(), case.truth().vectors) < 0.2
    assert near.double().mean() > 0.8
    sparse = minimize(case.factors.basis, starts, "l1", "radam", 300, 0.6).double()
    assert (distance(sparse, case.truth().vectors) < 0.2).double().mean() < near.double().mean()


@pytest.mark.parametrize("labels", ["iid", "same"])
def test_true_patterns_give_the_true_directions_and_signals(shallow, labels, distance):
    case = shallow(20, 200, labels=labels)
    fitted = fit_signals(case.factors, case.backward, case.active)
    assert distance(fitted.directions.vectors, case.truth().vectors).max() < 1e-5
    g = case.backward.coefficients @ fitted.t
    parallel = (g * case.residuals).sum(dim=0).abs() / g.norm(dim=0) / case.residuals.norm(dim=0)
    assert parallel.min() > 1 - 1e-9
    assert two_valued(case.factors, case.backward, fitted).all()


def test_no_other_signal_of_the_pattern_is_nearer_to_the_span_than_stated(shallow):
    case = shallow(20, 200)
    fitted = fit_signals(case.factors, case.backward, case.active)
    generator = torch.Generator().manual_seed(0)
    for k in range(20):
        t = fitted.t[:, k]
        other = torch.randn(len(t), 200, generator=generator, dtype=torch.float64)
        other = other - torch.outer(t, t @ other) / (t @ t)
        columns = case.active[:, k, None] * (case.backward.basis @ (other * t.norm() / other.norm(dim=0)))
        basis = torch.linalg.qr(case.factors.basis).Q
        distances = (columns - basis @ (basis.T @ columns)).square().mean(dim=0).sqrt()
        assert distances.min() >= fitted.others[k] * (1 - 1e-6)
        assert distances.min() < 3 * fitted.others[k]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 3), st.floats(0.0, 0.08), st.integers(0, 1000))
def test_patterns_with_wrong_neurons_are_rounded_to_the_true_ones(shallow, seed, share, flips):
    case = shallow(12, 150, seed)
    wrong = torch.rand(case.active.shape, generator=torch.Generator().manual_seed(flips)) < share
    rounded = round_patterns(case.factors, case.backward, case.active ^ wrong)
    passed = two_valued(case.factors, case.backward, rounded)
    assert passed.double().mean() >= 0.75
    found = distinct(rounded.select(passed.nonzero()[:, 0])).directions
    assert all((zeros[:, None] != case.active).all(dim=0).any() for zeros in found.zeros.T)


weights = st.floats(0.02, 1.5) | st.floats(-1.5, -0.02)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 3), st.dictionaries(st.integers(0, 11), weights, min_size=2, max_size=4))
def test_a_mixture_is_not_two_valued(shallow, seed, mixed):
    case = shallow(12, 150, seed, labels="same")
    scaled = case.truth().vectors[:, list(mixed)] @ torch.tensor(list(mixed.values()), dtype=torch.float64)
    assert not two_valued(case.factors, case.backward, case.signed((scaled / scaled.norm())[:, None])).any()


def test_sums_and_differences_of_one_class_are_not_two_valued(shallow):
    case = shallow(12, 150, labels="same")
    q = case.factors.basis.T @ case.columns
    triples = torch.cartesian_prod(*[torch.arange(12)] * 3)
    triples = triples[(triples[:, 0] != triples[:, 1]) & (triples[:, 1] != triples[:, 2])]
    sums = q[:, triples[:, 0]] - q[:, triples[:, 1]] + q[:, triples[:, 2]]
    sums = torch.cat([sums, q[:, triples[:, 0]] - q[:, triples[:, 1]]], dim=1)
    assert not two_valued(case.factors, case.backward, case.signed(sums / sums.norm(dim=0))).any()


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_the_last_images_are_found_in_the_subspace_that_the_others_leave(shallow, missing, distance):
    case = shallow(20, 200)
    truth, pre_activations = case.truth().vectors, features(case.factors, case.gradient.layer)
    generator = torch.Generator().manual_seed(0)
    last = last_signals(case.factors, case.backward, pre_activations, truth[:, missing:], generator)
    passed = last.select(two_valued(case.factors, case.backward, last).nonzero()[:, 0])
    assert distance(truth[:, :missing], passed.directions.vectors).max() < 1e-5


def attacked(seen, context, seed=0, **options):
    result = SpearPP(**options)(seen.observation, context(seed)).reconstruction
    exact = seen.exact(result.images)
    return int(exact.sum()), int(result.certified.sum()), int((result.certified & ~exact).sum())


@pytest.mark.parametrize(("batch_size", "width"), [(8, 60), (20, 100)])
@pytest.mark.parametrize("seed", range(3))
def test_every_image_of_a_batch_comes_back_certified(see, context, batch_size, width, seed):
    seen = see(batch_size, seed, width=width, depth=1)
    assert attacked(seen, context, seed) == (batch_size, batch_size, 0)


@pytest.mark.parametrize("seed", [2, 3])
def test_so_does_a_batch_of_one_label(see, context, seed):
    assert attacked(see(20, seed, width=200, depth=1, labels="same"), context, seed) == (20, 20, 0)


def test_the_batch_size_is_not_needed(see, context):
    assert attacked(see(10, width=80, depth=1, knows="nothing"), context) == (10, 10, 0)


def test_the_same_seed_gives_the_same_bits(see, context):
    one, other = (SpearPP()(see(8, width=60, depth=1).observation, context()).reconstruction for _ in range(2))
    assert torch.equal(one.images, other.images)


def test_dead_neurons_are_left_out(see, context):
    seen = see(10, width=100, depth=1)
    with torch.no_grad():
        seen.observation.model[1].bias[::7] = -100.0
    assert attacked(see(10, model=seen.observation.model), context) == (10, 10, 0)


@pytest.mark.parametrize("noise", [2e-6, *(pytest.param(noise, marks=pytest.mark.slow) for noise in (2e-5, 2e-4))])
def test_noise_gives_no_false_certificate(see, context, noise):
    for seed in range(2):
        exact, certified, false = attacked(see(20, seed, noise, width=200, depth=1), context, seed, rounds=4)
        assert false == 0
        assert noise > 2e-6 or (exact, certified) == (20, 20)


@pytest.mark.slow
def test_few_neurons_for_the_batch_give_no_false_certificate(see, context):
    assert attacked(see(20, width=45, depth=1), context, rounds=3)[2] == 0


@pytest.mark.parametrize("seed", range(2))
def test_a_bias_gradient_of_another_batch_certifies_nothing(see, context, seed):
    seen, other = see(10, seed, width=100, depth=1), see(10, seed + 100, width=100, depth=1)
    tensors = {**seen.observation.update.tensors, "1.bias": other.observation.update.tensors["1.bias"]}
    tampered = replace(seen, observation=replace(seen.observation, update=Update(tensors)))
    assert attacked(tampered, context, rounds=2)[1:] == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_sixty_four_images_come_back_certified(see, context, seed):
    exact, certified, false = attacked(see(64, seed, width=400, depth=1), context, seed)
    assert (exact, false) == (64, 0)
    assert certified >= 61
