"""The group's consensus: translations are found exactly, restarts that left the finite numbers have no say."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from gibench.attacks.optimization.consensus import consensus, group_consistency, registered
from tests.attacks.optimization.conftest import smooth


def pictures(batch=2, channels=3, height=16, width=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return smooth(torch.rand(batch, channels, height, width, generator=generator)).double()


@profile(max_examples=40)
@given(
    height=st.integers(8, 33),
    width=st.integers(8, 33),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_a_translation_is_undone_exactly_each_image_by_its_own(height, width, channels, seed, data):
    target = pictures(2, channels, height, width, seed)
    down, across = (st.integers(-(side // 8), side // 8) for side in (height, width))
    shifts = [[(data.draw(down), data.draw(across)) for _ in target] for _ in range(3)]
    moved = torch.stack(
        [
            torch.stack([image.roll(shift, (1, 2)) for image, shift in zip(target, of_restart, strict=True)])
            for of_restart in shifts
        ]
    )
    assert torch.equal(registered(moved, target), target.expand(3, *target.shape))


def test_no_image_is_moved_by_more_than_an_eighth_of_a_side():
    target = pictures()
    far = target.roll((5, 9), (2, 3))[None]
    found = registered(far, target)
    rolled = [far[0].roll((down, across), (2, 3)) for down in range(-2, 3) for across in range(-3, 4)]
    for number, image in enumerate(found[0]):
        assert any(torch.equal(image, each[number]) for each in rolled)


def test_what_no_shift_fits_better_stays_where_it_is():
    grey = torch.full((2, 1, 3, 16, 16), 0.5)
    assert torch.equal(registered(grey, torch.zeros(1, 3, 16, 16)), grey)


def test_the_consensus_is_the_picture_of_which_most_restarts_are_in_place():
    target = pictures()
    restarts = torch.stack([target, target, target, target.roll((1, -2), (2, 3))])
    plain = restarts.mean(0)
    torch.testing.assert_close(consensus(restarts), target)
    assert not torch.allclose(plain, target, atol=0.01)


def test_a_restart_without_finite_numbers_has_no_say_and_none_is_no_number():
    target = pictures()
    broken = target.clone()
    broken[1, 0, 3, 3] = torch.nan
    torch.testing.assert_close(consensus(torch.stack([target, broken, target])), target)
    distances = group_consistency(torch.stack([target, broken, target]))
    assert distances.isfinite().tolist() == [True, False, True]
    assert consensus(broken[None]).isfinite().all()


def test_the_penalty_is_the_root_mean_square_distance_and_leads_to_the_consensus():
    target = pictures()
    noise = torch.randn(4, *target.shape, generator=torch.Generator().manual_seed(1)).double() / 50
    images = (target + noise).requires_grad_()
    penalty = group_consistency(images)
    due = (images.detach() - consensus(images.detach())).square().mean((1, 2, 3, 4)).sqrt()
    torch.testing.assert_close(penalty.detach(), due, rtol=1e-3, atol=0)
    (slope,) = torch.autograd.grad(penalty.sum(), images)
    closer = images.detach() - 0.5 * slope / slope.norm() * (images.detach() - target).norm() / 2
    assert (closer - consensus(images.detach())).norm() < (images.detach() - consensus(images.detach())).norm()
    alone = images.detach()[:1].requires_grad_()
    (slope,) = torch.autograd.grad(group_consistency(alone).sum(), alone)
    assert not slope.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_promoted(dtype):
    images = pictures().to(dtype)[None].repeat(3, 1, 1, 1, 1)
    assert consensus(images).dtype == dtype
    assert group_consistency(images).dtype == dtype
