"""Levenberg-Marquardt against problems whose solutions are known."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gibench.attacks.trunk.least_squares import Derivative, least_squares


class Planted:
    """`W relu(V x) = y` for columns x, of so many that it tells x; the problems at `index`."""

    def __init__(self, first, second, right, index=None):
        self.parts = first, second, right
        self.index = torch.arange(right.shape[1]) if index is None else index

    def at(self, points):
        first, second, right = self.parts
        return lambda points: second @ torch.nn.functional.leaky_relu(first @ points, 0.3) - right[:, self.index]

    def select(self, index):
        return Planted(*self.parts, self.index[index])

    def within(self, points):
        return points


def never():
    return False


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), unknowns=st.integers(1, 6), problems=st.integers(1, 5))
def test_each_problem_ends_at_its_own_solution(seed, unknowns, problems):
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    first, second, true = drawn(30, unknowns), drawn(60, 30), drawn(unknowns, problems)
    system = Planted(first, second, second @ torch.nn.functional.leaky_relu(first @ true, 0.3))
    start = true + 0.01 * drawn(unknowns, problems)
    found = least_squares(system, start, 40, 20, 1e-20, never)
    torch.testing.assert_close(found, true, rtol=0, atol=1e-6)
    assert torch.equal(least_squares(system, start, 40, 20, 1e-20, lambda: True), start)


def test_products_are_those_of_the_derivative():
    generator = torch.Generator().manual_seed(0)
    at = torch.randn(5, 1, generator=generator, dtype=torch.float64)
    matrix = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    derivative = Derivative(lambda x: (matrix @ x).sin(), at)
    dense = (matrix @ at).cos() * matrix
    torch.testing.assert_close(derivative.push(torch.eye(5, dtype=at.dtype)[:, :1]), dense[:, :1])
    torch.testing.assert_close(derivative.pull(torch.ones(7, 1, dtype=at.dtype)), dense.T.sum(1, keepdim=True))
    torch.testing.assert_close(derivative.normal(at), dense.T @ dense @ at)
