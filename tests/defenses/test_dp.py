"""DP-SGD: exact clipping, the right noise, bounded sensitivity and memory."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.optimizers.perlayeroptimizer import DPPerLayerOptimizer
from scipy.stats import kstest
from torch import nn
from torch.nn import functional

from gibench.buffers import mean_gradient
from gibench.defense import Batch, DefenseContext
from gibench.device import PeakMemory
from gibench.registry import create

MODELS = ("mlp:width=30,depth=2", "linear", "lenet", "convnet:width=4")


def build(spec="mlp:width=30,depth=2", dtype=torch.float64):
    torch.manual_seed(0)
    return create("model", spec).build((3, 8, 8), 5).to(dtype)


def batch_of(size, dtype=torch.float64, seed=0):
    """Examples whose gradients differ much in norm."""
    generator = torch.Generator().manual_seed(seed)
    loudness = torch.logspace(-1, 1, size).view(-1, 1, 1, 1)
    inputs = torch.randn(size, 3, 8, 8, generator=generator) * loudness
    return Batch(inputs.to(dtype), torch.randint(5, (size,), generator=generator))


def parameters_of(model):
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def released(model, batch, memory_mb=1024.0, seed=0, size=None, **settings):
    """What dp makes of a batch, of the public size or else of as many as it has."""
    spec = "dp:" + ",".join(f"{key}={value}" for key, value in settings.items())
    context = DefenseContext(torch.Generator().manual_seed(seed), size or len(batch.labels), 1000, memory_mb)
    return create("defense", spec).step(mean_gradient(model), parameters_of(model), batch, context)


def flat(gradient):
    return torch.cat([value.flatten() for value in gradient.values()])


def each_gradient(model, batch):
    """Every example's gradient by autograd, one after the other, `[B, entries]`."""
    rows = []
    for image, label in zip(batch.inputs, batch.labels, strict=True):
        loss = functional.cross_entropy(model(image[None]), label[None])
        rows.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))]))
    return torch.stack(rows)


def clipped_mean(rows, norm):
    return (rows * (norm / rows.norm(dim=1)).clamp(max=1)[:, None]).mean(0)


@pytest.mark.parametrize("spec", MODELS)
def test_every_examples_gradient_is_clipped_to_the_norm_and_no_further(spec):
    model, batch = build(spec), batch_of(8)
    norms = each_gradient(model, batch).norm(dim=1)
    bound = float(norms.median())
    for number, norm in enumerate(norms):
        alone = Batch(batch.inputs[number : number + 1], batch.labels[number : number + 1])
        found = flat(released(model, alone, noise_multiplier=0, max_grad_norm=bound)).norm()
        torch.testing.assert_close(found, norm.clamp(max=bound), rtol=1e-12, atol=0)
    assert norms.min() < bound < norms.max()


