"""One seed, and from it a generator for each role."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gibench import seeds

ROLES = ("data", "model", "defense", "attack")


def draw_from_all():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)]


@given(st.lists(st.integers(0, 2**63), min_size=2, max_size=8, unique=True))
def test_every_seed_and_role_has_a_generator_of_its_own(numbers):
    derived = [seeds.derive(number, role) for number in numbers for role in ROLES]
    assert len(set(derived)) == len(derived)
    assert all(0 <= value < 2**63 for value in derived)


def test_what_a_seed_derives_never_changes():
    assert seeds.derive(0, "data") == 8334554024401322350
    assert seeds.derive(7, "attack") == 3585273860578982230


@given(st.integers(0, 2**31), st.sampled_from(ROLES))
def test_a_generator_repeats_itself(seed, role):
    one, same = (torch.randn(4, generator=seeds.generator(seed, role)) for _ in range(2))
    assert torch.equal(one, same)


def test_inside_all_global_generators_follow_the_seed():
    drawn = []
    for seed in (1, 1, 2):
        with seeds.isolated(seed, "attack"):
            drawn.append(draw_from_all())
    assert drawn[0] == drawn[1]
    assert all(one != other for one, other in zip(drawn[1], drawn[2], strict=True))


def fail():
    draw_from_all()
    raise KeyError


def leave_by_an_error():
    with pytest.raises(KeyError), seeds.isolated(1, "attack"):
        fail()


def leave():
    with seeds.isolated(1, "attack"):
        draw_from_all()


@pytest.mark.parametrize("visit", [leave, leave_by_an_error])
def test_outside_all_global_generators_go_on_as_if_nothing_had_been(visit):
    drawn = []
    for interlude in (lambda: None, visit):
        torch.manual_seed(5)
        np.random.seed(5)
        random.seed(5)
        interlude()
        drawn.append(draw_from_all())
    assert drawn[0] == drawn[1]


def flip():
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_float32_matmul_precision("medium")
    torch.set_deterministic_debug_mode("warn")


def switches():
    return (
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.get_deterministic_debug_mode(),
    )


def test_outside_torch_is_set_up_as_before():
    before = switches()
    with seeds.isolated(1, "attack"):
        flip()
        inside = switches()
    assert all(one != other for one, other in zip(inside, before, strict=True))
    assert switches() == before
