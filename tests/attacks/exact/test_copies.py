"""What is the same in many rows or columns of a gradient is rounded alike in them, and no image for that."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gibench.attacks.exact import low_rank
from gibench.attacks.exact.copies import Distinct
from gibench.attacks.exact.low_rank import factorize
from gibench.datasets.digits import Digits
from gibench.models.mlp import MLP


@pytest.fixture(scope="module")
def digits():
    return Digits().load()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(1, 150),
    st.integers(1, 40),
    st.integers(1, 9),
    st.integers(0, 1000),
    st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
)
def test_one_of_each_row_and_column_is_left(m, n, kinds, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (torch.randint(kinds, (size,), generator=generator) for size in (m, n))
    matrix = torch.randn(kinds, kinds, generator=generator)[rows][:, columns].to(dtype)
    matrix[matrix.abs() < 0.2] = 0.0
    matrix = torch.where((matrix == 0) & (torch.rand(m, n, generator=generator) < 0.5), -matrix, matrix)
    found, different = Distinct.of(matrix), matrix.unique(dim=1)
    assert found.shape == (len(matrix.unique(dim=0)), different.shape[1])
    if found.columns is None:
        assert different.shape[1] == n
    else:
        kept = found.columns[:, 0].nonzero()[:, 0]
        assert torch.equal(matrix[:, kept].unique(dim=1), different)
        earlier = [matrix[:, :column] == matrix[:, column, None] for column in kept]
        assert not any(bool(same.all(dim=0).any()) for same in earlier)


@pytest.mark.parametrize("shape", [(30, 200), (200, 30)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_copies_count_as_zero_in_products_and_nothing_is_stored_anew(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=generator).to(dtype)
    matrix[:, 5:11], matrix[7:9] = matrix[:, :1], matrix[:1]
    before, found = matrix.clone(), Distinct.of(matrix)
    assert found.matrix is matrix
    assert found.shape == (shape[0] - 2, shape[1] - 6)
    few = matrix.double().clone()
    few[:, 5:11], few[7:9] = 0, 0
    wide, high = (torch.randn(size, 3, generator=generator).double() for size in reversed(shape))
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(found.times(wide), few @ wide, **close)
    torch.testing.assert_close(found.transposed.times(high), few.T @ high, **close)
    for energy, dim in zip(found.energies(), (1, 0), strict=True):
        torch.testing.assert_close(energy, few.square().sum(dim=dim), **close)
    range_ = torch.linalg.qr(few @ wide).Q
    coordinates, outside = found.onto(range_)
    torch.testing.assert_close(coordinates, range_.T @ few, **close)
    torch.testing.assert_close(outside, (few - range_ @ coordinates).square().sum(), **close)
    assert torch.equal(matrix, before)


def batch(digits, count, seed, frame=False):
    """Digits, normalised, or the same larger and on a background, as in MNIST, and their labels."""
    chosen = torch.randperm(len(digits.private), generator=torch.Generator().manual_seed(seed))[:count]
    images = digits.private.images.float()
    if frame:
        images = F.pad((F.interpolate(images, 20, mode="bilinear") * 255).round() / 255, (4, 4, 4, 4))
    return ((images - images.mean()) / images.std())[chosen], digits.private.labels[chosen]


def gradient(network, images, labels):
    """Of the first linear layer, for the neurons that fired."""
    F.cross_entropy(network(images), labels).backward()
    layer = next(each for each in network.modules() if isinstance(each, torch.nn.Linear))
    fired = (layer.weight.grad != 0).any(dim=1)
    return layer.weight.grad[fired], layer.bias.grad[fired]


@pytest.mark.parametrize("count", [1, 2, 8, 20])
@pytest.mark.parametrize("width", [100, 1000])
def test_a_background_adds_no_rank(digits, count, width):
    for seed in range(2):
        images, labels = batch(digits, count, seed, frame=True)
        torch.manual_seed(seed)
        weight, bias = gradient(MLP(width=width, depth=1).build((1, 28, 28), 10), images, labels)
        factors = factorize(weight, bias, torch.Generator().manual_seed(0))
        assert factors.rank == count
        rows = factors.inputs / factors.singular_values[:, None] * len(weight) ** 0.5
        torch.testing.assert_close(rows @ rows.T, torch.eye(count).double(), rtol=0, atol=1e-10)
        assert (factors.basis @ factors.inputs - weight).norm() < 1e-6 * weight.norm()
        assert factors.bias_residual < 1e-5 * bias.square().mean().sqrt()


def test_no_rows_have_no_rank():
    assert factorize(torch.zeros(0, 5), torch.zeros(0), torch.Generator().manual_seed(0)) is None


def test_of_small_images_neither(digits):
    for seed in range(3):
        images, labels = batch(digits, 1, seed)
        torch.manual_seed(seed)
        weight, bias = gradient(MLP(width=100, depth=1).build((1, 8, 8), 10), images, labels)
        assert factorize(weight, bias, torch.Generator().manual_seed(0)).rank == 1


def test_an_image_hardly_above_the_rounding_of_the_background_counts(plant):
    planted = plant(8, 200, 2000)
    inputs, columns = planted.inputs.clone(), planted.columns.clone()
    inputs[:, 100:] = 1 + torch.arange(8)[:, None] / 10  # a background that covers most of each image
    columns[:, 7] *= 1e-7
    weight, bias = columns.float() @ inputs.float(), columns.float().sum(dim=1)
    assert factorize(weight, bias, torch.Generator().manual_seed(0)).rank == 8


@pytest.mark.parametrize("large", [40, 80])
def test_the_rounding_of_a_few_large_rows_does_not_widen_the_range(plant, monkeypatch, large):
    planted = plant(12, 400, 8000)
    lengths = torch.full((400, 1), 0.1)
    lengths[:large] = 1.0
    weight = (planted.columns * lengths).float() @ planted.inputs.float()
    grown, grow = [], low_rank._Sketch.grow
    monkeypatch.setattr(low_rank._Sketch, "grow", lambda sketch: (grow(sketch), grown.append(sketch.range.shape[1])))
    assert factorize(weight, weight[:, 0], torch.Generator().manual_seed(0)).rank == 12
    assert grown == [32]