@pytest.mark.parametrize("spec", MODELS)
def test_without_noise_the_mean_of_the_clipped_gradients_is_released(spec):
    model, batch = build(spec), batch_of(8)
    rows = each_gradient(model, batch)
    bound = float(rows.norm(dim=1).median())
    found = flat(released(model, batch, noise_multiplier=0, max_grad_norm=bound))
    torch.testing.assert_close(found, clipped_mean(rows, bound), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spec", MODELS)
def test_the_clipped_mean_is_that_of_opacus(spec):
    model, batch = build(spec), batch_of(8)
    plain = released(model, batch, noise_multiplier=0, max_grad_norm=0.5)
    wrapped = GradSampleModule(model, loss_reduction="sum")
    functional.cross_entropy(wrapped(batch.inputs.requires_grad_()), batch.labels, reduction="sum").backward()
    rows = torch.cat([parameter.grad_sample.flatten(1) for parameter in wrapped.parameters()], dim=1)
    torch.testing.assert_close(flat(plain), clipped_mean(rows, 0.5), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spec", MODELS)
def test_the_released_gradient_is_that_of_opacus_per_layer_too(spec):
    model, batch = build(spec), batch_of(8)
    plain = flat(released(model, batch, noise_multiplier=0, max_grad_norm=0.5, clipping="per-layer"))
    wrapped = GradSampleModule(model, loss_reduction="mean")
    parts = list(wrapped.parameters())
    each = [0.5 / len(parts) ** 0.5] * len(parts)
    sgd = torch.optim.SGD(parts, lr=0.1)
    optimizer = DPPerLayerOptimizer(sgd, noise_multiplier=0.0, max_grad_norm=each, expected_batch_size=8)
    functional.cross_entropy(wrapped(batch.inputs.requires_grad_()), batch.labels).backward()
    optimizer.pre_step()
    theirs = torch.cat([part.grad.flatten() for part in parts])
    assert (plain - theirs).norm() < 1e-4 * theirs.norm()  # they divide by the norm plus 1e-6
    flat_clip = flat(released(build(spec), batch_of(8), noise_multiplier=0, max_grad_norm=0.5))
    assert (plain - flat_clip).norm() > 1e-3 * theirs.norm()


def test_the_released_gradient_is_that_of_opacus():
    model, batch = build(), batch_of(8)
    plain = flat(released(model, batch, noise_multiplier=0, max_grad_norm=0.5))
    wrapped = GradSampleModule(model, loss_reduction="mean")
    sgd = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    optimizer = DPOptimizer(sgd, noise_multiplier=0.0, max_grad_norm=0.5, expected_batch_size=8)
    functional.cross_entropy(wrapped(batch.inputs.requires_grad_()), batch.labels).backward()
    optimizer.pre_step()
    theirs = torch.cat([part.grad.flatten() for part in wrapped.parameters()])
    assert (plain - theirs).norm() < 1e-4 * theirs.norm()


def test_a_clip_norm_that_none_exceeds_leaves_the_mean_gradient():
    model, batch = build(), batch_of(6)
    plain = mean_gradient(model)(parameters_of(model), batch.inputs, batch.labels)
    found = released(model, batch, noise_multiplier=0, max_grad_norm=1e6)
    torch.testing.assert_close(found, plain, rtol=1e-10, atol=1e-13)


def test_examples_behind_frozen_statistics_are_clipped_each_by_itself():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).double()
    batch = batch_of(6)
    model.train()(batch.inputs)  # so that its running statistics are of something
    rows = each_gradient(model.eval(), batch)
    norms = rows.norm(dim=1, keepdim=True)
    bound = float(norms.median())
    found = released(model, batch, noise_multiplier=0, max_grad_norm=bound)
    torch.testing.assert_close(flat(found), (rows * (bound / norms).clamp(max=1)).mean(0), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("spec", MODELS)
@pytest.mark.parametrize("noise", [0, 1])
def test_chunks_give_what_the_whole_batch_gives(spec, noise):
    model, batch = build(spec), batch_of(7)
    whole = released(model, batch, noise_multiplier=noise)
    one_by_one = released(model, batch, noise_multiplier=noise, memory_mb=1e-6)
    torch.testing.assert_close(one_by_one, whole, rtol=1e-10, atol=1e-13)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(0, 8),
    st.floats(1e-3, 1e3),
    st.integers(0, 1000),
    st.sampled_from(["flat", "per-layer"]),
    st.sampled_from([0, 1]),
)
def test_a_missing_example_moves_the_release_by_the_clip_norm_over_the_public_size(
    size, left_out, bound, seed, clipping, noise
):
    """With its noise: the same draws fall on both, at the same level."""
    model, batch = build("linear"), batch_of(size, seed=seed)
    kept = torch.arange(size) != left_out % size
    fewer = Batch(batch.inputs[kept], batch.labels[kept])
    how = {"noise_multiplier": noise, "max_grad_norm": bound, "clipping": clipping, "size": size}
    whole, rest = flat(released(model, batch, **how)), flat(released(model, fewer, **how))
    assert (whole - rest).norm() <= bound / size * (1 + 1e-9)


def test_a_batch_without_examples_is_noise_of_the_same_level():
    model, batch = build("mlp:width=100,depth=1"), batch_of(4)
    none = Batch(batch.inputs[:0], batch.labels[:0])
    noise = flat(released(model, none, size=4, noise_multiplier=1.5, max_grad_norm=2.0)) / (1.5 * 2.0 / 4)
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert flat(released(model, none, size=4, noise_multiplier=0)).abs().max() == 0


def test_a_local_batch_is_divided_by_its_own_public_size():
    model, batch = build("linear"), batch_of(3)
    whole = flat(released(model, batch, noise_multiplier=1, size=12))
    local = flat(released(model, replace(batch, size=4), noise_multiplier=1, size=12))
    torch.testing.assert_close(local, 3 * whole)


@pytest.mark.parametrize("clipping", ["flat", "per-layer"])
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), 1e300])
def test_an_example_whose_gradient_is_not_finite_moves_nothing_further(clipping, broken):
    model, batch = build("linear"), batch_of(4)
    batch.inputs[2] = broken
    how = {"noise_multiplier": 1, "clipping": clipping, "size": 4}
    kept = torch.tensor([0, 1, 3])
    found = flat(released(model, batch, **how))
    rest = flat(released(model, Batch(batch.inputs[kept], batch.labels[kept]), **how))
    assert found.isfinite().all()
    assert (found - rest).norm() <= 1 / 4 * (1 + 1e-9)


