"""Conjugate gradients against solutions that are known, and how many products they take."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gibench.attacks.exact.conjugate import conjugate_gradients


def positive(generator, count, size, spread):
    """Positive definite matrices `[K, B, B]` whose eigenvalues lie between 1 and `spread`, of each its own."""
    turned = torch.linalg.qr(torch.randn(count, size, size, generator=generator, dtype=torch.float64)).Q
    values = torch.stack([torch.linspace(1, float(each), size, dtype=torch.float64) for each in spread])
    return turned * values[:, None] @ turned.mT


def products(matrices, seen):
    def of(vectors):
        seen.append(vectors.shape[1])
        return torch.einsum("kab,bk->ak", matrices, vectors)

    return of


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 9), scalar=st.booleans())
def test_every_column_is_solved_whether_others_are_left_out_or_not(seed, count, scalar):
    generator = torch.Generator().manual_seed(seed)
    spread = 1 + 200 * torch.rand(count, generator=generator)
    matrices = positive(generator, count, 30, spread)
    right = torch.randn(30, count, generator=generator, dtype=torch.float64)
    end = 1e-9 if scalar else torch.full((count,), 1e-9, dtype=torch.float64)
    found = [
        conjugate_gradients(products(matrices, []), right, 200, end, narrow=narrow)
        for narrow in (None, lambda index: products(matrices[index], []))
    ]
    for each in found:
        torch.testing.assert_close(torch.einsum("kab,bk->ak", matrices, each), right, rtol=0, atol=1e-8)


def test_columns_that_are_done_take_no_more_products():
    generator = torch.Generator().manual_seed(0)
    matrices = positive(generator, 8, 60, [1.0] * 7 + [1e4])
    right = torch.randn(60, 8, generator=generator, dtype=torch.float64)
    all_of_them, fewer = [], []
    whole = conjugate_gradients(products(matrices, all_of_them), right, 60, 1e-6)
    found = conjugate_gradients(
        products(matrices, fewer), right, 60, 1e-6, narrow=lambda index: products(matrices[index], fewer)
    )
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-7)
    assert len(fewer) == len(all_of_them) > 30
    assert set(all_of_them) == {8}
    assert fewer[:9] == [8] * 9
    assert set(fewer[9:]) == {1}
