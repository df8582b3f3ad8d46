"""Products with a large matrix, a piece at a time, against the same with a copy of all of it."""

import pytest
import torch

from gibench.attacks.exact import products


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(7, 90), (90, 7), (20, 20), (1, 30), (30, 1)])
@pytest.mark.parametrize("at_once", [1, 4, 1000])
def test_pieces_change_nothing(monkeypatch, dtype, shape, at_once):
    monkeypatch.setattr("gibench.attacks.exact.chunks._CPU", products._SMALLER * 8 * min(shape) * at_once)
    matrix = normal(*shape).to(dtype)
    whole, kept = matrix.double(), matrix.clone()
    left, right = normal(shape[0], 3, seed=1), normal(3, shape[1], seed=2)
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(products.times(matrix, right.T), whole @ right.T, **close)
    torch.testing.assert_close(products.times(matrix.T, left), whole.T @ left, **close)
    torch.testing.assert_close(products.energy(matrix), whole.square().sum(), **close)
    outside = (whole - left @ right).square().sum()
    torch.testing.assert_close(products.energy_outside(matrix, left, right), outside, **close)
    torch.testing.assert_close(products.row_norms(matrix), whole.norm(dim=1), **close)
    for found, dim in zip(products.energies(matrix), (1, 0), strict=True):
        torch.testing.assert_close(found, whole.square().sum(dim=dim), **close)
    range_ = torch.linalg.qr(left).Q
    coordinates, left_out = products.onto(range_, matrix)
    torch.testing.assert_close(coordinates, range_.T @ whole, **close)
    torch.testing.assert_close(left_out, (whole - range_ @ range_.T @ whole).square().sum(), **close)
    assert torch.equal(matrix, kept)


@pytest.mark.parametrize("shape", [(10, 4000), (4000, 10)])
def test_no_piece_is_larger_than_the_memory_allows(monkeypatch, shape):
    monkeypatch.setattr("gibench.attacks.exact.chunks._CPU", products._SMALLER * 8 * 10 * 50)
    sizes = [piece.numel() for _, piece in products._pieces(normal(*shape).float(), torch.float64)]
    assert max(sizes) == 10 * 50
    assert sum(sizes) == 10 * 4000