@pytest.mark.parametrize("clipping", ["flat", "per-layer"])
@pytest.mark.parametrize("loud", [1.0, 1e3, 1e6])
def test_the_loudest_example_moves_the_sum_by_the_clip_norm_and_replacing_it_by_twice_that(loud, clipping):
    """The worst pair: one image and its negative, with opposite gradients, beside images that are the same."""
    model, batch = build("linear"), batch_of(5)
    for parameter in model.parameters():
        parameter.data.zero_()  # so that no class is certain
    worst = torch.full((1, 3, 8, 8), loud, dtype=torch.float64)
    how = {"noise_multiplier": 0, "max_grad_norm": 0.25, "clipping": clipping, "size": 6}

    def total(*more):
        inputs = torch.cat([batch.inputs, *more])
        labels = torch.cat([batch.labels, torch.zeros(len(more), dtype=torch.int64)])
        return flat(released(model, Batch(inputs, labels), **how)) * 6

    assert (total(worst) - total()).norm() <= 0.25 * (1 + 1e-9)
    assert (total(worst) - total(-worst)).norm() <= 0.5 * (1 + 1e-9)
    if clipping == "flat":
        assert (total(worst) - total()).norm() == pytest.approx(0.25)
        assert (total(worst) - total(-worst)).norm() == pytest.approx(0.5, rel=0.01)


def test_the_noise_is_that_which_the_target_epsilon_needs():
    model, batch = build("mlp:width=100,depth=1"), batch_of(4)
    clean = flat(released(model, batch, noise_multiplier=0))
    noisy = flat(released(model, batch, target_epsilon=4.377))  # which noise multiplier 1 has at delta 1e-5
    assert ((noisy - clean) * 4).std() == pytest.approx(1, abs=0.02)


def test_a_clip_norm_of_each_layer_is_no_larger_together():
    rows = [
        flat(released(build(), batch_of(1, seed=seed), noise_multiplier=0, clipping="per-layer")) for seed in range(5)
    ]
    assert max(float(row.norm()) for row in rows) <= 1 + 1e-9


def test_an_example_without_a_gradient_adds_nothing():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 1))  # one class: the loss is always 0
    batch = Batch(batch_of(3, torch.float32).inputs, torch.zeros(3, dtype=torch.int64))
    assert flat(released(model, batch, noise_multiplier=0)).abs().max() == 0


@pytest.mark.parametrize(("multiplier", "bound", "size"), [(1.0, 1.0, 4), (0.3, 5.0, 7), (1e-4, 0.5, 1)])
def test_the_noise_on_the_mean_is_gaussian_of_multiplier_times_clip_norm_over_batch_size(multiplier, bound, size):
    model, batch = build("mlp:width=100,depth=1"), batch_of(size)
    clean = flat(released(model, batch, noise_multiplier=0, max_grad_norm=bound))
    noisy = flat(released(model, batch, noise_multiplier=multiplier, max_grad_norm=bound))
    noise = (noisy - clean) / (multiplier * bound / size)
    assert len(noise) == 19_805
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert kstest(noise.numpy(), "norm").pvalue > 0.01


def test_every_tensor_has_noise_of_its_own():
    model, batch = build("mlp:width=192,depth=3"), batch_of(3)
    clean, noisy = (released(model, batch, noise_multiplier=noise) for noise in (0, 1))
    square = [noisy[name] - clean[name] for name in clean if clean[name].shape == (192, 192)]
    assert len(square) == 3
    for one, other in ((0, 1), (0, 2), (1, 2)):
        correlation = torch.corrcoef(torch.stack([square[one].flatten(), square[other].flatten()]))[0, 1]
        assert abs(correlation) < 0.03  # five standard deviations


def test_the_noise_is_that_of_the_generator():
    model, batch = build(), batch_of(3)
    one, same, other = (flat(released(model, batch, noise_multiplier=1, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_gradient_keeps_its_dtype(dtype):
    found = released(build("linear", dtype), batch_of(4, dtype), noise_multiplier=1)
    assert {value.dtype for value in found.values()} == {dtype}


def test_the_sum_is_not_made_in_half_precision():
    model, batch = build("linear", torch.bfloat16), batch_of(64, torch.bfloat16)
    found = flat(released(model, batch, noise_multiplier=0, max_grad_norm=1.0))
    expected = clipped_mean(each_gradient(model, batch).float(), 1.0)
    assert (found.float() - expected).norm() < 0.004 * expected.norm()  # one rounding to 8 bits


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory can be measured on Linux alone")
def test_memory_stays_within_the_budget():
    model, batch = build("mlp:width=2000,depth=2", torch.float32), batch_of(32, torch.float32)
    own = sum(parameter.nbytes for parameter in model.parameters()) / 2**20
    assert 16 < own < 18  # so that 32 examples have more than 500 MB
    released(model, batch, memory_mb=60, noise_multiplier=1)  # loads what is loaded once
    grown = []
    for budget in (60, 10_000):
        with PeakMemory(torch.device("cpu")) as before:
            pass
        with PeakMemory(torch.device("cpu")) as memory:
            released(model, batch, memory_mb=budget, noise_multiplier=1)
        grown.append(memory.peak_mb - before.peak_mb - 2 * own)  # without the sum and its noise
    assert grown[0] < 100
    assert grown[1] > 300
