"""Completion of planted low-rank matrices."""

import pytest
import torch

from gibench.attacks.adaptive.matrix_completion import complete_matrix

RANK = 5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def planted(rows=60, columns=90, noise=0.0, seed=0):
    """A matrix of rank 5 with noise on each entry."""

    def normal(*shape):
        return torch.randn(*shape, generator=source, dtype=torch.float64)

    source = generator(seed)
    return normal(rows, RANK) @ normal(RANK, columns) + noise * normal(rows, columns)


def largest(matrix, share=0.5):
    """Which entries are the largest."""
    flat = matrix.abs().flatten()
    return matrix.abs() >= flat.kthvalue(int((1 - share) * len(flat))).values


def by_chance(matrix, share=0.5):
    return torch.rand(matrix.shape, generator=generator(1)) < share


@pytest.mark.parametrize("at_most", [None, RANK, RANK + 3])
@pytest.mark.parametrize("choice", [largest, by_chance])
def test_half_of_the_entries_give_the_others_and_the_rank(choice, at_most):
    matrix = planted()
    known = choice(matrix)
    completion = complete_matrix(matrix.masked_fill(~known, 7.0), known, generator(), at_most)
    assert completion.rank == RANK
    assert completion.held_out < 1e-8
    determined = (completion.rows > 1e-3)[:, None] & (completion.columns > 1e-3)
    assert determined.double().mean() > 0.9  # a row of small entries has few of the largest
    torch.testing.assert_close(completion.matrix[determined], matrix[determined], rtol=0, atol=1e-7)
    assert torch.equal(completion.matrix[known], matrix[known])


def test_noise_does_not_add_to_the_rank():
    matrix = planted(noise=0.01)
    completion = complete_matrix(matrix, by_chance(matrix), generator())
    assert completion.rank == RANK
    assert (completion.matrix - planted()).square().mean().sqrt() < 0.02


def test_what_lines_say_of_their_factors():
    matrix = planted()
    known = by_chance(matrix, 0.7)
    known[:, 3] = False
    known[: RANK - 1, 3] = True  # one entry too few
    known[2] = True
    completion = complete_matrix(matrix, known, generator())
    assert completion.rank == RANK
    assert completion.columns[3] < 1e-10
    assert completion.rows[2] == pytest.approx(1)
    others = torch.arange(90) != 3
    assert bool((completion.columns[others] > 0.05).all())
    torch.testing.assert_close(completion.matrix[:, others], matrix[:, others], rtol=0, atol=1e-7)


def test_the_noise_of_a_line_grows_as_it_says():
    matrix = planted()
    known = torch.ones_like(matrix, dtype=torch.bool)
    known[RANK + 1 :, 0] = False
    errors = []
    for seed in range(40):
        noisy = matrix + 1e-6 * torch.randn(matrix.shape, generator=generator(seed), dtype=torch.float64)
        completion = complete_matrix(noisy, known, generator(), RANK)
        errors.append((completion.matrix - matrix)[RANK + 1 :, 0].square().sum() / 1e-12)
    worst = float(1 / completion.columns[0])  # of B directions at most as bad
    assert 0.5 * worst < torch.stack(errors).mean() < RANK * worst
