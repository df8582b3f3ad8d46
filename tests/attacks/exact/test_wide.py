"""Layers with many more inputs than neurons: the range is the true one, and no second copy of what is large is made."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from gibench.attacks.cocktailparty import CocktailParty
from gibench.attacks.exact.low_rank import factorize, leading
from gibench.attacks.exact.neurons import distinct_neurons
from gibench.attacks.layer_pair import LayerPair
from gibench.attacks.spearpp import SpearPP


class Allocations(TorchDispatchMode):
    """Keeps the bytes of the largest tensor that an operation made anew."""

    def __init__(self):
        super().__init__()
        self.largest, self.by = 0, ""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        given = {each.untyped_storage().data_ptr() for each in _tensors([arguments, options])}
        for each in _tensors([made]):
            storage = each.untyped_storage()
            if storage.data_ptr() not in given and storage.nbytes() > self.largest:
                self.largest, self.by = storage.nbytes(), str(function)
        return made


def _tensors(values):
    return [leaf for leaf in torch.utils._pytree.tree_leaves(values) if isinstance(leaf, torch.Tensor)]


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(60, 120), st.integers(10, 40), st.booleans(), st.integers(0, 1000))
def test_the_range_of_a_wide_gradient_is_that_of_a_full_decomposition(plant, size, neurons, wider, uneven, seed):
    planted = plant(size, neurons, wider * neurons, seed)
    lengths = torch.logspace(0, -2 * uneven, wider * neurons, dtype=torch.float64)  # as of dark and bright pixels
    weight = (planted.weight_gradient * lengths).float()
    factors = factorize(weight, planted.bias_gradient.float(), torch.Generator().manual_seed(seed))
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    assert factors.rank == size
    torch.testing.assert_close(factors.singular_values, values[:size], rtol=1e-9, atol=0)
    for found, true in ((factors.basis, left[:, :size]), (factors.inputs.T, right[:size].T)):
        basis = torch.linalg.qr(found).Q
        assert (true - basis @ (basis.T @ true)).norm(dim=0).max() < 1e-9


@pytest.mark.parametrize("noise", [0.0, 1e-3])
@pytest.mark.parametrize("count", [1, 20, 30])
@pytest.mark.parametrize("shape", [(60, 500), (300, 80)])
def test_the_leading_values_are_those_of_a_full_decomposition(plant, noise, count, shape):
    matrix = plant(20, *shape, sigma=noise).weight_gradient.float()
    left, values, right = leading(matrix, count, torch.Generator().manual_seed(0))
    true = torch.linalg.svdvals(matrix.double())[:count]
    assert (values <= true * (1 + 1e-9)).all()
    torch.testing.assert_close(values[:20], true[:20], rtol=1e-9, atol=0)
    torch.testing.assert_close(left.T @ left, torch.eye(count).double(), rtol=0, atol=1e-10)
    torch.testing.assert_close(right @ right.T, torch.eye(count).double(), rtol=0, atol=1e-10)
    torch.testing.assert_close(left.T @ matrix.double() @ right.T, values.diag(), rtol=0, atol=1e-8 * float(true[0]))


def test_components_are_sought_without_a_copy_in_double_precision(see, context, monkeypatch):
    monkeypatch.setattr("gibench.attacks.exact.chunks._CPU", 2**20)
    seen = see(8, width=200, depth=1, knows="nothing")
    with Allocations() as made:
        found = CocktailParty(max_iterations=2).reconstruct(seen.observation, context())
    assert found.diagnostics["components"] == 8
    assert made.largest <= 4 * 200 * 3072, made.by


@pytest.mark.parametrize("attack", [LayerPair(), SpearPP(), SpearPP(without="next-layer")])
def test_no_second_copy_of_the_gradient_or_the_weights_is_made(see, context, monkeypatch, attack):
    monkeypatch.setattr("gibench.attacks.exact.chunks._CPU", 2**20)
    monkeypatch.setattr("gibench.attacks.exact.neurons._PIECE", 2**15)
    seen = see(20, width=600, depth=3)  # every neuron fires for some image: those that do not would be left out
    copy = 4 * 600 * 3072
    with Allocations() as made:
        found = attack.reconstruct(seen.observation, context())
    assert int(found.certified.sum()) == 20
    assert made.largest < copy / 2, made.by


@pytest.mark.parametrize("copies", [0, 1, 300])
def test_neurons_are_compared_without_a_copy_of_their_weights(copies, monkeypatch):
    monkeypatch.setattr("gibench.attacks.exact.neurons._PIECE", 2**16)
    monkeypatch.setattr("gibench.attacks.exact.chunks._CPU", 2**20)
    weight = torch.randn(600, 3000, generator=torch.Generator().manual_seed(0))
    weight[300 : 300 + copies] = -2 * weight[:copies]
    bias = torch.zeros(600)
    with Allocations() as made:
        numbers = distinct_neurons(weight, bias)
    assert int(numbers.max()) == 599 - copies
    assert torch.equal(numbers[300 : 300 + copies], numbers[:copies])
    assert made.largest < weight.nbytes / 2, made.by
