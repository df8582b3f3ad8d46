"""The slices that work on many candidates is cut into."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gibench.attacks.exact.chunks import chunks

CPU = torch.device("cpu")


@given(count=st.integers(1, 300), bytes_each=st.integers(0, 2**28))
def test_they_cover_every_candidate_once_and_fit_the_memory(count, bytes_each):
    slices = list(chunks(count, bytes_each, CPU))
    covered = [k for part in slices for k in range(part.start, part.stop)]
    assert covered == list(range(count))
    assert all(part.stop - part.start == 1 or (part.stop - part.start) * bytes_each <= 2**24 for part in slices)


def test_no_candidates_are_one_empty_slice():
    assert list(chunks(0, 8, CPU)) == [slice(0, 0)]


@pytest.mark.parametrize("count", [1, 1000])
def test_an_accelerator_is_given_more_at_once(count):
    assert len(list(chunks(count, 2**20, torch.device("cuda")))) <= len(list(chunks(count, 2**20, CPU)))
