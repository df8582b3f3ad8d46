"""Bytes of an update: the shortest of plain codes, known in closed form."""

import pytest
import torch

from gibench.utility.size import bytes_of

GENERATOR = torch.Generator().manual_seed(0)


def noise(*shape):
    return torch.randn(shape, generator=GENERATOR)


def with_zeros(count, kept):
    tensor = torch.zeros(count)
    tensor[:kept] = noise(kept)
    return tensor


@pytest.mark.parametrize(
    ("tensor", "size"),
    [
        (noise(40, 25), 4000),  # values as they are
        (noise(40, 25).double(), 8000),
        (noise(1000).sign(), 8 + 125),  # a table of two, and a bit an entry
        ((noise(10_000) * 30).round().clamp(-127, 127) + 1000, 10_000 + 4 * 255),  # at most: 255 values, a byte each
        (with_zeros(1000, 100), 125 + 400),  # a bitmap and the values
        (with_zeros(100_000, 10), 40 + 40),  # positions and the values
        (torch.zeros(1000), 0),
        (torch.zeros(0), 0),
    ],
)
def test_the_size_is_that_of_the_shortest_code(tensor, size):
    found = bytes_of([tensor])
    if size == 10_000 + 4 * 255:
        assert 0.8 * size < found <= size
    else:
        assert found == size


def test_tensors_add_up_and_none_is_larger_than_it_is_stored():
    tensors = [noise(3), noise(100).sign(), with_zeros(64, 32)]
    assert bytes_of(tensors) == sum(bytes_of([each]) for each in tensors)
    assert all(bytes_of([each]) <= each.nbytes for each in tensors)


def test_signs_of_a_pruned_update_take_a_bitmap_and_a_bit_each():
    tensor = torch.zeros(8000)
    tensor[:800] = noise(800).sign()
    assert bytes_of([tensor]) == 1000 + 8 + 100
