"""What is sent of an update: pruning, quantisation, noise, clipping, and their composition in canonical order."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from gibench.buffers import mean_gradient
from gibench.chain import canonical_chain, guarantee, run
from gibench.defense import Batch, DefenseContext
from gibench.errors import UsageError
from gibench.observation import Update
from gibench.registry import create
from gibench.spec import format_chain, parse_chain


def context(seed=0):
    return DefenseContext(torch.Generator().manual_seed(seed), 4, 100)


def update(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"0.weight": (30, 12), "0.bias": (30,), "1.weight": (5, 30)}
    return Update({name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()})


def released(spec, sent=None, seed=0):
    return create("defense", spec).release(sent or update(), context(seed)).tensors


def flat(tensors):
    return torch.cat([value.flatten() for value in tensors.values()])


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1), st.sampled_from(["largest", "random"]), st.sampled_from(["tensor", "global"]))
def test_exactly_the_wanted_number_of_entries_is_kept_as_it_was(sparsity, choice, scope):
    plain = update().tensors
    found = released(f"pruning:sparsity={sparsity},choice={choice},scope={scope}")
    groups = [(plain[name], found[name]) for name in plain] if scope == "tensor" else [(flat(plain), flat(found))]
    for before, after in groups:
        assert int(after.count_nonzero()) == round((1 - sparsity) * before.numel())
        assert torch.equal(after[after != 0], before[after != 0])


@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_the_largest_entries_are_kept(scope):
    plain, found = update().tensors, released(f"pruning:sparsity=0.7,scope={scope}")
    groups = [(plain[name], found[name]) for name in plain] if scope == "tensor" else [(flat(plain), flat(found))]
    for before, after in groups:
        assert before[after != 0].abs().min() >= before[after == 0].abs().max()


def test_equal_entries_are_kept_in_the_wanted_number_too():
    found = released("pruning:sparsity=0.75", Update({"weight": torch.ones(8, 5)}))
    assert int(found["weight"].count_nonzero()) == 10


def test_a_random_mask_is_the_generators_and_even():
    one, same, other = (released("pruning:sparsity=0.5,choice=random", seed=seed)["0.weight"] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    kept = sum(released("pruning:sparsity=0.5,choice=random", seed=seed)["0.bias"] != 0 for seed in range(200))
    assert (kept.double() - 100).abs().max() < 5 * 50**0.5  # five standard deviations


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_quantised_entries_are_the_nearest_levels(bits):
    plain, found = update().tensors, released(f"quantize:bits={bits}")
    for name, before in plain.items():
        interval = before.abs().max() / (2 ** (bits - 1) - 1)
        levels = found[name] / interval
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-9)
        assert (found[name] - before).abs().max() <= interval / 2 * (1 + 1e-9)
        assert len(found[name].unique()) <= 2**bits - 1


def test_one_bit_sends_signs_and_the_mean_magnitude():
    sent = Update({"weight": torch.tensor([3.0, -1.0, 0.0, 2.0]), "bias": torch.zeros(2)})
    found = released("quantize:bits=1", sent)
    assert found["weight"].tolist() == [2, -2, 0, 2]
    assert found["bias"].tolist() == [0, 0]


@pytest.mark.parametrize("bits", [1, 8])
def test_an_update_of_zeros_stays_one(bits):
    assert released(f"quantize:bits={bits}", Update({"weight": torch.zeros(3)}))["weight"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("distribution", "name", "scale"), [("gaussian", "norm", 1), ("laplacian", "laplace", 2**-0.5)]
)
def test_noise_has_the_distribution_and_deviation_asked_for(distribution, name, scale):
    sent = Update({"a": torch.ones(150, 100, dtype=torch.float64), "b": torch.zeros(50, 100, dtype=torch.float64)})
    found = released(f"noise:std=0.03,distribution={distribution}", sent)
    noise = torch.cat([(found["a"] - 1).flatten(), found["b"].flatten()]) / 0.03
    assert noise.std() == pytest.approx(1, abs=0.03)
    assert kstest(noise.numpy(), name, args=(0, scale)).pvalue > 0.01
    halves = torch.stack([noise[:10_000], noise[10_000:]])
    assert abs(torch.corrcoef(halves)[0, 1]) < 0.05  # five standard deviations


@pytest.mark.parametrize("distribution", ["gaussian", "laplacian"])
def test_noise_is_that_of_the_generator(distribution):
    one, same, other = (flat(released(f"noise:distribution={distribution}", seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("norm", [0.1, 1.0, 1000.0])
def test_the_whole_update_is_scaled_down_to_the_norm(norm):
    plain, found = flat(update().tensors), flat(released(f"clip:max_norm={norm}"))
    assert found.norm() == pytest.approx(min(norm, float(plain.norm())), rel=1e-12)
    torch.testing.assert_close(found / found.norm(), plain / plain.norm())


def test_an_update_of_zeros_is_not_scaled():
    assert released("clip", Update({"weight": torch.zeros(3)}))["weight"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("spec", ["pruning", "pruning:scope=global", "quantize", "quantize:bits=1", "noise", "clip"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kind_names_shapes_and_dtype_stay_and_the_update_is_not_touched(spec, dtype):
    plain = Update(update(dtype=dtype).tensors, "weight_delta")
    before = {name: value.clone() for name, value in plain.tensors.items()}
    found = create("defense", spec).release(plain, context())
    assert found.kind == "weight_delta"
    assert list(found.tensors) == list(before)
    for name, value in before.items():
        assert (found.tensors[name].shape, found.tensors[name].dtype) == (value.shape, dtype)
        assert torch.equal(plain.tensors[name], value)


@pytest.mark.parametrize("spec", ["pruning", "quantize", "noise:std=100", "clip", "fedavg"])
def test_none_of_them_promises_privacy(spec):
    promised = create("defense", spec).guarantee(context())
    assert (promised.epsilon, promised.delta, promised.accountant, promised.sampling) == (None, None, None, None)


def test_costs_are_stated():
    defenses = [create("defense", spec) for spec in ("pruning:sparsity=0.75", "quantize:bits=4", "noise:std=0.5")]
    assert guarantee(defenses, context()).costs == {"kept_share": 0.25, "bits_an_entry": 4, "noise_std": 0.5}


@pytest.mark.parametrize(
    "setting",
    [
        *("pruning:sparsity=1.1", "pruning:sparsity=-0.1", "pruning:scope=layer", "pruning:choice=smallest"),
        *("quantize:bits=0", "quantize:bits=17", "noise:std=-1", "noise:std=0", "noise:distribution=uniform"),
        *("clip:max_norm=0", "clip:max_norm=-1"),
    ],
)
def test_settings_out_of_range_are_refused(setting):
    name, _, rest = setting.partition(":")
    with pytest.raises(UsageError, match=f"defense '{name}': {rest.partition('=')[0]}=.* is refused: "):
        create("defense", setting)


@pytest.mark.parametrize(
    ("written", "acts"),
    [
        ("pruning+fedavg+dp", "dp+fedavg+pruning"),
        ("quantize+pruning+dp+fedavg", "dp+fedavg+quantize+pruning"),
        ("clip+noise", "clip+noise"),
        ("noise+clip+fedavg", "fedavg+noise+clip"),
    ],
)
def test_composition_is_canonical(written, acts):
    assert format_chain(canonical_chain(parse_chain(written))) == acts


def test_a_chain_of_all_hooks_is_its_parts_one_after_the_other():
    model = create("model", "mlp:width=9,depth=1").build((1, 3, 3), 4).double()
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    inputs = torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(1)).double()
    batch = Batch(inputs, torch.tensor([0, 1, 2, 3]))
    dp, fedavg, pruning, clip = (
        create("defense", spec)
        for spec in ("dp:noise_multiplier=0.1", "fedavg:epochs=2,lr=0.1", "pruning:sparsity=0.5", "clip:max_norm=0.01")
    )
    found, _ = run([dp, fedavg, pruning, clip], mean_gradient(model), parameters, [batch], context())
    same = context()  # the same noise again
    expected, _ = fedavg.update(
        lambda at, part: dp.step(mean_gradient(model), at, part, same), parameters, [batch], same
    )
    expected = clip.release(pruning.release(expected, same), same)
    assert flat(found.tensors).norm() == pytest.approx(0.01)
    assert torch.equal(flat(found.tensors), flat(expected.tensors))
